"""The Inception network of 2015, by whose features FID, KID and the Inception score are defined.

It is TensorFlow's graph of 2015-12-05 as PyTorch: mean pooling does not count the padding, the
last block takes maxima instead, and there are 1008 classes. Weights are the user's; their names
are those of the published state dict (``pt_inception-2015-12-05-6726825d.pth`` of pytorch-fid),
which loads as it is.

Reference: Szegedy et al., "Rethinking the Inception architecture for computer vision", arXiv
1512.00567, figures 5 to 7 and 10; Heusel et al. (FID), arXiv 1706.08500.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sfumato.errors import ShapeError
from sfumato.nn.norm import FrozenNorm

#: The side that the features are defined for, and the smallest that the network takes.
SIDE, SMALLEST_SIDE = 299, 75
N_FEATURES, N_CLASSES = 2048, 1008

#: Height and width of a kernel, its stride, and what is padded.
_Kernel: TypeAlias = tuple[int, int, int, tuple[int, int]]
_Pool: TypeAlias = Literal["mean", "max", "thin"]


def _same(height: int, width: int) -> _Kernel:
    return height, width, 1, (height // 2, width // 2)


_1x1, _3x3, _5x5, _1x7, _7x1, _1x3, _3x1 = (
    _same(*k) for k in ((1, 1), (3, 3), (5, 5), (1, 7), (7, 1), (1, 3), (3, 1))
)
_VALID: _Kernel = (3, 3, 1, (0, 0))
_THIN: _Kernel = (3, 3, 2, (0, 0))


@final
class _Convolution(nn.Module):
    """A convolution, normalised and rectified."""

    def __init__(self, channels: int, out: int, kernel: _Kernel) -> None:
        super().__init__()
        height, width, stride, padding = kernel
        self.conv = nn.Conv2d(channels, out, (height, width), stride, padding, bias=False)
        self.bn = FrozenNorm(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


@final
class _Mixed(nn.Module):
    """Branches side by side, and the pooled input as the last one.

    A branch is the names of its layers; those joined by a bar are side by side themselves.
    """

    def __init__(
        self,
        channels: int,
        layers: Mapping[str, tuple[int, _Kernel]],
        branches: Sequence[str],
        pool: _Pool,
    ) -> None:
        super().__init__()
        self._branches, self._pool = tuple(branch.split() for branch in branches), pool
        self.out = channels if pool == "thin" else 0
        for branch in self._branches:
            width = channels
            for step in branch:
                names = step.split("|")
                for name in names:
                    self.add_module(name, _Convolution(width, *layers[name]))
                width = sum(layers[name][0] for name in names)
            self.out += width

    def forward(self, x: Tensor) -> Tensor:
        outputs = [self._follow(x, b) for b in self._branches if b[0] != "branch_pool"]
        pooled = self._pooled(x)
        last = self.get_submodule("branch_pool")(pooled) if self._pool != "thin" else pooled
        return torch.cat([*outputs, last], dim=1)

    def _follow(self, x: Tensor, branch: Sequence[str]) -> Tensor:
        for step in branch:
            parts = [self.get_submodule(name)(x) for name in step.split("|")]
            x = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        return x

    def _pooled(self, x: Tensor) -> Tensor:
        if self._pool == "mean":
            return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        if self._pool == "max":
            return functional.max_pool2d(x, 3, stride=1, padding=1)
        return functional.max_pool2d(x, 3, stride=2)


def _block_a(channels: int, pooled: int) -> _Mixed:
    layers = {
        "branch1x1": (64, _1x1),
        "branch5x5_1": (48, _1x1),
        "branch5x5_2": (64, _5x5),
        "branch3x3dbl_1": (64, _1x1),
        "branch3x3dbl_2": (96, _3x3),
        "branch3x3dbl_3": (96, _3x3),
        "branch_pool": (pooled, _1x1),
    }
    return _Mixed(
        channels,
        layers,
        (
            "branch1x1",
            "branch5x5_1 branch5x5_2",
            "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3",
            "branch_pool",
        ),
        "mean",
    )


def _block_b(channels: int) -> _Mixed:
    layers = {
        "branch3x3": (384, _THIN),
        "branch3x3dbl_1": (64, _1x1),
        "branch3x3dbl_2": (96, _3x3),
        "branch3x3dbl_3": (96, _THIN),
    }
    return _Mixed(
        channels, layers, ("branch3x3", "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3"), "thin"
    )


def _block_c(channels: int, narrow: int) -> _Mixed:
    layers = {
        "branch1x1": (192, _1x1),
        "branch7x7_1": (narrow, _1x1),
        "branch7x7_2": (narrow, _1x7),
        "branch7x7_3": (192, _7x1),
        "branch7x7dbl_1": (narrow, _1x1),
        "branch7x7dbl_2": (narrow, _7x1),
        "branch7x7dbl_3": (narrow, _1x7),
        "branch7x7dbl_4": (narrow, _7x1),
        "branch7x7dbl_5": (192, _1x7),
        "branch_pool": (192, _1x1),
    }
    return _Mixed(
        channels,
        layers,
        (
            "branch1x1",
            "branch7x7_1 branch7x7_2 branch7x7_3",
            " ".join(f"branch7x7dbl_{k}" for k in range(1, 6)),
            "branch_pool",
        ),
        "mean",
    )


def _block_d(channels: int) -> _Mixed:
    layers = {
        "branch3x3_1": (192, _1x1),
        "branch3x3_2": (320, _THIN),
        "branch7x7x3_1": (192, _1x1),
        "branch7x7x3_2": (192, _1x7),
        "branch7x7x3_3": (192, _7x1),
        "branch7x7x3_4": (192, _THIN),
    }
    return _Mixed(
        channels,
        layers,
        ("branch3x3_1 branch3x3_2", " ".join(f"branch7x7x3_{k}" for k in range(1, 5))),
        "thin",
    )


def _block_e(channels: int, pool: _Pool) -> _Mixed:
    layers = {
        "branch1x1": (320, _1x1),
        "branch3x3_1": (384, _1x1),
        "branch3x3_2a": (384, _1x3),
        "branch3x3_2b": (384, _3x1),
        "branch3x3dbl_1": (448, _1x1),
        "branch3x3dbl_2": (384, _3x3),
        "branch3x3dbl_3a": (384, _1x3),
        "branch3x3dbl_3b": (384, _3x1),
        "branch_pool": (192, _1x1),
    }
    return _Mixed(
        channels,
        layers,
        (
            "branch1x1",
            "branch3x3_1 branch3x3_2a|branch3x3_2b",
            "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a|branch3x3dbl_3b",
            "branch_pool",
        ),
        pool,
    )


@final
class FIDInception(nn.Module):
    """Pictures to 2048 features, the means of the last block's channels.

    It is never trained: there is no dropout, and normalisation is by the stored statistics.

    >>> net = FIDInception()
    >>> sum(t.numel() for name, t in net.state_dict().items() if "running" not in name)
    23850960
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, _THIN)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, _VALID)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, _3x3)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, _1x1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, _VALID)
        self.Mixed_5b = _block_a(192, 32)
        self.Mixed_5c = _block_a(256, 64)
        self.Mixed_5d = _block_a(288, 64)
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b = _block_c(768, 128)
        self.Mixed_6c = _block_c(768, 160)
        self.Mixed_6d = _block_c(768, 160)
        self.Mixed_6e = _block_c(768, 192)
        self.Mixed_7a = _block_d(768)
        self.Mixed_7b = _block_e(1280, "mean")
        self.Mixed_7c = _block_e(2048, "max")
        self.fc = nn.Linear(N_FEATURES, N_CLASSES)
        self.requires_grad_(False)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Return the features of pictures in [-1, 1], of 299 x 299 pixels for FID.

        Raises ShapeError for sides below 75 pixels.
        """
        if min(x.shape[-2:]) < SMALLEST_SIDE:
            raise ShapeError(
                f"{x.shape[-1]} x {x.shape[-2]} pixels for Inception",
                expected=f"at least {SMALLEST_SIDE} x {SMALLEST_SIDE}",
            )
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = functional.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = functional.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(dim=(2, 3))

    def logits(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        """Return ``W f``, (batch, 1008): without the bias, as the Inception score has it."""
        return features @ self.fc.weight.mT
