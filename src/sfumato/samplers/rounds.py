"""Rounds of denoise and project: the deterministic way to a small error."""

from typing import final

from typing_extensions import override

from sfumato.samplers.base import Sampler


@final
class Rounds(Sampler):
    """``x ← x̂_0(x, σ)`` for falling ``σ``, putting no noise back: plug-and-play iterations.

    ``σ`` is the denoiser's strength. It goes towards one smooth answer near the posterior's mean,
    not to a sample. Reference: arXiv 1704.03264.
    """

    renoises = False

    @override
    def eta(self, sigma: float, sigma_next: float) -> float:
        return 0.0
