"""Methods that follow the gradient of  log p(y | x_t)  back through the network."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images
from sfumato.diffusion.guidance import Correction, Guidance, Step
from sfumato.guidance.measurement import Measurement
from sfumato.guidance.proximal import posterior_variance
from sfumato.guidance.tikhonov import Tikhonov

#: Noise that a measurement without any is taken to have: half a step of 8 bits, on [-1, 1].
LEAST_NOISE = 1 / 255

#: Conjugate gradients have gone astray where the residual's square grew to so many times itself.
_ASTRAY = 3.0


@final
class DPS(Guidance):
    """``x_s ← x_s − ζ ∇_{x_t} ‖y − A x_0‖² / ‖y − A x_0‖``  (arXiv 2209.14687, algorithm 1).

    ``x`` is the variance-preserving image ``x / √(1 + σ²)`` there, and so is ``ζ`` meant. It
    assumes nothing of ``A`` and knows no noise level. ``ζ`` belongs to the number of steps: for
    1000 the paper takes 0.3 to 1; fewer want more.
    """

    needs_gradient = True

    def __init__(
        self, measurement: Measurement, *, zeta: float = 1.0, context: float = 0.0
    ) -> None:
        self.m = measurement
        self.zeta = zeta
        self.context = context

    @override
    def correcting(self, x_0: Images, step: Step) -> Correction:
        m = self.m
        residual = m.residual(x_0)
        length = _inner(residual, residual).sqrt().clamp(min=1e-12)
        pulled = yield -2 * m.AF.adjoint(residual) / length
        # From x_VP = a x, a = 1/√(1 + σ²), on both sides of the step.
        a_t, a_s = (1 / math.hypot(1, sigma) for sigma in (step.sigma, step.sigma_next))
        move = self.zeta / (a_t * a_s * _share_of_estimate(step))
        return x_0 - move * pulled

    @override
    def drawn(self, difference: Images, step: Step) -> Images | None:
        if not self.context:
            return None
        length = _inner(difference, difference).sqrt().clamp(min=1e-12)
        return -2 * self.context * difference / length


def _share_of_estimate(step: Step) -> float:
    """Return the coefficient of ``x̂_0`` in the mean of ``x_s``."""
    if not step.posterior:
        return 1.0
    return 1 - step.sigma_next / step.sigma * math.sqrt(1 - step.eta**2)


@final
class PiGDM(Guidance):
    """``x_s ← x_s + √(1 + σ_s²) Jᵀ Aᵀ (A Aᵀ + σ_y²/r² I)⁻¹ (y − A x_0)``  (ΠGDM, ICLR 2023).

    ``p(x_0 | x_t)`` is taken to be ``N(x_0, r² I)``, with ``r²`` the variance that Gaussian data
    of standard deviation 0.5 would have; without noise it is ``Jᵀ A⁺ (y − A x_0)``. The weight is
    the paper's ``r_t² √α_t`` (its algorithm 1) in the variance-exploding form. Without
    ``adaptive`` weights it is the plain gradient of ``log p(y | x_t)``,

        x̂_0 = x_0 + σ_t² Jᵀ Aᵀ (r² A Aᵀ + σ_y² I)⁻¹ (y − A x_0)

    which is exact for uncorrelated Gaussian data and goes too far for photographs, whose low
    frequencies vary more than ``r²``. With ``context`` the difference to an overlap and to a guide
    is pulled back as well, times that.
    """

    needs_gradient = True

    def __init__(
        self, measurement: Measurement, *, adaptive: bool = True, context: float = 0.0
    ) -> None:
        self.m = measurement
        self.adaptive = adaptive
        self.context = context
        self.posterior = not adaptive
        self._K = Tikhonov(measurement.AF)

    @override
    def correcting(self, x_0: Images, step: Step) -> Correction:
        m = self.m
        v = self._K(m.residual(x_0), m.sigma_y**2 / posterior_variance(step.sigma))
        pulled = yield self._weight(step) * v
        return x_0 + pulled

    @override
    def drawn(self, difference: Images, step: Step) -> Images | None:
        return self.context * self._weight(step) * difference if self.context else None

    def _weight(self, step: Step) -> float:
        if self.adaptive:
            return math.hypot(1, step.sigma_next) / _share_of_estimate(step)
        return step.sigma**2 / posterior_variance(step.sigma)


@final
class MMPS(Guidance):
    """``x̂_0 = x_0 + V Aᵀ (A V Aᵀ + σ_y² I)⁻¹ (y − A x_0)``,  ``V = σ_t² J``  (arXiv 2405.13712).

    ``σ_t² J`` is the covariance of ``x_0`` given ``x_t`` (Tweedie's second formula), so that for
    Gaussian data the posterior is exact. The system is solved by ``iterations`` of conjugate
    gradients, each of which goes back through the network once; one more goes back at the end.
    Without noise ``σ_y`` is taken to be 1/255.
    """

    needs_gradient = True
    posterior = True

    def __init__(self, measurement: Measurement, *, iterations: int = 2) -> None:
        self.m = measurement
        self.iterations = iterations
        self._variance = max(measurement.sigma_y, LEAST_NOISE) ** 2

    @override
    def correcting(self, x_0: Images, step: Step) -> Correction:
        A = self.m.AF
        residual = self.m.residual(x_0)
        u = best = torch.zeros_like(residual)
        r, p, rho = residual, residual, _inner(residual, residual)
        least = rho
        for _ in range(self.iterations):
            pulled = yield step.sigma**2 * A.adjoint(p)
            q = A.forward(pulled) + self._variance * p
            curvature = _inner(p, q)
            alpha = torch.where(curvature > 0, rho / curvature, 0.0)
            u, r = u + alpha * p, r - alpha * q
            rho, before = _inner(r, r), rho
            p = r + torch.where(before > 0, rho / before, 0.0) * p
            best = torch.where(rho < least, u, best)
            least = torch.minimum(rho, least)
        # A network's Jacobian need be no covariance. Where that led astray the best answer counts.
        u = torch.where(rho <= _ASTRAY * _inner(residual, residual), u, best)
        pulled = yield step.sigma**2 * A.adjoint(u)
        return x_0 + pulled


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of each item of a batch, (batch, 1, 1, 1)."""
    return (a.double() * b.double()).sum((1, 2, 3), keepdim=True).to(a)
