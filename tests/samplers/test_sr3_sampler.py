"""SR3's sampler: the paper's step, and the samples' variance in closed form."""

import math
from itertools import pairwise

import pytest
import torch

from sfumato.diffusion import Guidance, linear_alpha_bar, linear_sigmas, parse_schedule
from sfumato.errors import SettingsError
from sfumato.samplers import DDPM, SR3, sample, walk

GAMMA_T = float(linear_alpha_bar(2000, 1e-6, 1e-2)[-1])
SHAPE = (1, 1, 4, 5)


def theirs(f, gammas, y, z):
    """Algorithm 2: from ``y`` at γ_T on; ``gammas`` are γ_1 to γ_T, ``z`` one for each step."""
    for t in range(len(gammas) - 1, -1, -1):
        alpha = gammas[t] / (gammas[t - 1] if t else 1.0)
        y = (y - (1 - alpha) / math.sqrt(1 - gammas[t]) * f(y, gammas[t])) / math.sqrt(alpha)
        y = y + math.sqrt(1 - alpha) * z[t] if t else y
    return y


@pytest.mark.parametrize("n", [1, 2, 25])
def test_it_is_the_papers_algorithm(n):
    g = torch.Generator().manual_seed(n)
    noise = torch.randn(n + 1, *SHAPE, generator=g, dtype=torch.float64)
    sigmas = linear_sigmas(n, GAMMA_T)
    gammas = [1 / (1 + s * s) for s in sigmas[:-1]][::-1]

    def f(y, gamma):
        return torch.tanh(y) * gamma + 0.3 * y

    def denoiser(x, sigma):
        gamma = 1 / (1 + sigma**2)
        return x - sigma * f(math.sqrt(gamma) * x, gamma)

    y_T = noise[0]
    *_, (_, ours) = sample(
        denoiser,
        SR3(),
        [Guidance()],
        walk(SR3(), sigmas),
        x_T=y_T * math.sqrt(1 + sigmas[0] ** 2),
        noise=lambda draw: noise[draw],
    )
    z = [noise[n - t] for t in range(n)]  # the first step, at t = n − 1, takes draw 1
    torch.testing.assert_close(ours, theirs(f, gammas, y_T, z), rtol=1e-6, atol=1e-6)


def variance(sampler, n, v=0.25):
    """The sampler's own recursion for Gaussian data of variance ``v``, and what it leads to."""
    sigmas = linear_sigmas(n, GAMMA_T)
    V = sigmas[0] ** 2 * v / v
    for a, b in pairwise(sigmas):
        k = v / (v + a * a)
        m = k + (b / a) ** 2 * (1 - k)
        fresh = (b * sampler.eta(a, b) * sampler.excess(a, b)) ** 2 if b else 0.0
        V = m * m * V + fresh
    return V


@pytest.mark.parametrize("n", [25, 100])
@pytest.mark.parametrize("sampler", [SR3(), DDPM()], ids=["sr3", "ddpm"])
def test_samples_have_the_mean_and_variance_of_the_recursion(sampler, n):
    g = torch.Generator().manual_seed(0)
    v, mean, shape = 0.25, 0.4, (1, 1, 200, 200)

    def exact(x, sigma):
        return mean + v / (v + sigma**2) * (x - mean)

    sigmas = linear_sigmas(n, GAMMA_T)
    x_T = sigmas[0] * torch.randn(shape, generator=g, dtype=torch.float64)
    *_, (_, x) = sample(
        exact,
        sampler,
        [Guidance()],
        walk(sampler, sigmas),
        x_T=x_T,
        noise=lambda draw: torch.randn(shape, generator=g, dtype=torch.float64),
    )
    assert float(x.mean()) == pytest.approx(mean, abs=0.02)
    assert float(x.var()) == pytest.approx(variance(sampler, n), rel=0.03)


def test_the_papers_variance_overshoots_and_more_steps_help():
    excess = [variance(SR3(), n) / 0.25 - 1 for n in (25, 100, 400, 2000)]
    assert excess[0] == pytest.approx(0.137, abs=0.002)
    assert excess[1] == pytest.approx(0.034, abs=0.002)
    assert excess == sorted(excess, reverse=True)
    assert excess[-1] < 0.002
    short = [1 - variance(DDPM(), n) / 0.25 for n in (25, 100, 400, 2000)]
    assert short == sorted(short, reverse=True)
    assert short[-1] < 0.01


def test_schedules_derive_from_gamma():
    for n in (1, 2, 10, 100, 1000):
        sigmas = linear_sigmas(n, GAMMA_T)
        assert len(sigmas) == n + 1
        assert sigmas[-1] == 0
        assert all(a > b for a, b in pairwise(sigmas))
        assert 1 / (1 + sigmas[0] ** 2) == pytest.approx(GAMMA_T, rel=1e-6)
    # β_T of 100 steps is near 0.188 (and not the training's 0.01).
    gammas = [1 / (1 + s * s) for s in linear_sigmas(100, GAMMA_T)]
    assert 1 - gammas[0] / gammas[1] == pytest.approx(0.188, abs=0.002)
    with pytest.raises(SettingsError, match="0 < γ_T"):
        linear_sigmas(10, 1.5)


@pytest.mark.parametrize("text", ["", "a,b", "karras:3", "karras:x:1:2", "linear", "cosine:5:1"])
def test_schedules_that_nobody_understands(text):
    with pytest.raises(SettingsError, match="expected"):
        parse_schedule(text)


def test_the_training_schedule_is_a_schedule():
    assert len(parse_schedule("linear:50")) == 50
    assert parse_schedule("3,1,0.2") == (3.0, 1.0, 0.2)
