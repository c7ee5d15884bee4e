"""DDNM+: measurements with noise, each singular direction by its own signal-to-noise ratio."""

from __future__ import annotations

from typing import final

from sfumato.guidance.ddrm import DDRM
from sfumato.guidance.measurement import Measurement


@final
class DDNMPlus(DDRM):
    """DDNM+ by singular values (arXiv 2212.00490, appendix): DDRM with ``η_b = 1``.

    The measurement has the weight ``λ = 1`` as soon as its noise is less than that of the step.
    """

    def __init__(self, measurement: Measurement, *, eta_y: float = 1.0) -> None:
        super().__init__(measurement, eta_y=eta_y)
