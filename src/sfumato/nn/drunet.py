"""DRUNet, a denoiser of Gaussian noise that is told how strong it is.

A residual U-Net of four levels without any norm, and in its published form without biases: answers
scale with what it is given. Beside the picture stands a map of the noise level.

Reference: Zhang et al., *Plug-and-Play Image Restoration with Deep Denoiser Prior*, arXiv
2008.13751, section 3; the names of the weights are those of its public checkpoints
(github.com/cszn/DPIR), which load as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from sfumato.nn._checks import check_whole, check_wholes
from sfumato.nn.exact import exactly

_COLOURS = 3
_LEVELS = 4


@final
@dataclass(frozen=True)
class DRUNetConfig:
    """The form of a DRUNet: one width a level, residual blocks in each, and whether it has biases.

    Raises SettingsError where a value is no whole number or out of range.

    >>> DRUNetConfig().channels
    (64, 128, 256, 512)
    """

    channels: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 4
    bias: bool = False

    def __post_init__(self) -> None:
        check_wholes("channels", self.channels, _LEVELS, _LEVELS, 4096)
        check_whole("blocks", self.blocks, 1, 16)

    @property
    def stride(self) -> int:
        """The number that both sides of an input must be multiples of."""
        return 1 << (_LEVELS - 1)


@final
class _Block(nn.Module):
    """``x + conv(relu(conv(x)))``."""

    def __init__(self, channels: int, *, bias: bool) -> None:
        super().__init__()
        self.res = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=bias),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of ``x``."""
        out: Tensor = x + self.res(x)
        return out


@final
class DRUNet(nn.Module):
    """The network ``F(u, s)``: a picture with noise to one without, both RGB in [0, 1].

    ``s`` of shape (batch,) is the standard deviation of the noise on that scale. Sides must be
    multiples of ``config.stride``. Within autocast the first and the last layer, which carry the
    picture itself, stay in float32.

    >>> net = DRUNet(DRUNetConfig(channels=(2, 2, 2, 2), blocks=1))
    >>> net(torch.zeros(1, 3, 8, 16), torch.zeros(1)).shape
    torch.Size([1, 3, 8, 16])
    """

    def __init__(self, config: DRUNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DRUNetConfig()
        a, b, c, d = config.channels
        self.m_head = nn.Conv2d(_COLOURS + 1, a, 3, padding=1, bias=config.bias)
        self.m_down1 = self._down(a, b)
        self.m_down2 = self._down(b, c)
        self.m_down3 = self._down(c, d)
        self.m_body = nn.Sequential(*self._blocks(d))
        self.m_up3 = self._up(d, c)
        self.m_up2 = self._up(c, b)
        self.m_up1 = self._up(b, a)
        self.m_tail = nn.Conv2d(a, _COLOURS, 3, padding=1, bias=config.bias)

    def forward(self, u: Tensor, s: Tensor) -> Tensor:
        """Return the picture without noise, of the shape of ``u``."""
        level = s.to(u)[:, None, None, None].expand(-1, 1, *u.shape[2:])
        x_1 = exactly(self.m_head, torch.cat([u, level], dim=1))
        x_2 = self.m_down1(x_1)
        x_3 = self.m_down2(x_2)
        x_4 = self.m_down3(x_3)
        x = self.m_up3(self.m_body(x_4) + x_4)
        x = self.m_up2(x + x_3)
        x = self.m_up1(x + x_2)
        return exactly(self.m_tail, x + x_1)

    def _blocks(self, channels: int) -> list[nn.Module]:
        return [_Block(channels, bias=self.config.bias) for _ in range(self.config.blocks)]

    def _down(self, c_in: int, c_out: int) -> nn.Sequential:
        halve = nn.Conv2d(c_in, c_out, 2, stride=2, bias=self.config.bias)
        return nn.Sequential(*self._blocks(c_in), halve)

    def _up(self, c_in: int, c_out: int) -> nn.Sequential:
        double = nn.ConvTranspose2d(c_in, c_out, 2, stride=2, bias=self.config.bias)
        return nn.Sequential(double, *self._blocks(c_out))
