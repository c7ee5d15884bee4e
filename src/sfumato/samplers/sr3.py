"""SR3's own sampler: ancestral steps with the larger variance."""

import math
from typing import final

from typing_extensions import override

from sfumato.samplers.base import Sampler


@final
class SR3(Sampler):
    """Iterative refinement (arXiv 2104.07636, algorithm 2).

    ``y_{t−1} = (y_t − (1 − α_t)/√(1 − γ_t) f) / √α_t + √(1 − α_t) z``.  In the variance-exploding
    form, ``x = y/√γ`` and ``σ² = (1 − γ)/γ``, the mean is that of DDPM's posterior, and the
    variance of the step from σ_t to σ_s

    ``(1 − α_t)/γ_s = (σ_t² − σ_s²) (1 + σ_s²)/(1 + σ_t²)``

    in place of the posterior's ``(σ_t² − σ_s²) σ_s²/σ_t²``, which is smaller. So samples have too
    large a variance with few steps: by 14 % for data of variance 0.25 in 25 steps of a linear
    schedule, by 3 % in 100. ``DDPM`` is the same step with the posterior's variance.
    """

    posterior = True

    @override
    def eta(self, sigma: float, sigma_next: float) -> float:
        return math.sqrt(1 - (sigma_next / sigma) ** 2)

    @override
    def excess(self, sigma: float, sigma_next: float) -> float:
        return sigma / sigma_next * math.sqrt((1 + sigma_next**2) / (1 + sigma**2))
