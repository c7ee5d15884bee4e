"""DDIM, with DDNM's share of fresh noise."""

from typing import final

from typing_extensions import override

from sfumato.errors import SettingsError
from sfumato.samplers.base import Sampler


@final
class DDIM(Sampler):
    """``x_s = x̂_0 + σ_s (sqrt(1 − η²) ε_θ + η z)`` with one ``η`` for all steps.

    So do DDNM's code (with 0.85) and DDRM. ``η = 0`` is deterministic DDIM (arXiv 2010.02502),
    Euler's method for the probability-flow equation.

    >>> DDIM(0.85).eta(1.0, 0.6)
    0.85
    """

    def __init__(self, eta: float = 0.85) -> None:
        if not 0 <= eta <= 1:
            raise SettingsError(f"eta = {eta}", expected="a share from 0 to 1")
        self._eta = eta

    @override
    def eta(self, sigma: float, sigma_next: float) -> float:
        return self._eta
