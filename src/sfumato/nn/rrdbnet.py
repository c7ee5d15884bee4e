"""RRDBNet, the network of ESRGAN, BSRGAN and Real-ESRGAN: one picture in, a larger one out.

Reference: Wang et al., *ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks*, arXiv
1809.00219, section 3.1; Real-ESRGAN (arXiv 2107.10833, section 3.4) folds the input for factors
of 2 and 1. The names of the weights are those of the public Real-ESRGAN checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato.errors import SettingsError
from sfumato.nn._checks import check_whole

_COLOURS = 3
#: Of LeakyReLU, and what a branch counts beside what it is added to.
_SLOPE, _SHARE = 0.2, 0.2


@final
@dataclass(frozen=True)
class RRDBNetConfig:
    """The form of an RRDBNet.

    ``features`` are those of its layers, ``growth`` what each layer of a dense block adds,
    ``blocks`` their number. The input is folded by ``fold`` (1, 2 or 4), and doubled ``doublings``
    times at the end; so the result is ``2^doublings / fold`` times larger.

    Raises SettingsError where a value is out of range.

    >>> RRDBNetConfig().scale, RRDBNetConfig(fold=2).scale
    (4, 2)
    """

    features: int = 64
    blocks: int = 23
    growth: int = 32
    fold: int = 1
    doublings: int = 2

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("features", self.features, 1, 1024),
            ("blocks", self.blocks, 1, 256),
            ("growth", self.growth, 1, 1024),
            ("doublings", self.doublings, 0, 3),
        ):
            check_whole(name, value, least, most)
        if self.fold not in (1, 2, 4) or 2**self.doublings < self.fold:
            raise SettingsError(
                f"an RRDBNet that folds by {self.fold} and doubles {self.doublings} times",
                expected="a fold of 1, 2 or 4, and a result that is no smaller",
            )

    @property
    def scale(self) -> int:
        """How many times larger the result is."""
        return (1 << self.doublings) // self.fold


@final
class RRDBNet(nn.Module):
    """The network: a picture (batch, 3, h, w) in [0, 1] to one of (batch, 3, s h, s w).

    ``h`` and ``w`` are multiples of ``fold``.

    >>> net = RRDBNet(RRDBNetConfig(features=4, blocks=1, growth=2, fold=2))
    >>> net(torch.zeros(1, 3, 8, 6)).shape
    torch.Size([1, 3, 16, 12])
    """

    def __init__(self, config: RRDBNetConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or RRDBNetConfig()
        self.conv_first = _conv(_COLOURS * c.fold**2, c.features)
        self.body = nn.Sequential(*(_RRDB(c.features, c.growth) for _ in range(c.blocks)))
        self.conv_body = _conv(c.features, c.features)
        for k in range(c.doublings):
            self.add_module(f"conv_up{k + 1}", _conv(c.features, c.features))
        self.conv_hr = _conv(c.features, c.features)
        self.conv_last = _conv(c.features, _COLOURS)

    def forward(self, u: Tensor) -> Tensor:
        """Return the larger picture, not clipped."""
        x = self.conv_first(functional.pixel_unshuffle(u, self.config.fold))
        x = x + self.conv_body(self.body(x))
        for k in range(self.config.doublings):
            larger = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = _bent(self.get_submodule(f"conv_up{k + 1}")(larger))
        result: Tensor = self.conv_last(_bent(self.conv_hr(x)))
        return result


class _RRDB(nn.Module):
    """Three dense blocks in a row, added to what they saw (ESRGAN, figure 4)."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = _Dense(features, growth)
        self.rdb2 = _Dense(features, growth)
        self.rdb3 = _Dense(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        """Return  x + 0.2 (D₃ D₂ D₁) x."""
        branch: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + _SHARE * branch


class _Dense(nn.Module):
    """Five convolutions, each of which sees what all before it made."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for k in range(5):
            out = growth if k < 4 else features
            self.add_module(f"conv{k + 1}", _conv(features + k * growth, out))

    def forward(self, x: Tensor) -> Tensor:
        """Return  x + 0.2 conv₅[x, y₁, …, y₄],  yₖ = LeakyReLU(convₖ[x, y₁, …, yₖ₋₁])."""
        seen = [x]
        for k in range(4):
            seen.append(_bent(self.get_submodule(f"conv{k + 1}")(torch.cat(seen, 1))))
        branch: Tensor = self.get_submodule("conv5")(torch.cat(seen, 1))
        return x + _SHARE * branch


def _conv(c_in: int, c_out: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1)


def _bent(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)
