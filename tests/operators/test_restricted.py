"""Operators that see some of the pixels only, and corrections that change no others."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import ShapeError
from sfumato.operators import (
    AveragePool,
    Bicubic,
    BlockSensing,
    Convolution,
    Grayscale,
    Mask,
    Window,
    compose,
    gaussian_kernel,
    motion_kernel,
    part,
    restricted,
    uniform_kernel,
)
from sfumato.testing import check_operator


def normal(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


def dense(A):
    n = torch.Size(A.in_shape).numel()
    return A(torch.eye(n, dtype=torch.float64).reshape(n, *A.in_shape)).flatten(1).T


def check_restricted(A, free, tolerance=1e-6):
    B = restricted(A, free)
    check_operator(B, tolerance=tolerance)
    x, y = normal(0, 1, *A.in_shape), normal(1, 1, *A.out_shape)
    kept = torch.zeros_like(x)
    free.of(kept).copy_(free.of(x))
    torch.testing.assert_close(B(x), A(kept), rtol=0, atol=1e-12)
    for back in (B.pinv(y), B.adjoint(y)):
        free.of(back).zero_()
        assert bool((back == 0).all())
    assert (B.ratio, str(B), B.amplifies) == (A.ratio, str(A), A.amplifies)
    return B


FROZEN = st.tuples(st.integers(0, 4), st.integers(5, 9), st.integers(0, 8))


@given(st.sampled_from([2, 3, 4, 8]), FROZEN, FROZEN)
@settings(deadline=None, max_examples=30)
def test_bicubic_windows_obey_all_laws(factor, rows, cols):
    """Along an axis the window begins at a cell, has so many, and so many of them are frozen."""
    (top, h, r_0), (left, w, c_0) = ((a, n, min(f, n - 1)) for a, n, f in (rows, cols))
    A, _ = Bicubic((1, 14 * factor, 13 * factor), factor).inside(
        Window(*(factor * n for n in (top, left, h, w)))
    )
    free = Window(*(factor * n for n in (r_0, c_0, h - r_0, w - c_0)))
    assert check_restricted(A, free).damping == 0


def test_equals_the_truncated_dense_pseudo_inverse():
    A, _ = Bicubic((1, 36, 36), 3).inside(Window(0, 6, 24, 24))
    B = restricted(A, Window(9, 12, 15, 12))
    y = normal(0, 1, *A.out_shape)
    expected = torch.linalg.pinv(dense(B), rtol=B.truncation) @ y.flatten()
    torch.testing.assert_close(B.pinv(y).flatten(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_what_is_left_out_lies_behind_a_gap(factor):
    """Wherever the free pixels begin: at a cell, with or without a border of the image."""
    s = factor
    A = Bicubic((1, 40 * s, 40 * s), s)
    for window in (Window(8 * s, 8 * s, 16 * s, 16 * s), Window(0, 24 * s, 16 * s, 16 * s)):
        W, _ = A.inside(window)
        for r_0, c_0 in itertools.product(range(0, 8 * s + 1, 2 * s), range(s, 8 * s + 1, s)):
            B = restricted(W, Window(r_0, c_0, 16 * s - r_0, 16 * s - c_0))
            s_h, s_w = (torch.linalg.svdvals(axis.matrix()) for axis in B.axes)
            share = s_h[:, None] * s_w / (s_h.max() * s_w.max())
            assert not bool(((share > 0.0044) & (share < 0.02)).any())


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_corrections_are_of_the_size_of_what_was_replaced(factor):
    """``(A F)⁺ A F`` is a projection; here by its largest gain from any image in [-1, 1]."""
    s = factor
    W, _ = Bicubic((1, 40 * s, 40 * s), s).inside(Window(8 * s, 8 * s, 16 * s, 16 * s))
    for c_0 in range(s, 8 * s + 1, s):
        largest, noise = 1.0, 1.0
        for axis in restricted(W, Window(c_0, c_0, 16 * s - c_0, 16 * s - c_0)).axes:
            _, sigma, V = torch.linalg.svd(axis.matrix(), full_matrices=False)
            kept = sigma > 0.02 * sigma[0]
            V, sigma = V[kept], sigma[kept]
            largest *= float((V.mT @ V).abs().sum(1).max())
            noise *= float((V / sigma[:, None]).square().sum(0).max().sqrt())
        assert largest < 4
        # 8 bits: the rounding of y, and that of the frozen pixels as y sees it, is below 0.3/255.
        assert noise < 15 * s + 25


@pytest.mark.parametrize("boundary", ["reflect", "replicate"])
@pytest.mark.parametrize(
    "kernel", [gaussian_kernel(0.5), gaussian_kernel(1.0), uniform_kernel(3), motion_kernel(4, 90)]
)
def test_blurs_of_rank_one_obey_all_laws(kernel, boundary):
    A, _ = Convolution((2, 48, 40), kernel, boundary).inside(Window(0, 10, 30, 30))
    B = check_restricted(A, Window(9, 0, 21, 30))
    assert (B.damping, B.truncation) == (0, 0.02)


def test_other_blurs_are_damped():
    A, _ = Convolution((1, 20, 20), motion_kernel(3, 30.0)).inside(Window(0, 6, 12, 12))
    assert check_restricted(A, Window(5, 4, 7, 8)).damping >= A.damping > 0
    undamped = Convolution((1, 12, 12), motion_kernel(3, 30.0), truncation=0.0)
    assert check_restricted(undamped, Window(4, 5, 8, 7)).damping > 0


def test_cells_are_exact():
    for A, free in (
        (AveragePool((2, 24, 16), 4), Window(8, 4, 16, 12)),
        (BlockSensing((1, 24, 16), 0.5, block=8), Window(8, 0, 16, 8)),
        (Grayscale((3, 9, 9)), Window(1, 2, 8, 7)),
        (Mask((1, 9, 9), (normal(0, 1, 9, 9) > 0).double()), Window(3, 2, 6, 7)),
        (compose(Grayscale((3, 8, 8)), AveragePool((1, 8, 8), 2)), Window(2, 2, 6, 6)),
    ):
        B = check_restricted(A, free)
        assert (B.truncation, B.damping) == (0, 0)


def test_half_a_cell_is_possible():
    check_restricted(AveragePool((1, 12, 12), 4), Window(2, 4, 10, 8), tolerance=1e-5)


def test_compositions():
    grey_first = compose(Grayscale((3, 48, 48)), Bicubic((1, 48, 48), 4))
    A, _ = grey_first.inside(Window(8, 8, 40, 40))
    B = check_restricted(A, Window(12, 0, 28, 40))
    assert (B.truncation, B.damping) == (0.01, 0)
    grey_last = compose(Bicubic((3, 48, 48), 4), Grayscale((3, 12, 12)))
    A, _ = grey_last.inside(Window(8, 8, 40, 40))
    assert check_restricted(A, Window(12, 0, 28, 40), tolerance=1e-5).damping > 0


def test_all_of_the_window_is_the_operator_itself():
    A, _ = Bicubic((1, 64, 64), 4).inside(Window(0, 0, 48, 48))
    assert restricted(A, Window(0, 0, 48, 48)) is A
    for free in (Window(0, 0, 0, 48), Window(8, 0, 48, 48)):
        with pytest.raises(ShapeError, match="at least one, in 48 x 48"):
            restricted(A, free)


def test_each_kind_of_tile_is_decomposed_once():
    A = Bicubic((1, 200, 200), 2)
    part._decomposed.cache_clear()
    for top, left in itertools.product(range(0, 161, 32), repeat=2):
        W, _ = A.inside(Window(top, left, 40, 40))
        r_0, c_0 = 16 * (top > 0), 16 * (left > 0)
        y = torch.zeros(1, *W.out_shape)
        restricted(W, Window(r_0, c_0, 40 - r_0, 40 - c_0)).pinv(y)
    # Of 36 tiles the first of all, and along both axes the first, the inner ones and the last.
    assert part._decomposed.cache_info().misses == 4


def test_follows_dtype():
    A, _ = Bicubic((3, 96, 96), 4).inside(Window(16, 16, 64, 64))
    B = restricted(A, Window(24, 24, 40, 40))
    x = normal(0, 2, 3, 64, 64)
    single = B.pinv(B(x.float()))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), B.pinv(B(x)), rtol=0, atol=1e-4)
