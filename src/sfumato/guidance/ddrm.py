"""DDRM: each singular direction of the measurement by its own signal-to-noise ratio."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images
from sfumato.diffusion.guidance import Guidance, Step
from sfumato.errors import SettingsError
from sfumato.guidance.measurement import Measurement
from sfumato.operators.base import reciprocal


class DDRM(Guidance):
    """DDRM (arXiv 2201.11793, section 3.2): three cases for a singular value ``s``.

    In the variance-exploding form, for a step to noise ``σ`` and measurement noise ``σ_y/s``:

    ==================  ============================  ============================  ============
    case                weight λ of the measurement   fresh noise                   share of ε_θ
    ==================  ============================  ============================  ============
    ``σ ≥ σ_y/s``       ``η_b``                       ``sqrt(σ² − η_b² σ_y²/s²)``   0
    ``σ < σ_y/s``       ``s σ sqrt(1−η²) / σ_y``      ``σ η``                       0
    ``s = 0``           0                             ``σ η``                       ``sqrt(1−η²)``
    ==================  ============================  ============================  ============

    In the second case ``η`` is no more than ``eta_y`` (1: the paper's). The noise that is drawn
    anew there takes the place of the measurement's own, which says more: a picture that
    is denoised so stays sharper.

    With an oracle estimate the noise of ``x_s`` then has standard deviation ``σ`` in every
    direction. With ``η_b = 1`` and no measurement noise the result is exact. Needs an operator
    with a cheap SVD and a sampler of first order.
    """

    needs_noise = True
    shapes_noise = True

    def __init__(
        self, measurement: Measurement, *, eta_b: float = 1.0, eta_y: float = 1.0
    ) -> None:
        svd = measurement.A.svd()
        if svd is None:
            raise SettingsError(
                f"{type(self).__name__} for {measurement.A}",
                expected="an operator with an SVD",
                do="use --method proximal, or ddnm without noise",
            )
        y = measurement.y
        s = svd.s.to(y.device)
        self._svd = svd
        self._m = measurement
        self._eta_b, self._eta_y = eta_b, eta_y
        self._known = s > 0
        self._inverse = reciprocal(s).to(y)
        self._std_y = measurement.sigma_y * self._inverse
        self._target = None if measurement.clips else self._inverse * svd.u_t(y)

    @override
    def correct(self, x_0: Images, step: Step) -> Images:
        std, sigma = self._std_y, step.sigma_next
        weight = sigma * (1 - self._eta(step) ** 2) ** 0.5 / std.clamp(min=1e-12)
        lam = torch.where(self._known, torch.where(sigma >= std, self._eta_b, weight), 0.0)
        target = self._target
        if target is None:
            target = self._inverse * self._svd.u_t(self._m.completed(x_0))
        return x_0 + self._svd.v(lam * (target - self._svd.v_t(x_0)))

    @override
    def mix(self, noise: Tensor, z: Tensor, step: Step) -> Tensor:
        share = self._std_y / step.sigma_next
        brought = (self._eta_b * share).square()
        fresh = torch.where(share <= 1, (1 - brought).clamp(min=0).sqrt(), self._eta(step))
        wanted = fresh * self._svd.v_t(z) - self._svd.v_t(noise)
        return noise + self._svd.v(torch.where(self._known, wanted, 0.0))

    def _eta(self, step: Step) -> float:
        """Return the share of fresh noise where the measurement has more noise than the step."""
        return min(step.eta, self._eta_y)
