"""Noise as a field: a function of seed, stage, draw and absolute pixel.

It never depends on the order of computing. Threefry-2x32 with 20 rounds (Salmon et al.,
*Parallel random numbers: as easy as 1, 2, 3*, 2011) encrypts the pixel's coordinates under a key
made of seed, sample, level, draw and channel pair. The two words it gives become two normals (Box
and Muller), one for each channel of the pair. So tiles that overlap see the same noise, whatever
their batch, worker or restart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_MASK = 0xFFFFFFFF
#: Rows of a field are made in strips of about this many pixels, which stay in cache.
_STRIP_PIXELS = 1 << 16


def _signed(word: int) -> int:
    """Return a 32-bit word as the int32 with the same bits."""
    word &= _MASK
    return word - (1 << 32) if word >> 31 else word


def _rotate(x: Tensor, r: int) -> Tensor:
    """Rotate int32 words to the left."""
    # The right shift of int32 is arithmetic, so its sign bits are masked off.
    return (x << r) | ((x >> (32 - r)) & ((1 << r) - 1))


def threefry(key: tuple[int, int], x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """Encrypt two int32 tensors under two 32-bit words: Threefry-2x32-20."""
    k = (key[0] & _MASK, key[1] & _MASK, (key[0] ^ key[1] ^ _PARITY) & _MASK)
    x0, x1 = x0 + _signed(k[0]), x1 + _signed(k[1])
    for block in range(5):
        for r in _ROTATIONS[(block % 2) * 4 : (block % 2) * 4 + 4]:
            x0 = x0 + x1
            x1 = _rotate(x1, r) ^ x0
        x0 = x0 + _signed(k[(block + 1) % 3])
        x1 = x1 + _signed(k[(block + 2) % 3] + block + 1)
    return x0, x1


@lru_cache(maxsize=4096)
def _fold(key: tuple[int, int], *numbers: int) -> tuple[int, int]:
    """Derive a key: encrypt pairs of numbers under it, one after the other."""
    for i in range(0, len(numbers), 2):
        pair = [torch.tensor([_signed(n)], dtype=torch.int32) for n in (*numbers, 0)[i : i + 2]]
        a, b = threefry(key, pair[0], pair[1])
        key = (int(a) & _MASK, int(b) & _MASK)
    return key


@dataclass(frozen=True)
class NoiseField:
    """Standard normal noise for every pixel of an unbounded plane.

    ``seed`` (64 bits) is the user's; ``sample`` tells several answers apart; ``level`` the stages
    of a hierarchy.

    >>> field = NoiseField(seed=7)
    >>> whole = field(draw=0, top=0, left=0, shape=(3, 20, 30))
    >>> part = field(draw=0, top=5, left=8, shape=(3, 10, 10))
    >>> bool((whole[:, 5:15, 8:18] == part).all())
    True
    """

    seed: int
    sample: int = 0
    level: int = 0

    def __call__(
        self,
        *,
        draw: int,
        top: int,
        left: int,
        shape: tuple[int, int, int],
        device: str | torch.device = "cpu",
    ) -> Tensor:
        """Return float32 noise for the window at (top, left), in draw number ``draw``.

        ``shape`` is (channels, height, width).
        """
        channels, height, width = shape
        out = torch.empty((channels + channels % 2, height, width), device=device)
        rows = max(1, _STRIP_PIXELS // width)
        cols = torch.arange(left, left + width, dtype=torch.int32, device=device)
        for pair in range(0, channels, 2):
            key = _fold((self.seed & _MASK, self.seed >> 32), self.sample, self.level, draw, pair)
            for y in range(0, height, rows):
                n = min(rows, height - y)
                r = torch.arange(top + y, top + y + n, dtype=torch.int32, device=device)
                a, b = threefry(key, r[:, None].expand(n, width), cols.expand(n, width))
                out[pair, y : y + n], out[pair + 1, y : y + n] = _normals(a, b)
        return out[:channels]


def _normals(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Box and Muller: two words to two normals, by the upper 24 bits of each."""
    u = (((a >> 8) & 0xFFFFFF).float() + 0.5) * 2.0**-24
    angle = ((b >> 8) & 0xFFFFFF).float() * (2 * math.pi * 2.0**-24)
    radius = (-2 * u.log()).sqrt_()
    return radius * angle.cos(), radius * angle.sin()
