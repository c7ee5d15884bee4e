"""What published networks predict, as coefficients: an oracle network gives the picture."""

import pytest
import torch

from sfumato.diffusion import cosine_alpha_bar, linear_alpha_bar, sigma_of
from sfumato.diffusion.parameterisation import EDM, VariancePreserving
from sfumato.errors import SettingsError


def levels(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("prediction", ["eps", "v", "x_0"])
def test_a_network_that_knows_the_answer_gives_the_picture(prediction):
    form = VariancePreserving(linear_alpha_bar(), prediction)
    x_0, eps, sigma = (torch.rand(4, dtype=torch.float64) for _ in range(3))
    a = (1 + sigma**2).rsqrt()
    s = sigma * a
    answer = {"eps": eps, "v": a * eps - s * x_0, "x_0": x_0}[prediction]
    c = form(sigma)
    assert torch.allclose(c.c_in * (x_0 + sigma * eps), a * x_0 + s * eps)
    assert torch.allclose(c.c_skip * (x_0 + sigma * eps) + c.c_out * answer, x_0)


@pytest.mark.parametrize("schedule", [linear_alpha_bar, cosine_alpha_bar])
def test_times_of_the_schedule_are_found_again(schedule):
    alpha_bar = schedule()
    times = VariancePreserving(alpha_bar)(sigma_of(alpha_bar)).c_noise
    assert torch.allclose(times, torch.arange(1000.0).double(), atol=1e-6)


def test_times_rise_with_the_noise_and_end_with_the_schedule():
    form = VariancePreserving(linear_alpha_bar())
    sigma = torch.logspace(-5, 4, 500, dtype=torch.float64)
    t = form(sigma).c_noise
    assert (t.diff() >= 0).all()
    assert (float(t[0]), float(t[-1])) == (0.0, 999.0)
    whole = VariancePreserving(linear_alpha_bar(), whole_times=True)(sigma).c_noise
    assert torch.equal(whole, t.round())


def test_without_noise_the_image_is_the_answer():
    for form in (VariancePreserving(linear_alpha_bar()), EDM(0.5)):
        c = form(levels(0.0))
        assert (float(c.c_skip), abs(float(c.c_out))) == (1.0, 0.0)
        assert c.c_noise.isfinite().all()


@pytest.mark.parametrize("negated", [False, True])
def test_edm_sees_and_learns_variance_one(negated):
    """Of data of variance ``s²`` (EDM, appendix B.6)."""
    s, sigma = 0.5, levels(0.01, 0.5, 3.0, 80.0)
    c = EDM(s, negated=negated)(sigma)
    assert torch.allclose(c.c_in**2 * (s**2 + sigma**2), torch.ones_like(sigma))
    # The target (x_0 − c_skip x_t) / c_out.
    target = ((1 - c.c_skip) ** 2 * s**2 + c.c_skip**2 * sigma**2) / c.c_out**2
    assert torch.allclose(target, torch.ones_like(sigma))
    assert torch.allclose(c.c_noise, sigma.log() / 4)


def test_what_is_no_schedule_is_refused():
    with pytest.raises(SettingsError, match="fall from time to time"):
        VariancePreserving(torch.tensor([0.5, 0.6]))
    with pytest.raises(SettingsError, match="fall from time to time"):
        VariancePreserving(torch.tensor([0.5]))
    with pytest.raises(SettingsError, match="sigma_data"):
        EDM(0.0)
    with pytest.raises(SettingsError, match="sigma_max"):
        EDM(0.5, float("inf"))


def test_only_pure_noise_is_replaced():
    """A cosine schedule ends far beyond σ = 4096, a rescaled one at it."""
    cosine = cosine_alpha_bar(1000)
    last = float(sigma_of(cosine[-1]))
    assert last > 20_000
    assert VariancePreserving(cosine, "v").sigma_max == pytest.approx(last, rel=1e-9)
    pure = linear_alpha_bar(1000)
    pure[-1] = 0.0
    assert VariancePreserving(pure, "v").sigma_max == pytest.approx(4096, rel=1e-6)


def test_times_are_scaled_to_the_networks_own():
    alpha_bar = linear_alpha_bar(2000, 5e-5, 1e-2)
    sigma = sigma_of(alpha_bar[[0, 1000]])
    plain, halved = (VariancePreserving(alpha_bar, time_scale=k)(sigma) for k in (1.0, 0.5))
    torch.testing.assert_close(plain.c_noise, torch.tensor([0.0, 1000.0]).double())
    torch.testing.assert_close(halved.c_noise, plain.c_noise / 2)
