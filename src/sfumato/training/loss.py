"""The loss of a prior, and the noise levels it is taken at (EDM: Karras et al. 2022, section 5).

::

    E[ λ(σ) ‖D(x_0 + σ ε, σ) − x_0‖² ]     λ(σ) = (σ² + s²) / (σ s)²

The weight λ makes the network's own target have variance 1 at every noise level.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.training._draws import Draws, Purpose
from sfumato.training.settings import PriorSettings


def edm_loss(
    denoiser: Callable[[Images, Tensor], Images],
    x_0: Images,
    sigma: Tensor,
    eps: Images,
    sigma_data: float,
) -> Tensor:
    """Return the mean of ``λ(σ) (D(x_0 + σ ε, σ) − x_0)²`` over everything.

    ``x_0`` and ``eps`` are (batch, 3, height, width), ``sigma`` is (batch,), and ``sigma_data``
    the standard deviation ``s`` of the data that ``D`` was made for.
    """
    s = sigma_data
    sigma_ = sigma[:, None, None, None]
    weight = (sigma_**2 + s**2) / (sigma_ * s) ** 2
    return (weight * (denoiser(x_0 + sigma_ * eps, sigma) - x_0).square()).mean()


def draw_sigma(settings: PriorSettings, draws: Draws) -> Tensor:
    """Return a noise level for each example: log-normal, in a share of them log-uniform. (n,)."""
    z = draws.normal(Purpose.SIGMA, 1)[:, 0]
    narrow = settings.log_sigma_mean + settings.log_sigma_std * z
    chosen, place = draws.uniform(Purpose.WIDTH, 2).unbind(1)
    low, high = (math.log(sigma) for sigma in settings.wide_sigma)
    wide = low + (high - low) * place
    return torch.where(chosen < settings.wide_share, wide, narrow).exp()


def draw_noise(draws: Draws, like: Images) -> Images:
    """Return standard normal noise of the shape of ``like``, one example of ``draws`` each."""
    return draws.normal(Purpose.NOISE, like[0].numel()).view(like.shape)
