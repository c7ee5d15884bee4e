"""Noise as a field: a function of seed, stage, draw and absolute pixel.

It never depends on the order of computing. Threefry-2x32 with 13 rounds, the fewest that pass
BigCrush (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, 2011), encrypts the pixel's
coordinates under a key made of seed, sample, level, draw and channel pair. The two words it gives
become two normals (Box and Muller), one for each channel of the pair. So
tiles that overlap see the same noise, whatever their batch, worker or restart.

NumPy makes it for the CPU, in place on blocks that stay in its cache; torch for other devices.
The words are the same, the normals agree within float32's rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Key = tuple[int, int]
Words = NDArray[np.uint32]
Floats = NDArray[np.float32]

_ROUNDS = 13
_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_MASK = 0xFFFFFFFF
#: Normals of one kind in a block. On a CPU its 0.4 megabytes stay in the cache.
_CPU_BLOCK = 1 << 15
_DEVICE_BLOCK = 1 << 22
#: A block on a CPU is padded to a multiple of this, so no pixel is left to the scalar tail of a
#: vectorised log, cos or sin, whose last bit could be another.
_LANES = 64
# Arrays without dimensions, because NumPy would convert a plain number at every call.
_SHIFTS = [(np.array(r, np.uint32), np.array(32 - r, np.uint32)) for r in _ROTATIONS]


def _schedule(key: Key) -> list[Key]:
    """Return what is added to the two words before the first round and after every fourth."""
    k = (key[0] & _MASK, key[1] & _MASK, (key[0] ^ key[1] ^ _PARITY) & _MASK)
    return [(k[i % 3], (k[(i + 1) % 3] + i) & _MASK) for i in range(1 + _ROUNDS // 4)]


def threefry(key: Key, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """Encrypt two int32 tensors under two 32-bit words: Threefry-2x32-13."""
    (k0, k1), *others = np.array(_schedule(key), np.uint32).view(np.int32).tolist()
    x0, x1 = x0 + k0, x1 + k1
    for i in range(_ROUNDS):
        r = _ROTATIONS[i % 8]
        x0 = x0 + x1
        # The right shift of int32 is arithmetic, so its sign bits are masked off.
        x1 = (x1 << r | x1 >> (32 - r) & ((1 << r) - 1)) ^ x0
        if i % 4 == 3:
            k0, k1 = others[i // 4]
            x0, x1 = x0 + k0, x1 + k1
    return x0, x1


def _encrypt(keys: list[Key], rows: Words, cols: Words, scratch: Words) -> None:
    """Put Threefry of (row, column) into (0 and 1, key, pixel) of ``scratch``; 2 is for work."""
    x0, x1, spare = scratch
    schedule = np.array([_schedule(key) for key in keys], np.uint32)  # (key, step, word)
    (k0, k1), *others = schedule.transpose(1, 2, 0)[..., None]
    rows, cols = rows + k0, cols + k1
    # In the first round only the sum needs the plane: the rotated word is still the column's.
    n, m = rows.shape[1], cols.shape[1]
    a, b = (x[:, : n * m].reshape(-1, n, m) for x in (x0, x1))
    np.add(rows[:, :, None], cols[:, None], out=a)
    np.bitwise_xor((cols << _SHIFTS[0][0] | cols >> _SHIFTS[0][1])[:, None], a, out=b)
    for i in range(1, _ROUNDS):
        left, right = _SHIFTS[i % 8]
        x0 += x1
        np.left_shift(x1, left, out=spare)
        x1 >>= right
        x1 |= spare
        x1 ^= x0
        if i % 4 == 3:
            k0, k1 = others[i // 4]
            x0 += k0
            x1 += k1


@lru_cache(maxsize=4096)
def _fold(key: Key, a: int, b: int) -> Key:
    """Derive a key: encrypt two numbers under it."""
    scratch = np.empty((3, 1, 1), np.uint32)
    _encrypt([key], _words(a & _MASK, 1), _words(b & _MASK, 1), scratch)
    return int(scratch[0, 0, 0]), int(scratch[1, 0, 0])


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
        """Return float32 noise for a window of ``shape`` (channels, height, width)."""
        key = _fold((self.seed & _MASK, self.seed >> 32), self.sample, self.level)
        keys = [_fold(key, draw, pair) for pair in range(0, shape[0], 2)]
        out = torch.empty(shape, dtype=torch.float32, device=device)
        if out.numel():
            fill = _fill_on_cpu if out.device.type == "cpu" else _fill_on_device
            fill(out, keys, top, left)
        return out


def _fill_on_cpu(out: Tensor, keys: list[Key], top: int, left: int) -> None:
    """Fill a window block by block, without temporaries."""
    (channels, height, width), pairs = out.shape, len(keys)
    block = max(1, _CPU_BLOCK // pairs)
    # torch aligns memory to 64 bytes, NumPy to 16 only.
    size = 3 * pairs * (min(block, height * width) + _LANES)
    memory = torch.empty(size, dtype=torch.int32, device="cpu").numpy().view(np.uint32)
    for y, x, n, m in _blocks(height, width, block):
        length = n * m + -n * m % _LANES
        scratch = memory[: 3 * pairs * length].reshape(3, pairs, length)
        _encrypt(keys, _words(top + y, n), _words(left + x, m), scratch)
        radius, angle, wave = _polar(scratch)
        planes = out.numpy()[:, y : y + n, x : x + m]
        # Of an odd last pair only the first channel is made.
        for function, first, count in ((np.cos, 0, pairs), (np.sin, 1, channels // 2)):
            function(angle[:count], out=wave[:count])
            r, w = (v[:count, : n * m].reshape(count, n, m) for v in (radius, wave))
            np.multiply(r, w, out=planes[first::2])


def _fill_on_device(out: Tensor, keys: list[Key], top: int, left: int) -> None:
    """Fill a window by torch, on any device."""
    for y, x, n, m in _blocks(out.shape[1], out.shape[2], _DEVICE_BLOCK):
        rows = torch.arange(top + y, top + y + n, device=out.device).to(torch.int32)
        cols = torch.arange(left + x, left + x + m, device=out.device).to(torch.int32)
        for i, key in enumerate(keys):
            words = threefry(key, rows[:, None].expand(n, m), cols.expand(n, m))
            for plane, z in zip(out[2 * i : 2 * i + 2], _normals(*words), strict=False):
                plane[y : y + n, x : x + m] = z


def _blocks(height: int, width: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a window into blocks of at most ``size`` pixels: (top, left, height, width)."""
    m = min(width, size)
    n = size // m
    for y in range(0, height, n):
        for x in range(0, width, m):
            yield y, x, min(n, height - y), min(m, width - x)


def _words(first: int, n: int) -> Words:
    """Return (1, n) consecutive numbers as words; beyond 32 bits they begin again."""
    return np.arange(first, first + n).astype(np.uint32)[None]


def _polar(scratch: Words) -> tuple[Floats, Floats, Floats]:
    """Return radius and angle as in ``_normals``, in the memory given, and what is left of it."""
    a, b, _ = scratch
    angle, free, radius = scratch.view(np.float32)
    a >>= 8
    b >>= 8
    # As int32, which converts faster and has the same value.
    radius[:] = a.view(np.int32)
    angle[:] = b.view(np.int32)
    radius += 0.5
    radius *= 2.0**-24
    np.log(radius, out=radius)
    radius *= -2
    np.sqrt(radius, out=radius)
    angle *= 2 * math.pi * 2.0**-24
    return radius, angle, free


def _normals(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Box and Muller: two words to two normals, by the upper 24 bits of each."""
    u = (((a >> 8) & 0xFFFFFF).float() + 0.5) * 2.0**-24
    angle = ((b >> 8) & 0xFFFFFF).float() * (2 * math.pi * 2.0**-24)
    radius = (-2 * u.log()).sqrt_()
    return radius * angle.cos(), radius * angle.sin()
