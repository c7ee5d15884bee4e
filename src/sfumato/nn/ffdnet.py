"""FFDNet, a fast denoiser of Gaussian noise that is told how strong it is.

The picture is folded by 2, a map of the noise level is put beside it, and plain convolutions with
ReLU between them give the picture without noise, folded.

Reference: Zhang, Zuo and Zhang, *FFDNet: Toward a Fast and Flexible Solution for CNN-based Image
Denoising*, arXiv 1710.04026, section III; the names of the weights are those of the public
PyTorch checkpoints (github.com/cszn/KAIR), which load as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from sfumato.nn._checks import check_whole
from sfumato.nn.exact import exactly

_COLOURS = 3
_FOLD = 2


@final
@dataclass(frozen=True)
class FFDNetConfig:
    """The form of an FFDNet: how many features its layers have, and how many layers there are.

    Raises SettingsError where a value is no whole number or out of range.

    >>> FFDNetConfig().layers
    12
    """

    width: int = 96
    layers: int = 12

    def __post_init__(self) -> None:
        check_whole("width", self.width, 1, 4096)
        check_whole("layers", self.layers, 2, 64)

    @property
    def stride(self) -> int:
        """The number that both sides of an input must be multiples of."""
        return _FOLD


@final
class FFDNet(nn.Module):
    """The network ``F(u, s)``: a picture with noise to one without, both RGB in [0, 1].

    ``s`` of shape (batch,) is the standard deviation of the noise on that scale. Sides must be
    even. Within autocast the first and the last layer stay in float32.

    >>> net = FFDNet(FFDNetConfig(width=4, layers=3))
    >>> net(torch.zeros(1, 3, 8, 6), torch.zeros(1)).shape
    torch.Size([1, 3, 8, 6])
    """

    def __init__(self, config: FFDNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FFDNetConfig()
        folded = _COLOURS * _FOLD**2
        widths = [folded + 1, *[config.width] * (config.layers - 1), folded]
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(widths):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, u: Tensor, s: Tensor) -> Tensor:
        """Return the picture without noise, of the shape of ``u``."""
        folded = nn.functional.pixel_unshuffle(u, _FOLD)
        level = s.to(u)[:, None, None, None].expand(-1, 1, *folded.shape[2:])
        first, *between, last = self.model
        x = exactly(first, torch.cat([folded, level], dim=1))
        for layer in between:
            x = layer(x)
        return nn.functional.pixel_shuffle(exactly(last, x), _FOLD)
