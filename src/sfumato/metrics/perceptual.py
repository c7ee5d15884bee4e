"""Shift-tolerant LPIPS: a perceptual distance that a shift of one pixel does not disturb.

The trunk is AlexNet with its strides replaced by low-pass filters, the weights are those that the
package ``stlpips_pytorch`` carries. Of that package only the file of weights is read; its code,
which needs torchvision, is not imported.

Reference: Ghildyal and Liu, "Shift-tolerant perceptual similarity metric", ECCV 2022; Zhang et
al., "The unreasonable effectiveness of deep features as a perceptual metric" (LPIPS), CVPR 2018;
Zhang, "Making convolutional networks shift-invariant again" (the low-pass filters), ICML 2019.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from sfumato.errors import ModelError, SettingsError, ShapeError
from sfumato.metrics._pictures import Pictures, Scores, check_pictures

PACKAGE = "stlpips_pytorch"
WEIGHTS = Path("weights", "vST0.0", "alex_shift_tolerant.pth")

#: Names of the five convolutions and of the five channel weightings in the file.
CONVOLUTIONS = ("slice1.0", "slice2.5", "slice3.9", "slice4.11", "slice5.13")
PADDINGS = (2, 2, 1, 1, 1)
#: Channel means and deviations of natural pictures in [-1, 1], as LPIPS has them.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
#: Below this side a reflection at the last low-pass filter has nothing to reflect.
SMALLEST_SIDE = 21


@dataclass(frozen=True)
class _Stage:
    """One convolution and what its feature map contributes to the distance."""

    weight: Tensor
    bias: Tensor
    padding: int
    channel_weights: Tensor

    def to(self, x: Tensor) -> _Stage:
        """Return the same stage on the device and in the dtype of ``x``."""
        return _Stage(self.weight.to(x), self.bias.to(x), self.padding, self.channel_weights.to(x))

    def convolve(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, self.bias, padding=self.padding)


class ShiftTolerantLPIPS:
    """Perceptual distance  ``d(a, b) = Σ_l mean_{h,w} Σ_c w_lc (â_l − b̂_l)²_chw``.

    ``â_l`` are the features of layer ``l`` (of five), at each place scaled to length 1. 0 means
    equal, 0.1 hardly different, 0.5 very different. The layers hold 64 values a pixel: reckon with
    1 GB a megapixel.

    Raises SettingsError where the package with the weights is missing, ModelError where its file
    is damaged.

    >>> distance = ShiftTolerantLPIPS()
    >>> a = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> distance(a, a).tolist()
    [0.0, 0.0]
    """

    def __init__(self, weights: Path | None = None) -> None:
        """Load ``weights``, by default the file of the installed ``stlpips_pytorch``."""
        self._trunk = Trunk(weights or find_weights())

    def __call__(self, a: Pictures, b: Pictures) -> Scores:
        """Return one distance a picture: () for (channels, height, width), (batch,) for a batch.

        ``a`` and ``b`` are in [0, 1], with 3 channels, or 1, which is taken for all three.
        Gradients pass; device and dtype are those of ``a``.

        Raises ShapeError for shapes that differ, other channels, and sides below 21 pixels.
        """
        check_pictures(a, b)
        distance = a.new_zeros(a.shape[:-3] or (1,))
        for (a_l, weights), (b_l, _) in zip(self._trunk(a), self._trunk(b), strict=True):
            square = (a_l - b_l).square()
            distance = distance + functional.conv2d(square, weights).mean(dim=(-3, -2, -1))
        return distance.view(a.shape[:-3])


class Trunk:
    """The five layers of features, each with the weights of its channels.

    Raises ModelError where the file is damaged.
    """

    def __init__(self, weights: Path) -> None:
        self._stages = _load(weights)

    def __call__(self, pictures: Pictures) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``â_l`` (batch, channels, height, width), of length 1 at each place, and ``w_l``.

        ``w_l`` is (1, channels, 1, 1). Raises ShapeError for channels other than 1 or 3, and for
        sides below 21 pixels.
        """
        _check_size(pictures)
        stages = [stage.to(pictures) for stage in self._stages]
        for stage, features in zip(stages, _features(pictures, stages), strict=True):
            yield _unit(features), stage.channel_weights


def find_weights(wanted_by: str = "LPIPS") -> Path:
    """Return where the installed ``stlpips_pytorch`` keeps the weights, without importing it.

    Raises SettingsError where it is not installed, and says who needs it.

    >>> find_weights().name
    'alex_shift_tolerant.pth'
    """
    spec = find_spec(PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        if (path := Path(folder) / WEIGHTS).is_file():
            return path
    raise SettingsError(
        f"{wanted_by} needs the weights of the package {PACKAGE}, which is not installed",
        do='install it with: pip install "sfumato[lpips]"',
    )


def _load(path: Path) -> tuple[_Stage, ...]:
    try:
        state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return tuple(
            _Stage(
                weight=state[f"net.{name}.weight"],
                bias=state[f"net.{name}.bias"],
                padding=padding,
                channel_weights=state[f"lin{layer}.model.1.weight"],
            )
            for layer, (name, padding) in enumerate(zip(CONVOLUTIONS, PADDINGS, strict=True))
        )
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}",
            expected="the weights of shift-tolerant LPIPS, AlexNet",
            do=f"install {PACKAGE} anew",
        ) from error


def _check_size(picture: Tensor) -> None:
    channels, height, width = picture.shape[-3:]
    if channels not in (1, 3) or min(height, width) < SMALLEST_SIDE:
        raise ShapeError(
            f"{channels} channels of {height} x {width} pixels",
            expected=f"1 or 3 channels of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} for LPIPS",
        )


def _features(picture: Tensor, stages: list[_Stage]) -> Iterator[Tensor]:
    """Yield the feature maps after the five rectifiers, with 1/2, 1/4, 1/8, 1/8, 1/8 of the side.

    The first stage is thinned out before its rectifier, the next two before their convolution,
    there after a maximum over 3 x 3.
    """
    rgb = picture.expand(*picture.shape[:-3], 3, *picture.shape[-2:])
    x = rgb.reshape(-1, *rgb.shape[-3:])
    shift, scale = (x.new_tensor(v).view(3, 1, 1) for v in (SHIFT, SCALE))
    x = functional.relu(_halve(stages[0].convolve((2 * x - 1 - shift) / scale)))
    yield x
    for stage in stages[1:3]:
        x = functional.relu(
            stage.convolve(_halve(functional.max_pool2d(x, kernel_size=3, stride=1)))
        )
        yield x
    for stage in stages[3:]:
        x = functional.relu(stage.convolve(x))
        yield x


def _halve(x: Tensor) -> Tensor:
    """Take every second value after a binomial low-pass filter, two pixels reflected around."""
    channels = x.shape[1]
    binomial = x.new_tensor([1.0, 2.0, 1.0]) / 4
    kernel = torch.outer(binomial, binomial).expand(channels, 1, 3, 3)
    padded = functional.pad(x, (2, 2, 2, 2), mode="reflect")
    return functional.conv2d(padded, kernel, stride=2, groups=channels)


def _unit(x: Tensor) -> Tensor:
    """Scale the vector of channels at each place to length 1; a vector of zeros stays."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / (length + 1e-10)
