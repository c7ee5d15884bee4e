"""DDPM: ancestral sampling."""

import math
from typing import final

from typing_extensions import override

from sfumato.samplers.base import Sampler


@final
class DDPM(Sampler):
    """Draw from the posterior ``p(x_s | x_t, x̂_0)`` (arXiv 2006.11239, eq. 7).

    In the variance-exploding form its mean is ``x̂_0 + (σ_s/σ_t)² (x_t − x̂_0)`` and its variance
    ``σ_s² (1 − σ_s²/σ_t²)``, so ``η = sqrt(1 − σ_s²/σ_t²)`` and ``ε = (x_t − x̂_0)/σ_t``.

    >>> round(DDPM().eta(1.0, 0.6), 3)
    0.8
    """

    posterior = True

    @override
    def eta(self, sigma: float, sigma_next: float) -> float:
        return math.sqrt(1 - (sigma_next / sigma) ** 2)
