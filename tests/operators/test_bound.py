"""Operators that are bound to finished pixels: their corrections meet the measurement."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.operators import AveragePool, Bicubic, Bound, Window


@pytest.mark.parametrize("s", [2, 3, 4])
@given(st.integers(2, 6), st.integers(2, 6), st.integers(3, 5), st.integers(0, 99))
@settings(max_examples=8)
def test_two_rectangles_meet_what_the_finished_pixels_allow(s, top, left, margin, seed):
    A, _ = Bicubic((3, 40 * s, 40 * s), s).inside(Window(8 * s, 8 * s, 16 * s, 16 * s))
    n, r, c, e = 16 * s, top * s, left * s, (16 - margin) * s
    free = [Window(e, 0, n - e, n), Window(r, c, n - r, n - c)]
    B = Bound(A, free)
    g = torch.Generator().manual_seed(seed)
    truth, x = (torch.rand((1, *A.in_shape), generator=g, dtype=torch.float64) for _ in range(2))
    frozen = B.mask == 0
    x = torch.where(frozen, truth, x)
    y = A(truth)
    corrected = x + B.pinv(y - A(x))
    # What is finished stays; what was off by tenths is met to a few thousandths.
    assert torch.equal(corrected[..., frozen[0]], x[..., frozen[0]])
    before, after = ((A(v) - y).square().mean().sqrt() for v in (x, corrected))
    assert float(after) < 0.03 * float(before)
    assert float((corrected - x).abs().max()) < 4


@given(st.integers(0, 99))
@settings(max_examples=8)
def test_forward_and_adjoint_see_the_rectangles_only(seed):
    A, _ = Bicubic((3, 96, 96), 4).inside(Window(32, 32, 32, 32))
    B = Bound(A, [Window(24, 0, 8, 32), Window(8, 12, 24, 20)])
    g = torch.Generator().manual_seed(seed)
    x = torch.randn((1, *B.in_shape), generator=g, dtype=torch.float64)
    v = torch.randn((1, *B.out_shape), generator=g, dtype=torch.float64)
    torch.testing.assert_close((B(x) * v).sum(), (x * B.adjoint(v)).sum())
    assert torch.equal(B(x), A(B.mask * x))
    assert B.ratio == A.ratio
    assert str(B) == str(A)


@given(st.integers(0, 99), st.sampled_from([2, 3, 4]))
@settings(max_examples=8)
def test_turns_among_the_values_are_those_among_the_pixels(seed, s):
    A, _ = Bicubic((3, 40 * s, 40 * s), s).inside(Window(8 * s, 8 * s, 16 * s, 16 * s))
    free = [Window(12 * s, 0, 4 * s, 16 * s), Window(4 * s, 3 * s, 8 * s, 13 * s)]
    B, g = Bound(A, free), torch.Generator().manual_seed(seed)
    y = torch.randn((2, *B.out_shape), generator=g, dtype=torch.float64)
    x = B.parts[-1].pinv(y)
    for part in 3 * B.parts:
        x = x + part.pinv(y - A(x))
    torch.testing.assert_close(B.pinv(y), x, rtol=1e-9, atol=1e-9)


def test_the_energy_of_rows_is_that_of_the_matrix():
    A, _ = Bicubic((1, 64, 64), 4).inside(Window(16, 16, 32, 32))
    B = Bound(A, [Window(20, 0, 12, 32), Window(8, 12, 24, 20)])
    unit = torch.eye(32 * 32, dtype=torch.float64).view(-1, 1, 32, 32)
    torch.testing.assert_close(B.energy(), B(unit).square().sum(0)[0])
    assert Bound(AveragePool((3, 8, 8), 2), [Window(0, 0, 4, 8)]).energy() is None
