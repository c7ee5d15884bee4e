"""Noise schedules: how much noise there is at each step.

Two scales are in use for the same thing. In the variance-preserving form ``x_t = a_t x_0 + s_t ε``
with ``a_t² = ᾱ_t`` and ``s_t² = 1 − ᾱ_t``; in the variance-exploding form ``x_t = x_0 + σ ε``.
They differ by the factor ``a_t``:  ``σ² = (1 − ᾱ) / ᾱ``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import SettingsError


def sigma_of(alpha_bar: Tensor) -> Tensor:
    """``σ = sqrt((1 − ᾱ) / ᾱ)``."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def alpha_bar_of(sigma: Tensor) -> Tensor:
    """``ᾱ = 1 / (1 + σ²)``."""
    return 1 / (1 + sigma**2)


def linear_alpha_bar(n: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Tensor:
    """``ᾱ_t = Π (1 − β_i)`` with ``β`` linear from ``beta_1`` to ``beta_T``, as float64.

    Reference: DDPM, arXiv 2006.11239, section 4.
    """
    return torch.cumprod(1 - torch.linspace(beta_1, beta_T, n, dtype=torch.float64), 0)


def linear_sigmas(n: int, gamma_T: float, beta_1: float = 1e-6) -> list[float]:
    """``n`` decreasing σ of a linear ramp of β that ends at ``γ_T = Π (1 − β_i)``, followed by 0.

    An inference schedule follows from γ: the training's β at fewer steps would leave ``γ_T`` far
    from 0 (0.6 at 100 steps of SR3's), and the walk would not begin with noise. ``β_T`` is found
    by bisection.

    >>> sigmas = linear_sigmas(100, 4.4e-5)
    >>> len(sigmas), round(1 / (1 + sigmas[0] ** 2), 7)
    (101, 4.4e-05)
    """
    if n < 1 or not 0 < gamma_T < (1 - beta_1) ** n:
        raise SettingsError(
            f"{n} steps of β from {beta_1} to γ = {gamma_T}",
            expected="at least one step, and 0 < γ_T < (1 − β_1)ⁿ",
        )
    low, high = beta_1, 1 - 1e-12
    for _ in range(100):
        middle = (low + high) / 2
        ends = float(linear_alpha_bar(n, beta_1, middle)[-1])
        low, high = (middle, high) if ends > gamma_T else (low, middle)
    gammas = linear_alpha_bar(n, 1 - gamma_T if n == 1 else beta_1, high)
    return [*sigma_of(gammas).flip(0).tolist(), 0.0]


def cosine_alpha_bar(n: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> Tensor:
    """``ᾱ(t) = cos²((t + 0.008) / 1.008 · π/2)``, each ``β`` at most ``beta_max``, as float64.

    Reference: arXiv 2102.09672, eq. 17, with 0.008 for ``offset``.
    """
    t = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    f = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return torch.cumprod(1 - (1 - f[1:] / f[:-1]).clamp(max=beta_max), 0)


def respaced(alpha_bar: Tensor, n_steps: int) -> list[float]:
    """``n_steps`` decreasing σ at evenly spaced times of a trained schedule, followed by 0.

    >>> len(respaced(linear_alpha_bar(), 20))
    21
    """
    if not 1 <= n_steps <= len(alpha_bar):
        raise SettingsError(
            f"{n_steps} steps", expected=f"1 to {len(alpha_bar)}, the length of the schedule"
        )
    t = torch.linspace(len(alpha_bar) - 1, 0, n_steps).round().long()
    return [*sigma_of(alpha_bar[t]).tolist(), 0.0]


def karras(
    n_steps: int, sigma_max: float, sigma_min: float = 0.02, rho: float = 7.0
) -> list[float]:
    """``σ_i = (σ_max^{1/ρ} + i/(n−1) (σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ``, followed by 0.

    A large ``rho`` puts the steps evenly in log σ. Reference: arXiv 2206.00364, eq. 5.

    >>> [round(s, 3) for s in karras(3, 10.0, 0.1)]
    [10.0, 1.451, 0.1, 0.0]
    """
    if n_steps < 1 or not 0 < sigma_min <= sigma_max < math.inf:
        raise SettingsError(
            f"{n_steps} steps from σ = {sigma_max} to {sigma_min}",
            expected="at least one step, and 0 < sigma_min <= sigma_max",
        )
    if n_steps == 1:
        return [sigma_max, 0.0]
    a, b = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [*((a + i / (n_steps - 1) * (b - a)) ** rho for i in range(n_steps)), 0.0]


def resampled(sigmas: Sequence[float], n: int) -> tuple[float, ...]:
    """Return ``n`` noise levels through the same range, dense where ``sigmas`` are.

    ``log σ`` is interpolated linearly over the number of the step.

    >>> [round(s, 3) for s in resampled((1.0, 0.1, 0.01), 5)]
    [1.0, 0.316, 0.1, 0.032, 0.01]
    """
    if n == len(sigmas):
        return tuple(sigmas)
    places = np.linspace(0, len(sigmas) - 1, n) if n > 1 else np.zeros(1)
    logs = np.interp(places, np.arange(len(sigmas)), np.log(sigmas))
    return tuple(math.exp(v) for v in logs)


def parse_schedule(text: str) -> tuple[float, ...]:
    """Read noise levels: ``karras:STEPS:FIRST:LAST[:RHO]``, ``linear:STEPS``, or numbers.

    ``linear`` ends at the γ that SR3's training ends at (T = 2000, β from 1e-6 to 1e-2);
    ``linear:STEPS:BETA:GAMMA`` names the first β and the last γ.

    >>> parse_schedule("2, 1, 0.5")
    (2.0, 1.0, 0.5)
    >>> [round(s, 2) for s in parse_schedule("karras:3:10:0.1")]
    [10.0, 1.45, 0.1]
    """
    name, *rest = text.split(":")
    try:
        if name == "karras" and len(rest) in (3, 4):
            return tuple(karras(int(rest[0]), *(float(v) for v in rest[1:]))[:-1])
        if name == "linear" and len(rest) in (1, 3):
            beta_1, gamma_T = (float(v) for v in rest[1:] or (1e-6, _trained_gamma()))
            return tuple(linear_sigmas(int(rest[0]), gamma_T, beta_1)[:-1])
        if not rest:
            return tuple(float(v) for v in name.split(","))
    except ValueError as error:
        if isinstance(error, SettingsError):
            raise
    raise SettingsError(
        f"the schedule {text!r}",
        expected="karras:STEPS:FIRST:LAST, linear:STEPS, or noise levels with commas: 2,1,0.5",
    )


def _trained_gamma() -> float:
    return float(linear_alpha_bar(2000, 1e-6, 1e-2)[-1])
