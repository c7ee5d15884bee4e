"""DiffPIR: plug-and-play restoration within the sampler."""

from __future__ import annotations

from typing import final

from typing_extensions import override

from sfumato._typing import Images
from sfumato.diffusion.guidance import Guidance, Step
from sfumato.guidance.measurement import Measurement
from sfumato.guidance.tikhonov import Tikhonov


@final
class DiffPIR(Guidance):
    """``x̂_0 = argmin ‖y − A x‖² + ρ ‖x − x_0‖²``,  ``ρ = λ σ_y²/σ_t²``  (arXiv 2305.08995).

    ``= x_0 + Aᵀ (A Aᵀ + ρ I)⁻¹ (y − A x_0)``, which is DDNM's correction where ``σ_y = 0``. The
    step goes on with ``ε = (x_t − x̂_0)/σ_t``, of which the share ``ζ = η²`` is drawn anew.
    """

    posterior = True

    def __init__(self, measurement: Measurement, *, lam: float = 7.0) -> None:
        self.m = measurement
        self.lam = lam
        self._K = Tikhonov(measurement.AF)

    @override
    def correct(self, x_0: Images, step: Step) -> Images:
        m = self.m
        rho = self.lam * (m.sigma_y / step.sigma) ** 2
        return x_0 + self._K(m.residual(x_0), rho)
