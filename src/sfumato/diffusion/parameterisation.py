"""What published networks see and answer, as four numbers for each noise level.

Whatever a network ``F`` was trained to predict, its estimate of ``x_0`` in ``x_t = x_0 + σ ε`` is

::

    D(x_t, σ) = c_skip x_t + c_out F(c_in x_t, c_noise)

(EDM, arXiv 2206.00364, eq. 7 and table 1). For a network of a variance-preserving schedule
``c_in = a = 1 / √(1 + σ²)``, ``c_noise`` is the time ``t`` at which the schedule has that σ, and

- ``eps``:  ``x_0 = x_t − σ F``
- ``v = a ε − s x_0``:  ``x_0 = a² x_t − a σ F``  (arXiv 2202.00512)
- ``x_0``:  ``x_0 = F``
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from sfumato.diffusion.denoiser import Prediction, time_of
from sfumato.diffusion.schedule import sigma_of
from sfumato.errors import SettingsError

#: ``ᾱ`` of a last time that is pure noise, below ``_NOTHING``: σ = 4096 stands for infinity.
_LEAST_ALPHA_BAR, _NOTHING = 2.0**-24, 1e-12
#: Below this σ a network of EDM is not asked: ``c_out`` lets nearly nothing through.
_SMALLEST_SIGMA = 1e-6


class Coefficients(NamedTuple):
    """The four numbers of each noise level, in the shape and dtype of σ."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


@runtime_checkable
class Parameterisation(Protocol):
    """What a network sees and answers at each noise level, and up to which one it was trained."""

    @property
    def sigma_max(self) -> float:
        """The largest noise the network knows, on data in [-1, 1]."""

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Return the coefficients at these noise levels; float64 keeps all their digits."""


@final
class VariancePreserving:
    """A network of discrete times of a schedule ``alpha_bar``, which may be asked between them.

    The time of a σ is interpolated linearly over log σ. With ``whole_times`` it is rounded: for
    networks that look times up in a table. The network's own times are the indices times
    ``time_scale``.

    >>> from sfumato.diffusion import linear_alpha_bar
    >>> form = VariancePreserving(linear_alpha_bar(), "eps")
    >>> round(form.sigma_max)
    157
    >>> [float(v) for v in form(torch.tensor([0.0], dtype=torch.float64))]
    [1.0, -0.0, 1.0, 0.0]
    """

    def __init__(
        self,
        alpha_bar: Tensor,
        prediction: Prediction = "eps",
        *,
        whole_times: bool = False,
        time_scale: float = 1.0,
    ) -> None:
        if alpha_bar.ndim != 1 or len(alpha_bar) < 2 or not (alpha_bar.diff() < 0).all():
            raise SettingsError(
                f"a schedule of ᾱ of shape {tuple(alpha_bar.shape)}",
                expected="two or more values that fall from time to time",
            )
        self.prediction: Prediction = prediction
        self.whole_times = whole_times
        self.time_scale = time_scale
        values = alpha_bar.double()
        # A cosine schedule ends at less than the stand-in for 0: it stays as it is.
        least = min(_LEAST_ALPHA_BAR, float(values[values > _NOTHING].min()))
        self._log_sigma = sigma_of(values.clamp(min=least)).log()

    @property
    def sigma_max(self) -> float:
        """The σ of the last time."""
        return float(self._log_sigma[-1].exp())

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Return the coefficients."""
        c_in = (1 + sigma**2).rsqrt()
        one = torch.ones_like(sigma)
        c_skip, c_out = {
            "eps": (one, -sigma),
            "v": (c_in**2, -sigma * c_in),
            "x_0": (0 * one, one),
        }[self.prediction]
        return Coefficients(c_skip, c_out, c_in, self._time(sigma))

    def _time(self, sigma: Tensor) -> Tensor:
        t = time_of(self._log_sigma.to(sigma.device), sigma)
        return (self.time_scale * (t.round() if self.whole_times else t)).to(sigma.dtype)


@final
class EDM:
    """A network behind EDM's preconditioning; ``negated`` where it answers ``−F``, a kind of v.

    >>> c = EDM(0.5)(torch.tensor([0.5], dtype=torch.float64))
    >>> [round(float(v), 3) for v in c]
    [0.5, 0.354, 1.414, -0.173]
    """

    def __init__(
        self, sigma_data: float = 0.5, sigma_max: float = 80.0, *, negated: bool = False
    ) -> None:
        for name, value in (("sigma_data", sigma_data), ("sigma_max", sigma_max)):
            if not 0 < value < float("inf"):
                raise SettingsError(f"{name} = {value}", expected="a positive number")
        self.sigma_data = sigma_data
        self.negated = negated
        self._sigma_max = sigma_max

    @property
    def sigma_max(self) -> float:
        """The largest noise of the training."""
        return self._sigma_max

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Return the coefficients of table 1."""
        s = self.sigma_data
        variance = sigma**2 + s**2
        c_out = sigma * s * variance.rsqrt()
        c_noise = sigma.clamp(min=_SMALLEST_SIGMA).log() / 4
        c_out = -c_out if self.negated else c_out
        return Coefficients(s**2 / variance, c_out, variance.rsqrt(), c_noise)
