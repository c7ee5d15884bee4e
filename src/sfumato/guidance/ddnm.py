"""DDNM: the null-space part of the estimate, the range-space part of the measurement."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from typing_extensions import override

from sfumato._typing import Images, Measurements
from sfumato.diffusion.guidance import Guidance, Step
from sfumato.guidance.measurement import Measurement
from sfumato.operators import Operator


@final
class DDNM(Guidance):
    """``x̂_0 = x_0 − A⁺ (A x_0 − y)``  (arXiv 2212.00490, eq. 9), so that ``A x̂_0 = y``.

    For measurements without noise. Any sampler.

    ``spread`` (in pixels) first smooths the correction by a Gaussian ``G`` of that standard
    deviation, twice over: ``x_0 ← x_0 + G A⁺ (y − A x_0)``. What the measurement asks for is then
    met by a smooth change and not by one of blocks, and ``A x̂_0 = y`` all the same (iterative
    back-projection; Irani and Peleg, 1991).
    """

    def __init__(self, measurement: Measurement, spread: float = 0.0) -> None:
        self.m = measurement
        self.spread = spread

    @override
    def correct(self, x_0: Images, step: Step) -> Images:
        m = self.m
        spread = self.spread if m.movable is None else 0.0
        return project(x_0, m.y, m.A, AF=m.AF, spread=spread)


def rounds_spread(A: Operator) -> float:
    """Return the spread that rounds of denoise and project take: 0.3 of a measured pixel's side.

    None (0) where ``A`` makes nothing smaller, or its inverse is damped anyway.
    """
    return 0.3 * A.ratio if A.ratio > 1 and not A.amplifies else 0.0


def project(
    x_0: Images,
    y: Measurements,
    A: Operator,
    *,
    AF: Operator | None = None,
    spread: float = 0.0,
) -> Images:
    """Keep the null-space part of ``x_0``, take the rest from ``y``:  x̂₀ = x₀ + A⁺(y − A x₀).

    ``AF`` is ``A`` as corrections see it, where not all pixels may change. ``spread`` as in
    ``DDNM``. A batch of images with one measurement each.
    """
    AF = AF or A
    for _ in range(2 if spread else 0):
        x_0 = x_0 + _smooth(AF.pinv(y - A(x_0)), spread)
    return x_0 + AF.pinv(y - A(x_0))


def _smooth(x: Images, std: float) -> Images:
    """Blur by a Gaussian of so many pixels, edges replicated."""
    reach = math.ceil(4 * std)
    t = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    g = torch.exp(-(t**2) / (2 * std**2))
    g = (g / g.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(x, g, groups=x.shape[1]), g.mT, groups=x.shape[1])
