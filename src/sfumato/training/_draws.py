"""Random numbers of training: a function of (seed, step, purpose, example), of nothing else.

So a run that was interrupted goes on with the same numbers, whatever the order or the size of the
parts a batch is computed in, and on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from sfumato.diffusion.noise import threefry

_MASK = 0xFFFFFFFF


class Purpose(IntEnum):
    """What numbers are drawn for: draws of different purposes are independent."""

    CROP = 0
    SIGMA = 1
    WIDTH = 2
    NOISE = 3
    ROUNDS = 4
    CONDITION = 5
    DROP = 6
    SHARDS = 7
    KERNEL = 8


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step, for the examples ``first .. first + n`` of its batch.

    >>> whole = Draws(seed=1, step=5, first=0, n=4).uniform(Purpose.CROP, 3)
    >>> part = Draws(seed=1, step=5, first=2, n=2).uniform(Purpose.CROP, 3)
    >>> bool((whole[2:] == part).all())
    True
    """

    seed: int
    step: int
    first: int
    n: int
    device: str | torch.device = "cpu"

    def uniform(self, purpose: Purpose, count: int) -> Tensor:
        """Return ``count`` multiples of 2⁻²⁴ in [0, 1) an example: (n, count), float32."""
        a, b = self._words(purpose, -(-count // 2))
        return torch.cat([_fraction(a), _fraction(b)], dim=1)[:, :count]

    def normal(self, purpose: Purpose, count: int) -> Tensor:
        """Return ``count`` standard normal numbers an example (Box and Muller): (n, count)."""
        a, b = self._words(purpose, -(-count // 2))
        radius = (-2 * (_fraction(a) + 2.0**-25).log()).sqrt()
        angle = 2 * math.pi * _fraction(b)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]

    def _words(self, purpose: Purpose, count: int) -> tuple[Tensor, Tensor]:
        """Encrypt (example, number) under a key made of seed, step and purpose."""
        pair = (torch.tensor([v], dtype=torch.int32) for v in (self.step, int(purpose)))
        a, b = threefry((self.seed & _MASK, self.seed >> 32 & _MASK), *pair)
        example = torch.arange(
            self.first, self.first + self.n, dtype=torch.int32, device=self.device
        )
        number = torch.arange(count, dtype=torch.int32, device=self.device)
        shape = (self.n, count)
        return threefry(
            (int(a), int(b)), example[:, None].expand(shape), number[None].expand(shape)
        )


def _fraction(word: Tensor) -> Tensor:
    return (word >> 8 & 0xFFFFFF).float() * 2.0**-24
