"""What a sampler is: a rule for the share of fresh noise, and for the estimate a step lands on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from sfumato._typing import Images


class Past(NamedTuple):
    """The corrected estimate of an earlier step, and the noise level it was made at."""

    sigma: float
    x_0: Images


class Sampler(ABC):
    """Every sampler here makes the step  ``x_s = x̂ + σ_s (sqrt(1 − η²) ε + η κ z)``.

    That is in the variance-exploding form. They differ in ``η``, in whether ``ε`` is the network's
    own or what the corrected estimate leaves of ``x_t``, in extrapolating ``x̂`` from past
    estimates, in ``κ``, which is 1 but for SR3's, and in putting back noise at all.
    """

    #: ``ε = (x_t − x̂_0) / σ_t`` with the corrected estimate (the posterior's mean) instead of the
    #: network's.
    posterior: bool = False
    #: Whether noise is put back after a correction.
    renoises: bool = True
    #: Order of accuracy of the deterministic sampler; above 1 it needs past estimates and admits
    #: no shaped noise.
    order: int = 1

    @abstractmethod
    def eta(self, sigma: float, sigma_next: float) -> float:
        """Return the share of fresh noise in the step, 0 to 1."""

    def excess(self, sigma: float, sigma_next: float) -> float:
        """Return how many times the fresh noise is larger than nominal (1: it is nominal)."""
        del sigma, sigma_next
        return 1.0

    def estimate(
        self, x_0: Images, sigma: float, sigma_next: float, past: Sequence[Past]
    ) -> Images:
        """Return the estimate that the step uses, from this one and past ones (latest last)."""
        del sigma, sigma_next, past
        return x_0
