"""Numbers that look random and are a function of a seed and a place, nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.diffusion.noise import threefry

_WORD = 0xFFFFFFFF


def uniforms(seed: int, purpose: int, n: int) -> Tensor:
    """Return ``u`` (n, 2) in [0, 1), float64: row ``k`` is a function of seed, purpose and ``k``.

    >>> bool((uniforms(1, 0, 9)[:4] == uniforms(1, 0, 4)).all())
    True
    """
    key = (seed & _WORD, seed >> 32)
    k = torch.arange(n, dtype=torch.int32)
    words = threefry(key, k, torch.full_like(k, purpose))
    return torch.stack([(w.long() & _WORD).double() / 2**32 for w in words], dim=1)


def shuffled(seed: int, purpose: int, n: int) -> list[int]:
    """Return the numbers below ``n`` in an order that is a function of seed and purpose.

    >>> sorted(shuffled(0, 1, 5))
    [0, 1, 2, 3, 4]
    """
    order: list[int] = uniforms(seed, purpose, n)[:, 0].argsort(stable=True).tolist()
    return order
