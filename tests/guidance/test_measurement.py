"""Measurements: the way from [0, 1] to [-1, 1] and back, and cuts that agree with the whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion import Step
from sfumato.errors import SettingsError, ShapeError
from sfumato.guidance import (
    Measurement,
    Proximal,
    posterior_variance,
    to_model_units,
    to_unit_range,
)
from sfumato.operators import (
    AveragePool,
    Bicubic,
    Convolution,
    Grayscale,
    Identity,
    Mask,
    Window,
    compose,
    gaussian_kernel,
    parse,
    random_mask,
)
from sfumato.pipeline.problem import make_problem

SHAPE = (3, 16, 24)
OPERATORS = [
    AveragePool(SHAPE, 4),
    Bicubic(SHAPE, 2),
    Grayscale(SHAPE),
    Grayscale(SHAPE, (0.5, 0.1, 0.2)),
    random_mask(SHAPE, 0.5),
    Convolution(SHAPE, gaussian_kernel(1.0)),
    compose(random_mask(SHAPE, 0.6), Grayscale(SHAPE), AveragePool((1, 16, 24), 2)),
]


def uniform(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("A", OPERATORS, ids=str)
def test_units(A):
    """A (2 u − 1) from A u; noise of the measurement counts double."""
    u, n = uniform(1, *SHAPE), uniform(1, *A.out_shape, seed=1)
    torch.testing.assert_close(to_model_units(A, A(u)), A(2 * u - 1))
    torch.testing.assert_close(to_model_units(A, A(u) + n) - to_model_units(A, A(u)), 2 * n)
    torch.testing.assert_close(to_unit_range(A, to_model_units(A, n)), n)


def test_a_noise_level_is_doubled_from_0_1_to_minus_1_1():
    """Residuals of the true image have the standard deviation that the problem states."""
    u = 0.4 + 0.2 * uniform(3, 96, 96).float()
    g = torch.Generator().manual_seed(5)
    y = u + 0.05 * torch.randn(u.shape, generator=g)
    problem = make_problem(y, parse("noise:0.05"))
    m = problem.measurement
    assert m.sigma_y == pytest.approx(0.1)
    assert float((m.y - m.A(2 * u[None] - 1)).std()) == pytest.approx(m.sigma_y, rel=0.02)


@given(st.integers(0, 3), st.integers(0, 5), st.integers(1, 4), st.integers(1, 6))
@settings(deadline=None, max_examples=30)
def test_a_cut_measures_its_window_as_the_whole_does(top, left, rows, cols):
    rows, cols = min(rows, 4 - top), min(cols, 6 - left)
    window = Window(4 * top, 4 * left, 4 * rows, 4 * cols)
    x = uniform(1, *SHAPE)
    for A in OPERATORS:
        if A.locality.tileable:
            part = Measurement(A, A(x), 0.1).crop(window)
            torch.testing.assert_close(part.A(window.of(x)), part.y)
            assert part.sigma_y == 0.1


def test_what_does_not_fit_is_refused():
    A = AveragePool(SHAPE, 4)
    with pytest.raises(ShapeError, match=r"\(1, 3, 4, 6\)"):
        Measurement(A, torch.zeros(1, 3, 4, 5))
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ShapeError, match="NaN"):
            Measurement(A, torch.full((1, 3, 4, 6), bad))


def test_proximal_is_the_tikhonov_solution():
    """argmin ‖y − A x‖² / σ_y² + ‖x − x_0‖² / r², by a dense solve."""
    shape, sigma_y, step = (1, 6, 6), 0.3, Step(1, 1.0, 0.7, 0.0)
    known = (torch.arange(36).reshape(1, 6, 6) % 3 > 0).double()
    A = compose(Convolution(shape, gaussian_kernel(0.8)), Mask(shape, known))
    x_0, y = uniform(1, *shape), uniform(1, *shape, seed=1)
    M = A(torch.eye(36, dtype=torch.float64).reshape(36, *shape)).reshape(36, 36).T
    r_squared = 4 * 0.7**2
    left = M.T @ M / sigma_y**2 + torch.eye(36) / r_squared
    right = M.T @ y.flatten() / sigma_y**2 + x_0.flatten() / r_squared
    expected = torch.linalg.solve(left, right).reshape(1, *shape)
    guidance = Proximal(Measurement(A, y, sigma_y), tolerance=1e-10)
    torch.testing.assert_close(guidance.correct(x_0, step), expected, rtol=0, atol=1e-7)


def test_proximal_lets_go_of_the_data_at_the_end_unless_told_otherwise():
    A = Identity((1, 4, 4))
    m = Measurement(A, torch.ones(1, 1, 4, 4), 0.1)
    x_0, last = torch.zeros(1, 1, 4, 4), Step(1, 0.2, 0.0, 0.0)
    assert torch.equal(Proximal(m).correct(x_0, last), x_0)
    r_squared = posterior_variance(0.2)
    kept = Proximal(m, final=True).correct(x_0, last)
    torch.testing.assert_close(kept, torch.full_like(kept, r_squared / (r_squared + 0.01)))


def test_posterior_variance_is_that_of_gaussian_data():
    g = torch.Generator().manual_seed(0)
    x_0 = 0.5 * torch.randn(200_000, generator=g)
    x_t = x_0 + 0.8 * torch.randn(200_000, generator=g)
    estimate = 0.25 / (0.25 + 0.64) * x_t
    assert float((x_0 - estimate).var()) == pytest.approx(posterior_variance(0.8), rel=0.015)


def test_proximal_without_noise_is_refused():
    with pytest.raises(SettingsError, match="without measurement noise"):
        Proximal(Measurement(Identity(SHAPE), torch.zeros(1, *SHAPE)))
