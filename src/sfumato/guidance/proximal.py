"""The proximal form of DDNM+: for operators without a cheap SVD."""

from __future__ import annotations

from typing import final

from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images
from sfumato.diffusion.guidance import Guidance, Step
from sfumato.errors import SettingsError
from sfumato.guidance.measurement import Measurement
from sfumato.guidance.tikhonov import Tikhonov

#: Standard deviation of photographs in [-1, 1], as the prior sees them.
SIGMA_DATA = 0.5
#: Least share of fresh noise where ``A⁺`` is damped: noise is nominal within 2 % there.
LEAST_ETA = 0.6


def posterior_variance(sigma: float) -> float:
    """Variance of ``x_0`` given ``x_0 + σ ε``, for Gaussian data of standard deviation 0.5."""
    return sigma**2 * SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)


@final
class Proximal(Guidance):
    """``x̂_0 = x_0 + K (y − A x_0)``  with  ``K = Aᵀ (A Aᵀ + (σ_y/r)² I)⁻¹``.

    ``K`` is applied by conjugate gradients. ``r = 2 σ_s``, twice the noise that the step lands on.

    *Noise.* With ``g`` the eigenvalues of ``K A``, the measurement brings noise of variance
    ``r² g (1 − g)`` along, which is ``σ_s²`` at most. The step puts ``(I − 2 K A) z`` on the
    estimate, with ``z`` its fresh noise: ``4 g (1 − g) + (1 − 2 g)² = 1``, nominal in every
    direction. More of the measured noise cannot be kept, and what is kept leaves samples sharp.
    ``ε_θ`` has no share in it where something is measured, because it remembers the noise that the
    same measurement brought along in earlier steps. Elsewhere the sampler's own mixture is taken:
    with  ``Q = I − A⁺ A``  the ``z`` above is  ``z + Q² (sqrt(1 − η²) ε_θ − (1 − η) z)``, which is
    nominal where ``Q`` is a projection. Where ``A⁺`` is damped, the directions between have less
    of it, and remember some: ``η`` is 0.6 or more there, whatever the sampler says. The form of
    ``K`` is that of DiffPIR (arXiv 2305.08995) and Pi-GDM.

    ``final`` (for samplers that put no noise back) takes for ``r`` the deviation of ``x_0`` given
    the step's own noise, and keeps the data to the end.
    """

    needs_noise = True
    shapes_noise = True

    def __init__(
        self, measurement: Measurement, *, final: bool = False, tolerance: float = 1e-3
    ) -> None:
        if measurement.sigma_y <= 0:
            raise SettingsError(
                "the proximal form without measurement noise",
                expected="sigma_y > 0",
                do="use ddnm",
            )
        self.m = measurement
        self._damped = Tikhonov(measurement.AF, tolerance=tolerance)
        self.final = final

    def _K(self, v: Tensor, step: Step) -> Tensor:
        """Apply ``K`` to a measurement."""
        r_squared = posterior_variance(step.sigma) if self.final else 4 * step.sigma_next**2
        return self._damped(v, self.m.sigma_y**2 / r_squared)

    @override
    def correct(self, x_0: Images, step: Step) -> Images:
        if not self.final and step.sigma_next == 0:
            return x_0
        return x_0 + self._K(self.m.residual(x_0), step)

    @override
    def mix(self, noise: Tensor, z: Tensor, step: Step) -> Tensor:
        if step.eta < 1:
            eta = max(step.eta, LEAST_ETA) if self.m.AF.damping else step.eta
            kept = ((1 - eta**2) / (1 - step.eta**2)) ** 0.5 * (noise - step.eta * step.excess * z)
            z = z + self._Q(self._Q(kept - (1 - eta) * z))
        return z - 2 * self._K(self.m.AF(z), step)

    def _Q(self, x: Tensor) -> Tensor:
        """Return the part of ``x`` of which nothing is measured."""
        AF = self.m.AF
        return x - self._damped(AF(x), AF.damping**2)
