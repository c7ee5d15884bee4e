"""The loss of SR3: what the network should say at a random noise level, and how far off it is."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato._typing import Images
from sfumato.diffusion.precondition import level_of
from sfumato.diffusion.schedule import linear_alpha_bar, sigma_of
from sfumato.diffusion.sr3 import SR3Denoiser, repeated, upsampled
from sfumato.operators import parse
from sfumato.training._draws import Draws, Purpose
from sfumato.training.loss import draw_noise
from sfumato.training.sr3_settings import SR3Settings


def draw_gamma(n_times: int, betas: tuple[float, float], draws: Draws) -> Tensor:
    """Draw ``γ ~ Σ_t 1/T U(γ_t, γ_{t−1})``, (n,): a time, then a place within its interval.

    ``γ_t = Π (1 − β_i)`` with β linear, ``γ_0 = 1``. Reference: SR3, section 2.4.
    """
    gammas = _gammas(n_times, betas).to(draws.device)
    time, place = draws.uniform(Purpose.SIGMA, 2).double().unbind(1)
    t = (time * n_times).long()
    return torch.lerp(gammas[t], gammas[t + 1], place)


@lru_cache(maxsize=8)
def _gammas(n_times: int, betas: tuple[float, float]) -> Tensor:
    return F.pad(linear_alpha_bar(n_times, *betas), (1, 0), value=1.0)


def draw_sigma(settings: SR3Settings, draws: Draws) -> Tensor:
    """Return a noise level for each example, (n,)."""
    if settings.noise == "gamma":
        gamma = draw_gamma(settings.n_times, settings.betas_range, draws)
        return sigma_of(gamma.clamp(max=1 - 1e-9)).float()
    z = draws.normal(Purpose.SIGMA, 1)[:, 0]
    return (settings.log_sigma_mean + settings.log_sigma_std * z).exp()


def make_condition(settings: SR3Settings, x_0: Images, draws: Draws | None = None) -> Images:
    """Return ``c``: the photographs made small, rounded to 8 bits, and interpolated back.

    With ``draws`` a share of the small ones is blurred before, each by its own Gaussian, and in
    place of another share there are means of pixels, as blocks.
    """
    y = _small(x_0, settings.degradation)
    if draws is not None and settings.blur_share:
        y = _blurred(y, settings, draws)
    c = upsampled(y, settings.scale)
    if draws is not None and settings.pooled_share:
        pooled = draws.uniform(Purpose.KERNEL, 1)[:, 0] < settings.pooled_share
        c = torch.where(pooled[:, None, None, None], blocks(x_0, settings.scale), c)
    return c


def blocks(x_0: Images, scale: int) -> Images:
    """Return what an image of means of ``scale`` x ``scale`` pixels is shown as: ``A⁺ A x_0``.

    The means are rounded to 8 bits.
    """
    return repeated(_small(x_0, f"average_pool:{scale}"), scale)


def _small(x_0: Images, degradation: str) -> Images:
    y = parse(degradation).operator((3, *x_0.shape[-2:]))(x_0)
    return ((y.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def _blurred(y: Images, settings: SR3Settings, draws: Draws) -> Images:
    chosen, place = draws.uniform(Purpose.CONDITION, 2).unbind(1)
    low, high = settings.blur_sigma
    std = low + (high - low) * place
    reach = math.ceil(3 * high)
    t = torch.arange(-reach, reach + 1, device=y.device)
    g = torch.exp(-(t**2) / (2 * std[:, None] ** 2))
    g = (g / g.sum(1, keepdim=True)).repeat_interleave(y.shape[1], 0)[:, None, None]
    flat = F.pad(y.flatten(0, 1)[None], (reach,) * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, g, groups=len(g)), g.mT, groups=len(g))
    blurred = flat[0].unflatten(0, y.shape[:2])
    return torch.where(chosen[:, None, None, None] < settings.blur_share, blurred, y)


def sr3_loss(D: SR3Denoiser, settings: SR3Settings, x_0: Images, draws: Draws) -> Tensor:
    """Return the mean over the examples of  ``w |F(c_in (x_t − o), c, level) − target|^p``.

    ``p`` is 1 or 2, and ``w = 1`` but for min-SNR. Examples of the regression see zeros for the
    image, are asked for what ``c`` lacks, and have ``p = 2``.
    """
    c = make_condition(settings, x_0, draws)
    sigma = draw_sigma(settings, draws)
    eps = draw_noise(draws, x_0)
    if settings.dream:
        eps = _rectified(D, x_0, c, sigma, eps, settings.dream)
    x_t = x_0 + sigma[:, None, None, None] * eps
    k = D.coefficients(sigma, x_0)
    o = c if k.relative else torch.zeros_like(c)
    image, target = k.into * (x_t - o), D.target(x_0, x_t, sigma, c)
    level, weight = level_of(sigma), _weight(settings, sigma, k.out.flatten())
    alone = draws.uniform(Purpose.DROP, 1)[:, 0] < settings.regression_share
    if settings.regression_share:
        mask = alone[:, None, None, None]
        image, level, target = D.without_image(image, level, target, x_0 - c, mask)
        weight = torch.where(alone, 1.0, weight)
    error = D.answer(image, c, level) - target
    power = torch.where(alone | (settings.loss == "l2"), error.new_tensor(2.0), 1.0)
    each = error.abs().pow(power[:, None, None, None]).mean((1, 2, 3))
    return (weight * each).mean()


def _weight(settings: SR3Settings, sigma: Tensor, c_out: Tensor) -> Tensor:
    """``min(SNR, k) |c_out / s|^p``: the weight of ``x_0``'s error, in units of the network's.

    ``SNR = s²/σ²``, with ``s`` the deviation of what is looked for: 1, or what ``c`` lacks.
    """
    if settings.min_snr is None:
        return torch.ones_like(sigma)
    s = settings.sigma_data if settings.prediction == "edm" else 1.0
    power = 2 if settings.loss == "l2" else 1
    snr = (sigma / s).square().reciprocal()
    return torch.clamp(snr, max=settings.min_snr) * (c_out.abs() / s).pow(power)


def _rectified(
    D: SR3Denoiser, x_0: Images, c: Images, sigma: Tensor, eps: Images, power: float
) -> Images:
    """Return DREAM's noise  ``ε + λ (ε − ε̂)``,  ``λ = (1 − γ)^{p/2}``  with ``ε̂`` the model's own.

    The model then learns to mend what it does wrong itself. Reference: arXiv 2312.00210.
    """
    s = sigma[:, None, None, None]
    with torch.no_grad():
        x_t = x_0 + s * eps
        own: Tensor = (x_t - D(x_t, sigma, c)) / s
    share = (s / (s.square() + 1).sqrt()).pow(power)
    return eps + share * (eps - own)
