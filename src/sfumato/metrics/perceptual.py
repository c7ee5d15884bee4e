"""Perceptual distances: shift-tolerant LPIPS, and LPIPS itself with the user's weights.

Both compare the features of five layers of a classifier. The trunk of the first is AlexNet (or
VGG-16) with its strides replaced by low-pass filters, which a shift of one pixel does not disturb;
its weights are those that the package ``stlpips_pytorch`` carries. Of that package only the files
of weights are read; its code, which needs torchvision, is not imported.

Reference: Ghildyal and Liu, "Shift-tolerant perceptual similarity metric", ECCV 2022; Zhang et
al., "The unreasonable effectiveness of deep features as a perceptual metric" (LPIPS), CVPR 2018;
Zhang, "Making convolutional networks shift-invariant again" (the low-pass filters), ICML 2019.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor
from torch.nn import functional

from sfumato.errors import ModelError, SettingsError
from sfumato.metrics._pictures import Pictures, Scores, check_pictures
from sfumato.metrics.trunks import FORMS, Form, features, unit

PACKAGE = "stlpips_pytorch"
#: Networks by whose features pictures are compared.
Network: TypeAlias = Literal["alex", "vgg"]


@final
class ShiftTolerantLPIPS:
    """Perceptual distance  ``d(a, b) = Σ_l mean_{h,w} Σ_c w_lc (â_l − b̂_l)²_chw``.

    ``â_l`` are the features of layer ``l`` (of five), at each place scaled to length 1. 0 means
    equal, 0.1 hardly different, 0.5 very different. The layers hold 64 values a pixel: reckon with
    1.1 GB a megapixel, and 2.3 for VGG-16.

    Raises SettingsError where the package with the weights is missing, ModelError where its file
    is damaged.

    >>> distance = ShiftTolerantLPIPS()
    >>> a = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> distance(a, a).tolist()
    [0.0, 0.0]
    """

    def __init__(self, weights: Path | None = None, *, network: Network = "alex") -> None:
        """Load ``weights``, by default the file of the installed ``stlpips_pytorch``."""
        self._trunk = Trunk.installed(weights or find_weights(network=network), network)

    def __call__(self, a: Pictures, b: Pictures) -> Scores:
        """Return one distance a picture: () for (channels, height, width), (batch,) for a batch.

        ``a`` and ``b`` are in [0, 1], with 3 channels, or 1, which is taken for all three.
        Gradients pass; device and dtype are those of ``a``.

        Raises ShapeError for shapes that differ, other channels, and sides below 21 pixels.
        """
        return _distance(self._trunk, a, b)


@final
class LPIPS:
    """LPIPS, version 0.1, with the user's weights; the formula is that of `ShiftTolerantLPIPS`.

    ``trunk`` holds the tensors of torchvision's AlexNet or VGG-16 (``features.0.weight``, …),
    ``heads`` the published weights of the channels (``lin0.model.1.weight``, …). Pictures are
    taken at their size, on [0, 1].

    Raises ModelError where tensors are missing, or of other shapes.

    Reference: Zhang et al., CVPR 2018, eq. 1 and section 4 ("lin").
    """

    def __init__(
        self, trunk: Mapping[str, Tensor], heads: Mapping[str, Tensor], *, network: Network
    ) -> None:
        self._trunk = Trunk.of(FORMS[network], {**trunk, **heads})

    def __call__(self, a: Pictures, b: Pictures) -> Scores:
        """Return one distance a picture; arguments and errors are those of `ShiftTolerantLPIPS`.

        AlexNet takes sides from 31 pixels on, VGG-16 from 16.
        """
        return _distance(self._trunk, a, b)


def _distance(trunk: Trunk, a: Pictures, b: Pictures) -> Scores:
    check_pictures(a, b)
    distance = a.new_zeros(a.shape[:-3] or (1,))
    for (a_l, weights), (b_l, _) in zip(trunk(a), trunk(b), strict=True):
        square = (a_l - b_l).square()
        distance = distance + functional.conv2d(square, weights).mean(dim=(-3, -2, -1))
    return distance.view(a.shape[:-3])


@final
class Trunk:
    """The five layers of features, each with the weights of its channels."""

    def __init__(self, form: Form, state: Mapping[str, Tensor]) -> None:
        """Take the tensors of a form by their names; raises KeyError where one is missing."""
        self._form = form
        self._state, self._heads = _parts(state, form)

    @classmethod
    def installed(cls, weights: Path, network: Network) -> Trunk:
        """Return that of shift-tolerant LPIPS, by the package's file."""
        form = FORMS[f"st-{network}"]
        return cls(form, _load(weights, form))

    @classmethod
    def of(cls, form: Form, state: Mapping[str, Tensor]) -> Trunk:
        """Return that of LPIPS, by the user's tensors; raises ModelError where they do not fit."""
        try:
            trunk = cls(form, state)
        except KeyError as error:
            raise ModelError(
                f"no tensor {error} among {len(state)}",
                expected=f"the weights of torchvision's {form.title}, and those of LPIPS's heads "
                "(lin0.model.1.weight, …)",
                do="give both files",
            ) from error
        _check_shapes(trunk._state, trunk._heads, form)
        return trunk

    def __call__(self, pictures: Pictures) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``â_l`` (batch, channels, height, width), of length 1 at each place, and ``w_l``.

        ``w_l`` is (1, channels, 1, 1). Raises ShapeError for channels other than 1 or 3, and for
        pictures that are too small.
        """
        layers = features(pictures, self._form, self._state)
        for weights, layer in zip(self._heads, layers, strict=True):
            yield unit(layer), weights.to(pictures)


def find_weights(wanted_by: str = "LPIPS", *, network: Network = "alex") -> Path:
    """Return where the installed ``stlpips_pytorch`` keeps the weights, without importing it.

    Raises SettingsError where it is not installed, and says who needs it.

    >>> find_weights().name
    'alex_shift_tolerant.pth'
    """
    file = Path("weights", "vST0.0", f"{network}_shift_tolerant.pth")
    spec = find_spec(PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        if (path := Path(folder) / file).is_file():
            return path
    raise SettingsError(
        f"{wanted_by} needs the weights of the package {PACKAGE}, which is not installed",
        do='install it with: pip install "sfumato[lpips]"',
    )


def _load(path: Path, form: Form) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        _parts(state, form)
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}",
            expected=f"the weights of shift-tolerant LPIPS, {form.title}",
            do=f"install {PACKAGE} anew",
        ) from error
    return state


def _parts(
    state: Mapping[str, Tensor], form: Form
) -> tuple[dict[str, tuple[Tensor, Tensor]], list[Tensor]]:
    """Return weight and bias of each convolution, and the weights of the channels."""
    convolutions = {
        name: (state[f"{form.prefix}{name}.weight"], state[f"{form.prefix}{name}.bias"])
        for name in form.convolutions
    }
    return convolutions, [state[f"lin{k}.model.1.weight"] for k in range(len(form.layers))]


def _check_shapes(
    state: Mapping[str, tuple[Tensor, Tensor]], heads: list[Tensor], form: Form
) -> None:
    """Refuse convolutions that do not follow each other, and heads of other channels."""
    channels = 3
    for name, (weight, bias) in state.items():
        if weight.ndim != 4 or weight.shape[1] != channels or bias.shape != weight.shape[:1]:
            raise ModelError(
                f"{form.prefix}{name}.weight of shape {tuple(weight.shape)}",
                expected=f"(out, {channels}, height, width), those of {form.title}",
            )
        channels = weight.shape[0]
    for k, (head, layer) in enumerate(zip(heads, form.taps, strict=True)):
        wanted = (1, state[layer][0].shape[0], 1, 1)
        if tuple(head.shape) != wanted:
            raise ModelError(
                f"lin{k}.model.1.weight of shape {tuple(head.shape)}",
                expected=f"{wanted}, the weights of {form.title}",
            )
