"""Schedules: the two scales are inverse to each other, and levels fall from end to end."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion import (
    alpha_bar_of,
    cosine_alpha_bar,
    karras,
    linear_alpha_bar,
    respaced,
    sigma_of,
)
from sfumato.errors import SettingsError

SCHEDULES = pytest.mark.parametrize("alpha_bar", [linear_alpha_bar(), cosine_alpha_bar()])


@given(st.floats(1e-4, 1e4))
@settings(deadline=None)
def test_alpha_bar_and_sigma_are_inverse(sigma):
    sigma = torch.tensor(sigma, dtype=torch.float64)
    assert float(sigma_of(alpha_bar_of(sigma))) == pytest.approx(float(sigma), rel=1e-6)


def test_the_two_forms_differ_by_a_factor():
    """a_t x_0 + s_t ε = a_t (x_0 + σ_t ε), with a² + s² = 1."""
    alpha_bar = linear_alpha_bar()
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    torch.testing.assert_close(s / a, sigma_of(alpha_bar))


@SCHEDULES
def test_trained_schedules_fall_from_1_to_0(alpha_bar):
    assert len(alpha_bar) == 1000
    assert bool((alpha_bar.diff() < 0).all())
    assert 1 - 1e-3 < float(alpha_bar[0]) < 1
    assert 0 < float(alpha_bar[-1]) < 1e-4


def test_linear_schedule_has_the_papers_betas():
    alpha_bar = linear_alpha_bar()
    betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
    assert 1 - float(alpha_bar[0]) == pytest.approx(1e-4)
    assert float(betas[-1]) == pytest.approx(0.02)
    torch.testing.assert_close(betas.diff(), betas.diff()[:1].expand(998), rtol=1e-6, atol=0)


def test_cosine_schedule_is_the_papers_curve_where_beta_is_not_cut():
    t = torch.arange(1, 901, dtype=torch.float64) / 1000
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    f_0 = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(cosine_alpha_bar()[:900], f / f_0)


@SCHEDULES
@given(n_steps=st.integers(1, 1000))
@settings(deadline=None, max_examples=40)
def test_respaced_levels_are_levels_of_the_schedule(alpha_bar, n_steps):
    sigmas = respaced(alpha_bar, n_steps)
    trained = sigma_of(alpha_bar).tolist()
    assert len(sigmas) == n_steps + 1
    assert all(a > b for a, b in pairwise(sigmas))
    assert set(sigmas[:-1]) <= set(trained)
    assert sigmas[0] == trained[-1]
    assert sigmas[-1] == 0
    if n_steps > 1:
        assert sigmas[-2] == trained[0]
        times = [trained.index(s) for s in sigmas[:-1]]
        gaps = {a - b for a, b in pairwise(times)}
        assert max(gaps) - min(gaps) <= 1


@given(st.integers(1, 200), st.floats(0.01, 1.0), st.floats(1.0, 1e3), st.floats(1.0, 1e4))
@settings(deadline=None)
def test_karras_levels(n_steps, sigma_min, ratio, rho):
    sigma_max = sigma_min * ratio * 1.01
    sigmas = karras(n_steps, sigma_max, sigma_min, rho)
    assert len(sigmas) == n_steps + 1
    assert sigmas[-1] == 0
    assert sigmas[0] == pytest.approx(sigma_max, rel=1e-8)
    assert all(a > b for a, b in pairwise(sigmas))
    if n_steps > 1:
        assert sigmas[-2] == pytest.approx(sigma_min, rel=1e-8)
        roots = [s ** (1 / rho) for s in sigmas[:-1]]
        step = (roots[-1] - roots[0]) / (n_steps - 1)
        assert all(b - a == pytest.approx(step, rel=1e-3) for a, b in pairwise(roots))


@pytest.mark.parametrize("n_steps", [0, -1, 1001])
def test_respacing_refuses(n_steps):
    with pytest.raises(SettingsError, match=f"{n_steps} steps"):
        respaced(linear_alpha_bar(), n_steps)


@pytest.mark.parametrize(
    "arguments", [(0, 10.0), (5, 0.01), (5, 10.0, 0.0), (5, math.inf), (5, math.nan)]
)
def test_karras_refuses(arguments):
    with pytest.raises(SettingsError):
        karras(*arguments)
