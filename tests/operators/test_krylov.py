"""Operators from two functions: exact for any rank."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import DegradationError
from sfumato.linalg import NotConvergedWarning
from sfumato.operators.krylov import KrylovPinv
from sfumato.testing import check_operator

SEEDS = st.integers(0, 2**31)
SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4))


def of_matrix(M, in_shape, out_shape, **settings):
    def forward(x):
        return (x.flatten(1) @ M.to(x.dtype).T).reshape(-1, *out_shape)

    def adjoint(y):
        return (y.flatten(1) @ M.to(y.dtype)).reshape(-1, *in_shape)

    return KrylovPinv(forward, adjoint, in_shape, out_shape, **settings)


def random_matrix(m, n, rank, seed):
    g = torch.Generator().manual_seed(seed)
    U, V = (
        torch.linalg.qr(torch.randn(k, k, generator=g, dtype=torch.float64))[0] for k in (m, n)
    )
    rank = min(m, n, rank)
    s = torch.linspace(1, 0.02, rank, dtype=torch.float64)
    return U[:, :rank] * s @ V[:, :rank].T


@given(SHAPES, SHAPES, st.integers(1, 40), SEEDS)
@settings(deadline=None)
def test_obeys_all_laws_at_any_rank(in_shape, out_shape, rank, seed):
    m, n = torch.Size(out_shape).numel(), torch.Size(in_shape).numel()
    M = random_matrix(m, n, rank, seed)
    A = of_matrix(M, in_shape, out_shape)
    check_operator(A)
    y = torch.ones(1, *out_shape, dtype=torch.float64)
    expected = torch.linalg.pinv(M, rtol=1e-10) @ y.flatten()
    torch.testing.assert_close(A.pinv(y).flatten(), expected, rtol=1e-6, atol=1e-6)


@given(SHAPES, SHAPES, st.floats(0.01, 0.5), SEEDS)
@settings(deadline=None)
def test_obeys_the_laws_of_damping(in_shape, out_shape, damping, seed):
    m, n = torch.Size(out_shape).numel(), torch.Size(in_shape).numel()
    check_operator(of_matrix(random_matrix(m, n, 40, seed), in_shape, out_shape, damping=damping))


def test_zero_operator():
    check_operator(of_matrix(torch.zeros(4, 6), (1, 2, 3), (1, 2, 2)))


def test_follows_single_precision():
    A = of_matrix(random_matrix(6, 12, 6, 0), (3, 2, 2), (1, 2, 3), name="mine")
    check_operator(A, tolerance=1e-4, dtype=torch.float32)
    assert str(A) == "mine"


def test_too_few_iterations_are_told():
    A = of_matrix(random_matrix(9, 9, 9, 0), (1, 3, 3), (1, 3, 3), max_iterations=2)
    with pytest.warns(NotConvergedWarning, match="2 iterations"):
        A.pinv(torch.ones(1, 1, 3, 3))


@pytest.mark.parametrize(
    "settings", [{"damping": -1.0}, {"tolerance": 0.0}, {"max_iterations": 0}]
)
def test_misuse(settings):
    with pytest.raises(DegradationError, match="expected"):
        of_matrix(torch.eye(4), (1, 2, 2), (1, 2, 2), **settings)
