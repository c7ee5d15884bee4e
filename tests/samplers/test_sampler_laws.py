"""Samplers: measured order, and noise of the right size under a denoiser that knows the image."""

import math
from itertools import pairwise

import pytest
import torch

from sfumato.diffusion import Guidance, Step, karras
from sfumato.errors import SettingsError
from sfumato.samplers import DDIM, DDPM, DPMSolverPP2M, Rounds, Sampler, sample, walk
from sfumato.testing import check_sampler, measured_order

SAMPLERS = [DDPM(), DDIM(0.0), DDIM(0.3), DDIM(0.85), DDIM(1.0), DPMSolverPP2M(), Rounds()]
C = 0.5


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{type(s).__name__}")
def test_sampler_obeys_the_laws(sampler):
    check_sampler(sampler)


@pytest.mark.parametrize(("sampler", "order"), [(DDIM(0.0), 1), (DPMSolverPP2M(), 2), (DDPM(), 1)])
def test_measured_order(sampler, order):
    assert measured_order(sampler, 64) == pytest.approx(order, abs=0.06)
    assert measured_order(sampler, 128) == pytest.approx(order, abs=0.04)


def gaussian(x_t, sigma):
    return C**2 / (C**2 + sigma**2) * x_t


def end(sampler, sigmas, x_T, denoiser=gaussian):
    *_, (_, x) = sample(
        denoiser, sampler, [Guidance()], walk(sampler, sigmas), x_T=x_T, noise=lambda draw: 0 * x_T
    )
    return x


@pytest.mark.parametrize("n_steps", [40, 80])
@pytest.mark.parametrize(("sampler", "order"), [(DDIM(0.0), 1), (DPMSolverPP2M(), 2)])
@pytest.mark.parametrize("rho", [2.0, 7.0])
def test_every_path_goes_to_the_exact_solution(sampler, order, n_steps, rho):
    """Path by path:  x(σ) = x_T sqrt((c² + σ²) / (c² + σ_T²))."""
    x_T = torch.linspace(-9, 9, 8, dtype=torch.float64).reshape(1, 1, 2, 4)

    def error(n):
        sigmas = karras(n + 1, 8.0, 0.1, rho)[:-1]
        exact = x_T * ((C**2 + 0.1**2) / (C**2 + 8.0**2)) ** 0.5
        return float((end(sampler, sigmas, x_T) - exact).abs().max())

    assert math.log2(error(n_steps) / error(2 * n_steps)) > order - 0.25
    assert error(4 * n_steps) < 0.1


def test_ddpm_draws_from_the_posterior():
    """Mean and variance of q(x_s | x_t, x_0), variance-preserving (2006.11239, eq. 7)."""
    sigma, sigma_next, x_t, x_0 = 1.3, 0.6, 2.0, -0.4
    a_t, a_s = ((1 + s * s) ** -0.5 for s in (sigma, sigma_next))
    alpha = (a_t / a_s) ** 2
    beta_t, rest_t, rest_s = 1 - alpha, 1 - a_t**2, 1 - a_s**2
    mean = (a_s * beta_t * x_0 + alpha**0.5 * rest_s * (a_t * x_t)) / rest_t / a_s
    std = (rest_s / rest_t * beta_t) ** 0.5 / a_s

    def reached(z):
        moves = [Step(1, sigma, sigma_next, DDPM().eta(sigma, sigma_next))]
        ((_, x),) = sample(
            lambda x, s: torch.full_like(x, x_0),
            DDPM(),
            [Guidance()],
            moves,
            x_T=torch.full((1, 1, 1, 1), x_t, dtype=torch.float64),
            noise=lambda draw: torch.full((1, 1, 1, 1), z, dtype=torch.float64),
        )
        return float(x)

    assert reached(0.0) == pytest.approx(mean)
    assert reached(1.0) - reached(0.0) == pytest.approx(std)


def test_dpm_solver_takes_papers_steps():
    """D = (1 + 1/(2r)) x_t − 1/(2r) x_prev,  x_s = (σ_s/σ_t) x_t − (e^{−h} − 1) D.

    With r = h_prev / h.
    """
    sigmas = [5.0, 2.0, 1.0, 0.2, 0.1]
    x = torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64)
    expected, past = float(x), None
    for i, (s, s_next) in enumerate(pairwise(sigmas)):
        now = float(gaussian(torch.tensor(expected, dtype=torch.float64), s))
        h = math.log(s / s_next)
        D = now
        if past is not None:
            r = math.log(sigmas[i - 1] / s) / h
            D = (1 + 1 / (2 * r)) * now - past / (2 * r)
        expected = s_next / s * expected - math.expm1(-h) * D
        past = now
    assert float(end(DPMSolverPP2M(), sigmas, x)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{type(s).__name__}")
def test_a_denoiser_that_knows_the_image_leads_to_it(sampler):
    x_0 = torch.linspace(-1, 1, 12).reshape(1, 3, 2, 2)
    got = end(sampler, karras(7, 10.0), x_0 + 10.0, lambda x, s: x_0)
    torch.testing.assert_close(got, x_0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_ddim_refuses_a_share_that_is_none(eta):
    with pytest.raises(SettingsError):
        DDIM(eta)


class Faulty(Sampler):
    """A sampler of one's own, with room for faults."""

    def __init__(self, *, eta=0.0, posterior=False, order=1, weight=0.0):
        self._eta, self.posterior, self.order, self.weight = eta, posterior, order, weight

    def eta(self, sigma, sigma_next):
        return self._eta

    def estimate(self, x_0, sigma, sigma_next, past):
        if not past or not sigma_next:
            return x_0
        return x_0 + self.weight * (x_0 - past[-1].x_0)


@pytest.mark.parametrize(
    ("sampler", "law"),
    [
        (Faulty(eta=1.2), "η = 1.2"),
        # One wrong letter in an extrapolation: an order-2 sampler that measures order 1.
        (Faulty(posterior=True, order=2, weight=0.2), "order"),
        (Faulty(order=2), "order"),
    ],
)
def test_the_laws_catch_a_faulty_sampler(sampler, law):
    with pytest.raises(AssertionError, match=law):
        check_sampler(sampler)


def test_the_laws_catch_noise_of_the_wrong_size():
    class Offset(Sampler):
        """Lands beside its estimate by the noise that is left: what scaling noise twice does."""

        def eta(self, sigma, sigma_next):
            return 0.5

        def estimate(self, x_0, sigma, sigma_next, past):
            return x_0 * (1 + sigma_next)

    with pytest.raises(AssertionError, match="nominal size"):
        check_sampler(Offset())


def test_the_laws_catch_a_wrong_end():
    class Late(Sampler):
        renoises = False

        def eta(self, sigma, sigma_next):
            return 0.0

        def estimate(self, x_0, sigma, sigma_next, past):
            return 0.9 * x_0

    with pytest.raises(AssertionError, match="off by"):
        check_sampler(Late())
