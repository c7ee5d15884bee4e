"""The proximal form of DDNM+: for operators without a cheap SVD."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images, Shape
from sfumato.diffusion.guidance import Guidance, Step
from sfumato.diffusion.noise import NoiseField
from sfumato.errors import SettingsError
from sfumato.guidance.measurement import Measurement
from sfumato.guidance.tikhonov import Tikhonov

#: Standard deviation of photographs in [-1, 1], as the prior sees them.
SIGMA_DATA = 0.5


def posterior_variance(sigma: float) -> float:
    """Variance of ``x_0`` given ``x_0 + σ ε``, for Gaussian data of standard deviation 0.5."""
    return sigma**2 * SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)


@final
class Proximal(Guidance):
    """``x̂_0 = x_0 + K (y − A x_0)``  with  ``K = Aᵀ (A Aᵀ + (σ_y/r)² I)⁻¹``.

    ``K`` is applied by conjugate gradients. ``r²`` stands for the variance of ``x_0`` given
    ``x_t`` (DiffPIR, arXiv 2305.08995; Pi-GDM), bounded by ``2 σ_s²`` of the noise ``σ_s`` that
    the step lands on.

    *Noise.* With ``g`` the eigenvalues of ``K A``, the measurement brings noise of variance
    ``r² g (1 − g)`` along. The step puts ``(I − K A) z + K A z' + K n'`` on the estimate, with
    ``z`` the step's fresh noise, ``z'`` independent of it, and ``n'`` of standard deviation
    ``(σ_y/r) sqrt(2 − r²/σ_s²)``. The variances add up to ``(1−g)² + g² + 2 g (1−g) = 1``:
    nominal in every direction. ``ε_θ`` has no share in it (``η = 1``, DiffPIR's ζ = 1), because
    it remembers the noise that the same measurement brought along in earlier steps.

    ``final`` (for samplers that put no noise back) takes ``r`` from the step's own noise and keeps
    the data to the end.
    """

    needs_noise = True
    shapes_noise = True

    def __init__(
        self,
        measurement: Measurement,
        field: NoiseField,
        *,
        final: bool = False,
        tolerance: float = 1e-3,
    ) -> None:
        if measurement.sigma_y <= 0:
            raise SettingsError(
                "the proximal form without measurement noise",
                expected="sigma_y > 0",
                do="use ddnm",
            )
        self.m = measurement
        self._damped = Tikhonov(measurement.AF, tolerance=tolerance)
        # A plane of its own: the sampler takes its fresh noise from ``field`` itself.
        self.field = replace(field, level=~field.level)
        self.final = final

    def _r_squared(self, step: Step) -> float:
        r_squared = posterior_variance(step.sigma)
        return r_squared if self.final else min(r_squared, 2 * step.sigma_next**2)

    def _K(self, v: Tensor, r_squared: float) -> Tensor:
        """Apply ``K`` to a measurement."""
        return self._damped(v, self.m.sigma_y**2 / r_squared)

    @override
    def correct(self, x_0: Images, step: Step) -> Images:
        r_squared = self._r_squared(step)
        return x_0 + self._K(self.m.y - self.m.A(x_0), r_squared) if r_squared > 0 else x_0

    @override
    def mix(self, noise: Tensor, z: Tensor, step: Step) -> Tensor:
        r_squared, sigma_squared = self._r_squared(step), step.sigma_next**2
        m = self.m
        z_2 = self._draw(2 * step.draw, m.A.in_shape, m.origin)
        n = self._draw(2 * step.draw + 1, m.A.out_shape, m.y_origin)
        # Relative to σ_s, since the caller scales what is returned by it.
        std = m.sigma_y * max(0.0, (2 - r_squared / sigma_squared) / r_squared) ** 0.5
        return z + self._K(m.A(z_2 - z) + std * n, r_squared)

    def _draw(self, number: int, shape: Shape, origin: tuple[int, int]) -> Tensor:
        y = self.m.y
        z = self.field(draw=number, top=origin[0], left=origin[1], shape=shape, device=y.device)
        return z.to(y)[None]
