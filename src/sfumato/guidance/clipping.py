"""Noisy values that were clipped to [-1, 1], as files are: what they were likely to be."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def clipped(y: Tensor) -> Tensor:
    """Return 1 where ``y`` is at the upper bound of [-1, 1], -1 at the lower, and 0 elsewhere."""
    return torch.where((y.abs() - 1).abs() < 1e-4, y.sign(), 0.0)


def completion(y: Tensor, Ax: Tensor, sigma: float, *, copies: int = 1) -> Tensor:
    """Return ``y``, completed where clipped:  ``E[Ax + n | Ax + n ≥ 1] = Ax + σ φ(a)/Q(a)``.

    ``a = (1 − Ax) / σ``, with ``φ`` the normal density and ``Q`` its tail; alike at -1. ``Ax`` is
    an estimate of what was measured, without its noise (Tobin, *Estimation of relationships for
    limited dependent variables*, 1958). Of channels that are ``copies`` of one the mean was
    measured, with ``1/copies`` of the noise's variance.

    >>> completion(torch.tensor([0.3, 1.0]), torch.tensor([0.2, 1.0]), 0.1)
    tensor([0.3000, 1.0798])
    """
    if copies > 1:
        mean = y.mean(1, keepdim=True)
        return y - mean + completion(mean, Ax.mean(1, keepdim=True), sigma / math.sqrt(copies))
    Ax, side = Ax.clamp(-1, 1), clipped(y)
    a = (side * (y - Ax) / sigma).clamp(0, 8)
    hazard = math.sqrt(2 / math.pi) / torch.special.erfcx(a / math.sqrt(2))
    return torch.where(side == 0, y, Ax + side * sigma * hazard)
