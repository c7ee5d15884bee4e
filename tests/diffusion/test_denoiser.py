"""One denoiser behind every parameterisation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion import (
    Chain,
    DiscreteDenoiser,
    Guidance,
    Step,
    cosine_alpha_bar,
    linear_alpha_bar,
    sigma_of,
    x_0_from,
)

MEAN, STD = 0.3, 0.5
PREDICTIONS = ["eps", "v", "x_0"]
SCHEDULES = [linear_alpha_bar(), cosine_alpha_bar()]


def posterior_mean(x_t, sigma):
    """E[x_0 | x_t = x_0 + σ ε] for x_0 ~ N(MEAN, STD²)."""
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x_t - MEAN)


def gaussian_network(prediction, alpha_bar):
    """What a perfect network would give at ``a x_0 + s ε`` and a real-valued time."""
    log_sigma = sigma_of(alpha_bar).log()

    def network(x, t):
        i = int(t[0].floor().clamp(max=len(alpha_bar) - 2))
        share = float(t[0]) - i
        sigma = float(torch.lerp(log_sigma[i], log_sigma[i + 1], share).exp())
        a = (1 + sigma**2) ** -0.5
        x_0 = posterior_mean(x / a, sigma)
        eps = (x - a * x_0) / (a * sigma)
        return {"x_0": x_0, "eps": eps, "v": a * eps - a * sigma * x_0}[prediction]

    return network


@pytest.mark.parametrize("alpha_bar", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@given(position=st.floats(0, 1))
@settings(deadline=None, max_examples=30)
def test_networks_of_one_posterior_are_one_denoiser(alpha_bar, prediction, position):
    low, high = sigma_of(alpha_bar)[[0, -2]].log().tolist()
    sigma = float(torch.tensor(low + position * (high - low), dtype=torch.float64).exp())
    D = DiscreteDenoiser(gaussian_network(prediction, alpha_bar), alpha_bar, prediction)
    x_t = MEAN + (sigma + STD) * torch.linspace(-3, 3, 2 * 3 * 4 * 4, dtype=torch.float64)
    x_t = x_t.reshape(2, 3, 4, 4)
    torch.testing.assert_close(D(x_t, sigma), posterior_mean(x_t, sigma), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alpha_bar", SCHEDULES)
def test_times_of_the_schedules_own_levels_are_its_indices(alpha_bar):
    D = DiscreteDenoiser(lambda x, t: x, alpha_bar)
    for i, sigma in enumerate(sigma_of(alpha_bar).tolist()):
        assert D.time(sigma) == pytest.approx(i, abs=1e-6)


@pytest.mark.parametrize("alpha_bar", SCHEDULES)
@given(time=st.floats(0, 999))
@settings(deadline=None)
def test_times_between_indices_go_there_and_back(alpha_bar, time):
    log_sigma = sigma_of(alpha_bar).log()
    i = min(int(time), 998)
    sigma = float(torch.lerp(log_sigma[i], log_sigma[i + 1], time - i).exp())
    assert DiscreteDenoiser(lambda x, t: x, alpha_bar).time(sigma) == pytest.approx(time, abs=1e-5)


def test_levels_beyond_the_schedule_take_its_ends():
    D = DiscreteDenoiser(lambda x, t: x, linear_alpha_bar())
    assert (D.time(0.0), D.time(1e-9), D.time(1e9)) == (0, 0, 999)


def test_the_network_sees_variance_preserving_images_and_one_time_for_each():
    seen = []

    def network(x, t):
        seen.append((x, t))
        return torch.zeros_like(x)

    x_t = torch.full((3, 1, 2, 2), 5.0)
    DiscreteDenoiser(network, linear_alpha_bar())(x_t, 2.0)
    (x, t) = seen[0]
    torch.testing.assert_close(x, x_t / 5**0.5)
    assert t.shape == (3,)
    assert t.unique().numel() == 1


@given(st.sampled_from(PREDICTIONS), st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_conversions_invert_the_definitions(prediction, sigma):
    g = torch.Generator().manual_seed(1)
    x_0, eps = torch.randn(2, 1, 3, 4, 4, generator=g, dtype=torch.float64)
    a, s = (1 + sigma**2) ** -0.5, sigma * (1 + sigma**2) ** -0.5
    output = {"eps": eps, "v": a * eps - s * x_0, "x_0": x_0}[prediction]
    got = x_0_from(prediction, output, x_0 + sigma * eps, sigma)
    torch.testing.assert_close(got, x_0, rtol=1e-8, atol=1e-8 * (1 + sigma))


class Add(Guidance):
    def __init__(self, amount, noise_factor):
        self.amount, self.noise_factor = amount, noise_factor

    def correct(self, x_0, step):
        return 2 * x_0 + self.amount

    def mix(self, noise, z, step):
        return self.noise_factor * noise + z


def test_a_chain_applies_its_links_in_their_order():
    step = Step(1, 1.0, 0.5, 0.0)
    chain = Chain([Add(1.0, 2.0), Guidance(), Add(10.0, 3.0)])
    one = torch.ones(1, 1, 1, 1)
    assert float(chain.correct(one, step)) == 2 * (2 * 1 + 1) + 10
    assert float(chain.mix(one, 100 * one, step)) == 3 * (2 * 1 + 100) + 100
    assert float(Chain([]).correct(one, step)) == 1
    assert float(Chain([]).mix(one, one, step)) == 1
    assert not chain.needs_noise
    assert not chain.shapes_noise
