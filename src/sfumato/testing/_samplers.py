"""Laws of a sampler."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from sfumato.diffusion import Guidance, Step, karras
from sfumato.samplers import Sampler, sample, walk

#: Standard deviation of the Gaussian data that orders are measured on.
_SIGMA_DATA = 0.5


def check_sampler(
    sampler: Sampler, *, order: float | None = None, seed: int = 0, tolerance: float = 0.02
) -> None:
    """Check the share of noise, the size of noise under an oracle denoiser, and the order.

    - ``0 ≤ η ≤ 1``.
    - With a denoiser that knows ``x_0``, the standard deviation of ``(x_s − x_0) / σ_s`` is 1
      within ``tolerance`` after every step, time travel included, and the end is ``x_0``. (A
      sampler that puts no noise back, ``renoises = False``, is at ``x_0`` after every step.)
    - On Gaussian data the error in the standard deviation of ``x_s`` falls with the number of
      steps as fast as ``order`` says (``sampler.order`` if None), see ``measured_order``. Left
      out for a sampler whose share of noise does not vanish with the length of a step: it goes
      to no equation's solution.

    Raises AssertionError, naming the law that fails and by how much.

    >>> from sfumato.samplers import DDPM
    >>> check_sampler(DDPM())
    """
    name = type(sampler).__name__
    levels = karras(12, 20.0, 0.02)
    for sigma, sigma_next in pairwise(levels):
        eta = sampler.eta(sigma, sigma_next)
        assert 0 <= eta <= 1, f"{name}: η = {eta} from σ = {sigma} to {sigma_next}, not 0 to 1"
    _check_noise(sampler, seed, tolerance)
    if sampler.renoises and _share_vanishes(sampler):
        expected = sampler.order if order is None else order
        got = measured_order(sampler)
        assert got > expected - 0.2, f"{name}: order {got:.2f} was measured, not {expected}"


def measured_order(sampler: Sampler, n_steps: int = 64) -> float:
    """Measure how fast the error falls with the number of steps, as a power of their length.

    The data are Gaussian of standard deviation ``c``: the denoiser is ``D(x, σ) = c² / (c² + σ²)
    x`` and ``x_s`` has the standard deviation ``sqrt(c² + σ_s²)``; that of the probability-flow
    equation goes ``x_T sqrt((c² + σ_s²) / (c² + σ_T²))``. The error is compared at ``n_steps`` and
    twice as many. No random numbers are drawn: since all is linear, the response to each draw of
    noise is computed, and their squares are summed.

    >>> from sfumato.samplers import DPMSolverPP2M
    >>> 1.9 < measured_order(DPMSolverPP2M()) < 2.3
    True
    """
    coarse, fine = (abs(_std_error(sampler, n)) for n in (n_steps, 2 * n_steps))
    return math.log2(coarse / fine) if fine else math.inf


def _std_error(sampler: Sampler, n_steps: int) -> float:
    """Return the standard deviation at the end minus the true one, over the true one."""
    sigmas = karras(n_steps + 1, 10.0, 0.1)[:-1]
    moves = walk(sampler, sigmas)
    # Column k of this image sees draw k only, and so becomes the response to it.
    responses = torch.eye(len(moves) + 1, dtype=torch.float64)[:, None, None, None, :]
    c = _SIGMA_DATA
    *_, (_, x) = sample(
        lambda x_t, sigma: c**2 / (c**2 + sigma**2) * x_t,
        sampler,
        [Guidance()],
        moves,
        x_T=responses[0] * math.hypot(c, sigmas[0]),
        noise=lambda draw: responses[draw],
    )
    truth = math.hypot(c, sigmas[-1])
    return float(x.norm()) / truth - 1


def _share_vanishes(sampler: Sampler) -> bool:
    long, short = sampler.eta(1.0, 1 - 1e-3), sampler.eta(1.0, 1 - 1e-5)
    return short <= long / 2


def _check_noise(sampler: Sampler, seed: int, tolerance: float) -> None:
    name, shape = type(sampler).__name__, (1, 3, 128, 128)
    x_0, noise = torch.zeros(shape), _normals(shape, seed)
    x_0[..., ::2] = 1.0
    sigmas = karras(8, 10.0, 0.02)
    moves = walk(sampler, sigmas, travel_length=3, travel_repeats=2)
    x_T = x_0 + sigmas[0] * noise(0)
    for move, x in sample(
        lambda x_t, sigma: x_0, sampler, [Guidance()], moves, x_T=x_T, noise=noise
    ):
        if sampler.renoises and move.sigma_next:
            size = float((x - x_0).std()) / move.sigma_next
            assert abs(size - 1) <= tolerance, (
                f"{name}: after {move} the noise has {size:.3f} times its nominal size"
            )
        elif isinstance(move, Step):
            off = float((x - x_0).abs().max())
            assert off <= 1e-5, f"{name}: after {move} an oracle's image is off by {off:.2e}"


def _normals(shape: tuple[int, ...], seed: int) -> Callable[[int], Tensor]:
    g = torch.Generator().manual_seed(seed)
    return lambda draw: torch.randn(shape, generator=g)
