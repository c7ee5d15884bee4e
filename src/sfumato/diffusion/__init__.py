"""Diffusion: schedules of noise, the one denoiser interface, and noise as a field."""

from sfumato.diffusion.denoiser import Denoiser, DiscreteDenoiser, Prediction, x_0_from
from sfumato.diffusion.guidance import Chain, Guidance, Step
from sfumato.diffusion.noise import NoiseField
from sfumato.diffusion.schedule import (
    alpha_bar_of,
    cosine_alpha_bar,
    karras,
    linear_alpha_bar,
    respaced,
    sigma_of,
)

__all__ = [
    "Chain",
    "Denoiser",
    "DiscreteDenoiser",
    "Guidance",
    "NoiseField",
    "Prediction",
    "Step",
    "alpha_bar_of",
    "cosine_alpha_bar",
    "karras",
    "linear_alpha_bar",
    "respaced",
    "sigma_of",
    "x_0_from",
]
