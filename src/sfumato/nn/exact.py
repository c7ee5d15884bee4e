"""Layers that stay in float32 where the others are computed in bfloat16."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn


def exactly(layer: nn.Module, x: Tensor) -> Tensor:
    """Return ``layer(x)`` in float32, whatever autocast asks for."""
    with torch.autocast(x.device.type, enabled=False):
        y: Tensor = layer(x.float())
    return y


@final
class Exact(nn.Module):
    """A layer that is always computed in float32.

    What a network answers is multiplied by up to σ: rounded to the 8 bits of bfloat16 it would be
    off by as much as the picture holds.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer returns."""
        return exactly(self.layer, x)
