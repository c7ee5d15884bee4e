"""DDNM+: measurements with noise, each singular direction by its own signal-to-noise ratio."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images
from sfumato.diffusion.guidance import Guidance, Step
from sfumato.errors import SettingsError
from sfumato.guidance.measurement import Measurement
from sfumato.operators.base import reciprocal


@final
class DDNMPlus(Guidance):
    """DDNM+ by singular values (arXiv 2212.00490, appendix; DDRM's three cases).

    In the variance-exploding form, for a step to noise ``σ`` and the singular value ``s`` with
    measurement noise ``σ_y/s``:

    ==================  ============================  =======================  ============
    case                weight λ of the measurement   fresh noise              share of ε_θ
    ==================  ============================  =======================  ============
    ``σ ≥ σ_y/s``       1                             ``sqrt(σ² − σ_y²/s²)``   0
    ``σ < σ_y/s``       ``s σ sqrt(1−η²) / σ_y``      ``σ η``                  0
    ``s = 0``           0                             ``σ η``                  ``sqrt(1−η²)``
    ==================  ============================  =======================  ============

    With an oracle estimate the noise of ``x_s`` then has standard deviation ``σ`` in every
    direction. Needs an operator with a cheap SVD and a sampler of first order.
    """

    needs_noise = True
    shapes_noise = True

    def __init__(self, measurement: Measurement) -> None:
        svd = measurement.A.svd()
        if svd is None:
            raise SettingsError(
                f"DDNM+ by singular values for {measurement.A}", expected="an operator with an SVD"
            )
        y = measurement.y
        s = svd.s.to(y.device)
        self._svd = svd
        self._known = s > 0
        self._std_y = (measurement.sigma_y * reciprocal(s)).to(y)
        self._target = reciprocal(s).to(y) * svd.u_t(y)

    @override
    def correct(self, x_0: Images, step: Step) -> Images:
        std, sigma = self._std_y, step.sigma_next
        weight = sigma * (1 - step.eta**2) ** 0.5 / std.clamp(min=1e-12)
        lam = torch.where(self._known, torch.where(sigma >= std, 1.0, weight), 0.0)
        return x_0 + self._svd.v(lam * (self._target - self._svd.v_t(x_0)))

    @override
    def mix(self, noise: Tensor, z: Tensor, step: Step) -> Tensor:
        share = self._std_y / step.sigma_next
        fresh = torch.where(share <= 1, (1 - share**2).clamp(min=0).sqrt(), step.eta)
        wanted = fresh * self._svd.v_t(z) - self._svd.v_t(noise)
        return noise + self._svd.v(torch.where(self._known, wanted, 0.0))
