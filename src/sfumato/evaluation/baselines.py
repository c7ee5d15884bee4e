"""Restorers that learned nothing, each with its parameters stated.

============================  ==============================================================
``pseudo-inverse``            A⁺ y: what is known, and nothing where nothing is
``grey``                      x = (y, y, y): the grey picture as it is, for colourisation
``bicubic``                   Keys' interpolation with a = −1/2, as Pillow and MATLAB enlarge
``back-projection:rounds``    that, then  x ← x + U(y − A x),  ``U`` the same interpolation
``total-variation``           min ½‖x − y‖² + w TV(x), at the ``w`` that leaves the noise
``non-local-means:h``         patches of 5 x 5 within 13 x 13, decay ``h`` times the noise
``richardson-lucy:rounds``    x ← x · Aᵀ(y / A x) / Aᵀ1, for blurs
``biharmonic``                Δ²x = 0 in the holes, the known pixels kept
============================  ==============================================================

Total variation, non-local means and biharmonic inpainting are scikit-image's (extra
``evaluation``). Where a picture is noisy and small,
total variation and non-local means take the noise away first, and bicubic interpolation follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from sfumato.errors import SettingsError
from sfumato.evaluation.posed import Answer, Contender, Posed, as_shaped, eight_bits
from sfumato.guidance.methods import Option
from sfumato.operators import Grayscale, Identity, links

#: Rounds of choosing TV's weight, each of which scales it by what is missing.
_WEIGHINGS = 6
#: The least that Richardson and Lucy divide by.
_LEAST = 1e-4

Options: TypeAlias = Mapping[str, float]


def pseudo_inverse(posed: Posed, options: Options) -> Tensor:
    """Return  A⁺ y,  of all pictures that explain the measurement the one of least energy."""
    return posed.A.pinv(posed.y[None].double())[0]


def grey(posed: Posed, options: Options) -> Tensor:
    """Return  (y, y, y)/Σw  for  y = Σ w_c x_c:  the picture without colour."""
    A = posed.alone(Grayscale)
    if not isinstance(A, Grayscale):
        raise posed.cannot("a grey picture")
    return posed.y.expand(posed.shape) / sum(A.weights)


def bicubic(posed: Posed, options: Options) -> Tensor:
    """Enlarge by Keys' kernel."""
    posed.enlargement()
    return _enlarged(posed.y, posed)


def back_projection(posed: Posed, options: Options) -> Tensor:
    """Return what interpolation and corrections of the residual make; it makes  A x = y.

    ``x ← x + U(y − A x)``, ``rounds`` times. Reference: Irani and Peleg, "Improving resolution by
    image registration", CVGIP 53 (1991).
    """
    posed.enlargement()
    x = _enlarged(posed.y, posed)
    for _ in range(int(options["rounds"])):
        x = x + _enlarged(posed.y - posed.A(x[None])[0], posed)
    return x


def total_variation(posed: Posed, options: Options) -> Tensor:
    """Denoise by total variation with the weight at which  ‖x − y‖ = σ √n.

    The weight begins at ``σ`` and is multiplied by  σ √n / ‖x − y‖  six times, which comes near.
    References: Chambolle, "An algorithm for total variation minimization", 2004, section 4 (the
    rule for the weight too); Morozov's discrepancy principle.
    """
    restoration, sigma = _restoration("total-variation"), _sigma(posed)

    def denoised(y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        weight, x = sigma, y
        for _ in range(_WEIGHINGS):
            x = restoration.denoise_tv_chambolle(y, weight=weight, channel_axis=-1)
            weight *= sigma / max(float(np.sqrt(np.mean((x - y) ** 2))), sigma / 10)
        return x

    return _after(denoised, posed)


def non_local_means(posed: Posed, options: Options) -> Tensor:
    """Denoise by non-local means, with the noise's variance taken from distances of patches.

    Reference: Buades, Coll and Morel, "A non-local algorithm for image denoising", CVPR 2005.
    """
    restoration, sigma = _restoration("non-local-means"), _sigma(posed)

    def denoised(y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        result: npt.NDArray[np.float64] = restoration.denoise_nl_means(
            y,
            patch_size=5,
            patch_distance=6,
            h=options["h"] * sigma,
            sigma=sigma,
            fast_mode=True,
            channel_axis=-1,
        )
        return result

    return _after(denoised, posed)


def richardson_lucy(posed: Posed, options: Options) -> Tensor:
    """Return  x ← x · Aᵀ(y / A x) / Aᵀ1  after ``rounds``, from grey.

    It is scikit-image's where nothing is near the border; there its blur looks into the dark, and
    ``A`` of the task does not. Reference: Lucy, "An iterative technique for the rectification of
    observed distributions", 1974.
    """
    posed.blur()
    A, y = posed.A, posed.y[None].double().clamp(min=_LEAST)
    x = torch.full_like(y, 0.5)
    share = A.adjoint(torch.ones_like(y))
    for _ in range(int(options["rounds"])):
        x = x * A.adjoint(y / A(x).clamp(min=_LEAST)) / share
    return x[0]


def biharmonic(posed: Posed, options: Options) -> Tensor:
    """Fill holes with the solution of  Δ²x = 0  that joins the known pixels smoothly.

    Reference: Damelin and Hoang, "On surface completion and image inpainting by biharmonic
    functions", 2018.
    """
    known = posed.known().bool().numpy()[0]
    restoration = _restoration("biharmonic")
    y = _rows_first(posed.y)
    filled = restoration.inpaint_biharmonic(y, ~known, split_into_regions=False, channel_axis=-1)
    return _channels_first(np.where(known[..., None], y, filled))


@dataclass(frozen=True)
class Baseline:
    """A baseline in the table of them: how it is done, what it is called, what it takes."""

    make: Callable[[Posed, Options], Tensor]
    caption: str
    options: Mapping[str, Option] = field(default_factory=dict)


BASELINES: dict[str, Baseline] = {
    "pseudo-inverse": Baseline(pseudo_inverse, "pseudo-inverse"),
    "grey": Baseline(grey, "the grey picture"),
    "bicubic": Baseline(bicubic, "bicubic interpolation"),
    "back-projection": Baseline(
        back_projection, "iterated back-projection", {"rounds": Option(20, 1, 1000, whole=True)}
    ),
    "total-variation": Baseline(total_variation, "total variation"),
    "non-local-means": Baseline(non_local_means, "non-local means", {"h": Option(0.8, 0.01, 100)}),
    "richardson-lucy": Baseline(
        richardson_lucy, "Richardson-Lucy", {"rounds": Option(30, 1, 10_000, whole=True)}
    ),
    "biharmonic": Baseline(biharmonic, "biharmonic inpainting"),
}


@final
class Classical(Contender):
    """A baseline with its options, as ``NAME:OPTION=VALUE`` has them.

    Raises SettingsError for an option that it does not have.

    >>> Classical("back-projection", "back-projection:rounds=5").identity("photo")
    {'baseline': 'back-projection', 'options': {'rounds': 5.0}}
    """

    def __init__(self, name: str, use: str, caption: str = "") -> None:
        word, _, rest = use.partition(":")
        baseline = BASELINES[word]
        options = {key: option.default for key, option in baseline.options.items()}
        for part in filter(None, rest.split(",")):
            key, _, value = part.partition("=")
            if key not in options:
                raise SettingsError(
                    f"option {key} of {word}", expected=", ".join(options) or "no option"
                )
            options[key] = baseline.options[key].read(f"{word}:{key}", value)
        self.name, self.caption = name, caption or baseline.caption
        self._word, self._make, self._options = word, baseline.make, options

    @override
    def identity(self, picture: str) -> Mapping[str, object]:
        return {"baseline": self._word, "options": dict(self._options)}

    @override
    def answer(self, posed: Posed) -> Answer:
        x = self._make(posed, self._options).float()
        return Answer(eight_bits(as_shaped(x, posed.shape)).contiguous())


def _restoration(name: str) -> ModuleType:
    try:
        from skimage import restoration
    except ImportError as error:
        raise SettingsError(
            f"{name}, and scikit-image is not installed", do="pip install sfumato[evaluation]"
        ) from error
    module: ModuleType = restoration
    return module


def _enlarged(y: Tensor, posed: Posed) -> Tensor:
    """Interpolate to the size of the photograph; antialiasing is what makes a = −1/2."""
    size = posed.shape[1:]
    return functional.interpolate(y[None], size=size, mode="bicubic", antialias=True)[0]


def _sigma(posed: Posed) -> float:
    """Return the noise of a picture that was made smaller at most; SettingsError else."""
    if not posed.noise:
        raise posed.cannot("a noisy picture")
    if not all(isinstance(P, Identity) for P in links(posed.A)):
        posed.enlargement()
    return posed.noise


def _after(
    denoise: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]], posed: Posed
) -> Tensor:
    """Denoise the measurement, and enlarge it where that is asked for."""
    y = _rows_first(posed.y)
    x = _channels_first(denoise(y).reshape(y.shape)).to(posed.y)
    return x if posed.scale == 1 else _enlarged(x, posed)


def _rows_first(x: Tensor) -> npt.NDArray[np.float64]:
    return np.ascontiguousarray(x.double().permute(1, 2, 0).numpy())


def _channels_first(x: npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))
