"""The one interface of a denoiser, and the conversions of what networks were trained to predict.

A denoiser takes a noisy image in the variance-exploding form ``x_t = x_0 + σ ε`` and σ, and
returns its estimate of ``x_0``. Networks trained in the variance-preserving form see ``a x_t``
with ``a = sqrt(ᾱ) = 1 / sqrt(1 + σ²)``, and a time index.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.diffusion.schedule import sigma_of


@runtime_checkable
class Denoiser(Protocol):
    """``denoiser(x_t, sigma)`` estimates ``x_0`` from ``x_t = x_0 + sigma ε``.

    Images are in [-1, 1], the batch is of any size.
    """

    def __call__(self, x_t: Images, sigma: float) -> Images:
        """Return the estimate of ``x_0``, in shape, dtype and device of ``x_t``."""
        ...


Prediction = Literal["eps", "v", "x_0"]


def x_0_from(prediction: Prediction, output: Tensor, x_t: Tensor, sigma: float) -> Tensor:
    """Turn a network's output at ``x_t = x_0 + σ ε`` into its estimate of ``x_0``.

    - ``eps``:  ``x_0 = x_t − σ ε``
    - ``v = a ε − s x_0``:  ``x_0 = a² x_t − s v``  (arXiv 2202.00512), with ``a² = 1 / (1 + σ²)``,
      ``s² = 1 − a²``
    - ``x_0``: as it is
    """
    if prediction == "eps":
        return x_t - sigma * output
    if prediction == "v":
        a_squared = 1 / (1 + sigma**2)
        return a_squared * x_t - math.sqrt(1 - a_squared) * output
    return output


def time_of(log_sigma: Tensor, sigma: Tensor) -> Tensor:
    """Return the real-valued index at which ``log_sigma``, rising, has ``log σ``; in float64.

    Beyond its ends it is the first or the last index.

    >>> time_of(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([1.0, 9e9])).tolist()
    [0.0, 2.0]
    """
    grid = log_sigma.double()
    value = sigma.double().log().clamp(grid[0], grid[-1])
    i = torch.searchsorted(grid, value).clamp(1, len(grid) - 1)
    return i - 1 + (value - grid[i - 1]) / (grid[i] - grid[i - 1])


class DiscreteDenoiser:
    """A network trained on discrete times of a variance-preserving schedule, as a denoiser.

    ``network(a x_t, t)`` is called with ``t`` the time whose σ is nearest on a logarithmic scale,
    interpolated between indices (networks embed real numbers as well); what it returns is
    ``prediction``.

    >>> import torch
    >>> from sfumato.diffusion import linear_alpha_bar
    >>> D = DiscreteDenoiser(lambda x, t: torch.zeros_like(x), linear_alpha_bar(), "eps")
    >>> float(D(torch.ones(1, 3, 4, 4), 0.5).mean())
    1.0
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        alpha_bar: Tensor,
        prediction: Prediction = "eps",
    ) -> None:
        self.network = network
        self.prediction: Prediction = prediction
        self._log_sigma = sigma_of(alpha_bar.double()).log()

    def time(self, sigma: float) -> float:
        """Return the (real-valued) time index at which the schedule has this σ."""
        return float(time_of(self._log_sigma, torch.tensor(sigma, dtype=torch.float64)))

    def __call__(self, x_t: Images, sigma: float) -> Images:
        """Estimate ``x_0``."""
        t = torch.full((len(x_t),), self.time(sigma), dtype=x_t.dtype, device=x_t.device)
        output = self.network(x_t / (1 + sigma**2) ** 0.5, t)
        return x_0_from(self.prediction, output, x_t, sigma)
