"""Solvers against dense ones, the cosine transform against scipy's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn, idctn

from sfumato.linalg import (
    NotConvergedWarning,
    conjugate_gradient,
    dct,
    idct,
    least_squares,
    power_iteration,
    widened,
)

SIDES = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 12, 13, 16, 31])
SEEDS = st.integers(0, 2**31)


def normal(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


@given(SIDES, SIDES, SEEDS)
@settings(deadline=None)
def test_dct_equals_scipy_and_is_orthonormal(height, width, seed):
    x = normal(seed, 2, 3, height, width)
    X = dct(x)
    expected = torch.from_numpy(dctn(x.numpy(), axes=(-2, -1), norm="ortho"))
    torch.testing.assert_close(X, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(X.norm(), x.norm(), rtol=1e-13, atol=0)
    torch.testing.assert_close(idct(X), x, rtol=0, atol=1e-13)
    expected = torch.from_numpy(idctn(x.numpy(), axes=(-2, -1), norm="ortho"))
    torch.testing.assert_close(idct(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_dct_follows_the_dtype(dtype, tolerance):
    x = normal(0, 1, 30, 21)
    X = dct(x.to(dtype))
    assert X.dtype == idct(X).dtype == dtype
    torch.testing.assert_close(X.double(), dct(x), rtol=0, atol=tolerance)


def test_dct_has_a_gradient():
    x = normal(0, 1, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(dct, x)


@given(st.integers(1, 12), SEEDS, st.booleans())
@settings(deadline=None)
def test_conjugate_gradient_equals_a_dense_solve(n, seed, preconditioned):
    B = normal(seed, n, n)
    M = B @ B.T + 0.1 * torch.eye(n, dtype=torch.float64)
    b = normal(seed + 1, 4, n)
    d = M.diagonal()
    x = conjugate_gradient(
        lambda v: v @ M,
        b,
        tolerance=1e-12,
        precondition=(lambda r: r / d) if preconditioned else None,
    )
    torch.testing.assert_close(x, torch.linalg.solve(M, b.T).T, rtol=1e-8, atol=1e-8)


def test_conjugate_gradient_stops_when_all_have_converged():
    calls = []

    def matvec(x):
        calls.append(1)
        return 3 * x

    b = normal(0, 5, 7)
    torch.testing.assert_close(conjugate_gradient(matvec, b), b / 3)
    assert len(calls) == 1
    assert not conjugate_gradient(matvec, torch.zeros(2, 7)).any()
    assert len(calls) == 1


def test_an_item_does_not_depend_on_its_batch():
    B = normal(0, 20, 20)
    M = B @ B.T + torch.eye(20, dtype=torch.float64)
    b = normal(1, 3, 20) * torch.tensor([[1.0], [1e8], [1e-8]], dtype=torch.float64)
    b[1] = torch.linalg.eigh(M).eigenvectors[:, 0]
    together = conjugate_gradient(lambda v: (M @ v[..., None])[..., 0], b)
    alone = torch.cat(
        [conjugate_gradient(lambda v: (M @ v[..., None])[..., 0], v[None]) for v in b]
    )
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=0)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), SEEDS)
@settings(deadline=None)
def test_least_squares_is_the_pseudo_inverse_for_any_rank(m, n, rank, seed):
    U, V = (torch.linalg.qr(normal(seed + i, k, k))[0] for i, k in enumerate((m, n)))
    rank = min(m, n, rank)
    s = torch.linspace(1, 0.05, rank, dtype=torch.float64)
    A = U[:, :rank] * s @ V[:, :rank].T
    y = normal(seed + 2, 3, m)
    x = least_squares(lambda v: v @ A.T, lambda v: v @ A, y, tolerance=1e-12)
    expected = y @ torch.linalg.pinv(A, rtol=1e-10).T
    torch.testing.assert_close(x, expected, rtol=1e-7, atol=1e-7)


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.01, 1), SEEDS, st.booleans())
@settings(deadline=None)
def test_damped_least_squares_solves_its_normal_equations(m, n, damping, seed, preconditioned):
    A, y = normal(seed, m, n), normal(seed + 1, 2, m)
    M = A.T @ A + damping**2 * torch.eye(n, dtype=torch.float64)
    x = least_squares(
        lambda v: v @ A.T,
        lambda v: v @ A,
        y,
        damping=damping,
        tolerance=1e-12,
        precondition=(lambda r: r / M.diagonal()) if preconditioned else None,
    )
    torch.testing.assert_close(x, torch.linalg.solve(M, A.T @ y.T).T, rtol=1e-6, atol=1e-6)


def test_running_out_of_iterations_is_told():
    d = torch.logspace(0, -4, 50, dtype=torch.float64)
    with pytest.warns(NotConvergedWarning, match=r"3 iterations .* expected 1.0e-10"):
        conjugate_gradient(lambda v: d * v, normal(0, 1, 50), max_iterations=3)
    with pytest.warns(NotConvergedWarning, match="3 iterations"):
        least_squares(lambda v: d * v, lambda v: d * v, normal(0, 1, 50), max_iterations=3)


def test_power_iteration_finds_the_largest_eigenvalue_of_each_item():
    d = torch.tensor([[1.0, 0.5, 0.1], [7.0, 0.1, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(
        power_iteration(lambda v: d * v, normal(0, 2, 3)), d[:, 0], rtol=1e-10, atol=0
    )
    assert not power_iteration(torch.zeros_like, normal(0, 2, 3)).any()


def test_iterations_are_in_double_precision():
    assert widened(torch.zeros(1)).dtype == torch.float64
