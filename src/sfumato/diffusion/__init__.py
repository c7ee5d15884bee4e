"""Diffusion: schedules of noise, the one denoiser interface, and noise as a field."""

from sfumato.diffusion.denoiser import Denoiser, DiscreteDenoiser, Prediction, x_0_from
from sfumato.diffusion.guidance import Chain, Combined, Correction, Guidance, Step
from sfumato.diffusion.jacobian import Linearisable, Linearised, linearised
from sfumato.diffusion.noise import NoiseField
from sfumato.diffusion.schedule import (
    alpha_bar_of,
    cosine_alpha_bar,
    karras,
    linear_alpha_bar,
    linear_sigmas,
    parse_schedule,
    resampled,
    respaced,
    sigma_of,
)
from sfumato.diffusion.sr3 import Conditional, denoise, repeated, upsampled

__all__ = [
    "Chain",
    "Combined",
    "Conditional",
    "Correction",
    "Denoiser",
    "DiscreteDenoiser",
    "Guidance",
    "Linearisable",
    "Linearised",
    "NoiseField",
    "Prediction",
    "Step",
    "alpha_bar_of",
    "cosine_alpha_bar",
    "denoise",
    "karras",
    "linear_alpha_bar",
    "linear_sigmas",
    "linearised",
    "parse_schedule",
    "repeated",
    "resampled",
    "respaced",
    "sigma_of",
    "upsampled",
    "x_0_from",
]
