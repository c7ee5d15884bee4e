"""DDNM+: the table of the three cases, direction by direction."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion import Step
from sfumato.errors import SettingsError
from sfumato.guidance import DDNM, DDNMPlus, Measurement
from sfumato.operators import (
    AveragePool,
    Bicubic,
    Convolution,
    Grayscale,
    Identity,
    compose,
    gaussian_kernel,
    motion_kernel,
    random_mask,
)
from sfumato.samplers import DDIM, DPMSolverPP2M, check_pair

SHAPE = (3, 16, 24)
OPERATORS = [
    Identity(SHAPE),
    AveragePool(SHAPE, 4),
    random_mask(SHAPE, 0.5),
    Grayscale(SHAPE),
    Bicubic(SHAPE, 4),
    Convolution(SHAPE, gaussian_kernel(1.0)),
    compose(random_mask(SHAPE, 0.6), Grayscale(SHAPE), AveragePool((1, 16, 24), 2)),
]
LEVELS = st.floats(0.01, 10.0)
SHARES = st.floats(0.0, 1.0)


def normal(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


def shares(guidance, svd, step):
    """Response of each known direction to y (over A⁺), to the sampler's noise and to z."""
    one = torch.ones_like(svd.s) * (svd.s > 0)
    zero = torch.zeros((1, *SHAPE), dtype=torch.float64)
    along = svd.v(one[None])
    lam = 1 - svd.v_t(guidance.correct(along, step) - guidance.correct(zero, step))[0]
    own = svd.v_t(guidance.mix(along, zero, step))[0]
    fresh = svd.v_t(guidance.mix(zero, along, step))[0]
    return [v[svd.s > 0] for v in (lam, own, fresh)]


@pytest.mark.parametrize("A", OPERATORS, ids=str)
@given(sigma=LEVELS, sigma_y=LEVELS, eta=SHARES)
@settings(deadline=None, max_examples=15)
def test_the_table(A, sigma, sigma_y, eta):
    guidance = DDNMPlus(Measurement(A, torch.zeros(1, *A.out_shape).double(), sigma_y))
    svd = A.svd()
    s = svd.s[svd.s > 0].double()
    lam, own, fresh = shares(guidance, svd, Step(1, 2 * sigma, sigma, eta))
    enough = sigma >= sigma_y / s
    wanted = torch.where(enough, 1.0, s * sigma * (1 - eta**2) ** 0.5 / sigma_y)
    torch.testing.assert_close(lam, wanted, rtol=1e-5, atol=1e-5)
    variance = torch.where(enough, 1 - (sigma_y / s / sigma) ** 2, eta**2)
    torch.testing.assert_close(fresh**2, variance, rtol=1e-4, atol=1e-5)
    assert bool((fresh > -1e-9).all())
    torch.testing.assert_close(own, torch.zeros_like(own), rtol=0, atol=1e-5)
    # Together with the noise of the measurement that makes 1.
    total = fresh**2 + (lam * sigma_y / s / sigma) ** 2
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-4, atol=1e-4)


def test_the_weight_is_divided_by_the_measurements_noise():
    """λ = σ_t / (c_t σ_y), and not σ_t / c_t · σ_y, which is 100 times too small at σ_y = 0.1."""
    A = Identity((3, 2, 2))
    guidance = DDNMPlus(Measurement(A, torch.ones(1, 3, 2, 2), 0.1))
    corrected = guidance.correct(torch.zeros(1, 3, 2, 2), Step(1, 0.1, 0.05, 0.0))
    torch.testing.assert_close(corrected, torch.full_like(corrected, 0.5))


@pytest.mark.parametrize("A", OPERATORS, ids=str)
def test_directions_without_a_measurement_are_left_to_the_sampler(A):
    svd = A.svd()
    kept = (svd.s > 0).double()
    x, z = normal(1, *SHAPE), normal(1, *SHAPE, seed=1)
    guidance = DDNMPlus(Measurement(A, normal(1, *A.out_shape), 0.3))
    step = Step(1, 1.0, 0.5, 0.4)
    for change in (guidance.correct(x, step) - x, guidance.mix(x, z, step) - x):
        in_range = svd.v(kept * svd.v_t(change))
        torch.testing.assert_close(in_range, change, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("A", [A for A in OPERATORS if not A.amplifies], ids=str)
def test_without_noise_it_is_ddnm(A):
    m = Measurement(A, A(normal(1, *SHAPE)), 0.0)
    x, step = normal(1, *SHAPE, seed=1), Step(1, 0.3, 0.0, 0.85)
    got, expected = (G(m).correct(x, step) for G in (DDNMPlus, DDNM))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_what_it_does_not_go_with_is_refused():
    A = Convolution(SHAPE, motion_kernel(5.0, 30.0))
    with pytest.raises(SettingsError, match="SVD"):
        DDNMPlus(Measurement(A, torch.zeros(1, *SHAPE), 0.1))
    guidance = DDNMPlus(Measurement(Identity(SHAPE), torch.zeros(1, *SHAPE), 0.1))
    check_pair(DDIM(0.85), guidance)
    with pytest.raises(SettingsError, match="first order"):
        check_pair(DPMSolverPP2M(), guidance)
