"""DPM-Solver++(2M): second order from two estimates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from typing_extensions import override

from sfumato._typing import Images
from sfumato.samplers.base import Past, Sampler


@final
class DPMSolverPP2M(Sampler):
    """``x_s = (σ_s/σ_t) x_t + (1 − σ_s/σ_t) D``,  ``D = x̂_t + (x̂_t − x̂_prev) h/(2 h_prev)``.

    ``h = log(σ_t/σ_s)``. The first step, the one after a jump or a step that stays where
    it is, and the last one to ``σ = 0`` are of first order.

    Reference: arXiv 2211.01095, algorithm 2.
    """

    posterior = True
    order = 2

    @override
    def eta(self, sigma: float, sigma_next: float) -> float:
        return 0.0

    @override
    def estimate(
        self, x_0: Images, sigma: float, sigma_next: float, past: Sequence[Past]
    ) -> Images:
        if not past or sigma_next == 0 or past[-1].sigma == sigma:
            return x_0
        h, h_prev = math.log(sigma / sigma_next), math.log(past[-1].sigma / sigma)
        return x_0 + (x_0 - past[-1].x_0) * (h / (2 * h_prev))
