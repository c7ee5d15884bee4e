"""Values whose whole support lies in a window: exactly those of the whole image."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sfumato.errors import DegradationError, ShapeError
from sfumato.operators import (
    AveragePool,
    Bicubic,
    Convolution,
    Grayscale,
    Mask,
    Part,
    WalshHadamard,
    Window,
    compose,
    gaussian_kernel,
    motion_kernel,
    uniform_kernel,
)
from sfumato.testing import check_operator

SEEDS = st.integers(0, 2**31)
KERNELS = [(3, 3), (1, 5), (4, 2), (5, 6)]


def normal(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


@st.composite
def spans(draw, most=12):
    """Cells of an axis: how many, and which of them belong to the window."""
    n = draw(st.integers(1, most))
    first = draw(st.integers(0, n - 1))
    return n, first, draw(st.integers(1, n - first))


def check_inside(A, window, seed=0):
    """Compare with the whole image; every value that sees nothing beyond the window is there."""
    x = normal(seed, 2, *A.in_shape)
    beyond = x.clone()
    window.of(beyond).zero_()
    same = A(beyond)[0].abs().amax(0) < 1e-12
    try:
        B, place = A.inside(window)
    except ShapeError:
        assert not same.any()
        return None
    torch.testing.assert_close(B(window.of(x)), place.of(A(x)), rtol=0, atol=1e-12)
    expected = torch.zeros_like(same)
    place.of(expected).fill_(True)
    assert bool((same == expected).all())
    return B


def in_cells(stride, rows, cols):
    (height, top, h), (width, left, w) = rows, cols
    return (stride * height, stride * width), Window(*(stride * n for n in (top, left, h, w)))


@given(st.sampled_from([1, 2, 3, 4, 5, 8]), spans(), spans(), SEEDS)
@settings(deadline=None)
def test_bicubic_values_are_those_of_the_whole_image(factor, rows, cols, seed):
    size, window = in_cells(factor, rows, cols)
    B = check_inside(Bicubic((2, *size), factor), window, seed)
    if B is not None:
        assert B.truncation == 0 == B.damping
        assert B.ratio == factor
        check_operator(B, tolerance=1e-11)


@given(
    st.sampled_from(KERNELS),
    st.sampled_from(["reflect", "replicate"]),
    spans(20),
    spans(20),
    SEEDS,
)
@settings(deadline=None)
def test_blurred_values_are_those_of_the_whole_image(taps, boundary, rows, cols, seed):
    size, window = in_cells(1, rows, cols)
    A = Convolution((1, *size), 1 + normal(seed, *taps).abs(), boundary)
    check_inside(A, window, seed)


@pytest.mark.parametrize("boundary", ["reflect", "replicate"])
@pytest.mark.parametrize(
    "kernel", [gaussian_kernel(0.5), gaussian_kernel(1.2), uniform_kernel(4), motion_kernel(5, 0)]
)
@pytest.mark.parametrize("window", [Window(0, 20, 24, 24), Window(10, 0, 22, 21)])
def test_blurs_of_rank_one_obey_all_laws(kernel, boundary, window):
    A = Convolution((2, 40, 50), kernel, boundary)
    B, _ = A.inside(window)
    assert B.svd() is not None
    assert (B.damping, B.truncation, B.amplifies) == (0, A.truncation, True)
    check_operator(B)


def test_other_blurs_obey_the_laws_of_damping():
    A = Convolution((1, 30, 30), motion_kernel(5, 30.0))
    B, _ = A.inside(Window(0, 6, 20, 20))
    assert B.svd() is None
    assert B.damping == A.damping > 0
    check_operator(B)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_bicubic_inverses_are_as_well_conditioned_as_the_whole(factor):
    A = Bicubic((1, 48 * factor, 48 * factor), factor)
    B, _ = A.inside(Window(16 * factor, 0, 16 * factor, 16 * factor))
    s = B.svd().s
    assert float(s.max() / s.min()) < 2.2
    y = normal(0, 1, *B.out_shape).float()
    assert B.pinv(y).dtype == torch.float32
    torch.testing.assert_close(B(B.pinv(y)), y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cells", [8, 9])
@pytest.mark.parametrize(
    "make",
    [
        lambda h, w: compose(Grayscale((3, h, w)), Bicubic((1, h, w), 4)),
        lambda h, w: compose(Bicubic((3, h, w), 4), Grayscale((3, h // 4, w // 4))),
        lambda h, w: compose(
            Bicubic((3, h, w), 2),
            AveragePool((3, h // 2, w // 2), 2),
            Grayscale((3, h // 4, w // 4)),
        ),
        lambda h, w: compose(AveragePool((1, h, w), 2), Bicubic((1, h // 2, w // 2), 2)),
        lambda h, w: compose(Convolution((1, h, w), uniform_kernel(3)), AveragePool((1, h, w), 4)),
        lambda h, w: compose(
            Bicubic((1, h, w), 4),
            Mask((1, h // 4, w // 4), normal(0, 1, h // 4, w // 4).sigmoid()),
        ),
    ],
)
def test_compositions_with_one_halo(make, cells):
    A = make(4 * cells, 48)
    for window in (Window(0, 8, 28, 28), Window(4, 24, 28, 24)):
        B = check_inside(A, window)
        assert B is not None
        assert B.ratio == A.ratio == 4
        assert str(B) == str(A)
        check_operator(B, tolerance=1e-5)


def test_a_window_of_all_is_the_operator_of_all():
    for A in (Bicubic((3, 16, 16), 4), Convolution((3, 16, 16), gaussian_kernel(1.0))):
        whole = Window(0, 0, 16, 16)
        B, place = A.inside(whole)
        assert type(B) is type(A)
        assert place == A.measured(whole)


def test_without_a_halo_a_window_is_cut():
    A = AveragePool((3, 16, 24), 4)
    B, place = A.inside(Window(4, 8, 8, 16))
    assert isinstance(B, AveragePool)
    assert (B.in_shape, place) == ((3, 8, 16), Window(1, 2, 2, 4))
    for unfit in (
        Window(2, 0, 8, 8),
        Window(-4, 0, 8, 8),
        Window(8, 0, 12, 8),
        Window(0, 0, 0, 8),
    ):
        with pytest.raises(ShapeError, match="multiples of 4"):
            A.inside(unfit)


def test_the_last_cells_may_be_smaller():
    A = WalshHadamard((1, 20, 30), 0.5, block=8)
    x = normal(0, 1, 1, 20, 30)
    B, place = A.inside(Window(8, 24, 12, 6))
    assert place == Window(8, 24, 12, 6)
    torch.testing.assert_close(B(place.of(x)), place.of(A(x)))
    with pytest.raises(ShapeError, match="multiples of 8"):
        A.inside(Window(8, 24, 11, 6))
    blurred = compose(Convolution((1, 20, 30), uniform_kernel(3)), A)
    window = Window(8, 8, 12, 22)
    B, place = blurred.inside(window)
    assert place == Window(16, 16, 4, 14)
    torch.testing.assert_close(B(window.of(x)), place.of(blurred(x)))
    with pytest.raises(ShapeError, match="holds no value"):
        blurred.inside(Window(0, 8, 20, 8))


def test_what_does_not_fit_is_refused():
    A = Bicubic((1, 64, 64), 4)
    for unfit in (Window(2, 0, 32, 32), Window(40, 0, 32, 32), Window(0, 0, 30, 32)):
        with pytest.raises(ShapeError, match="multiples of 4"):
            A.inside(unfit)
    with pytest.raises(ShapeError, match="holds no value of bicubic:4; expected at least 20 x 12"):
        A.inside(Window(0, 8, 8, 16))
    with pytest.raises(DegradationError, match="at most 32 pixels"):
        Convolution((1, 9, 9), torch.ones(66, 1)).inside(Window(0, 0, 9, 9))
    blurred_twice = compose(A, Convolution((1, 16, 16), uniform_kernel(3)))
    with pytest.raises(DegradationError, match="one has a halo"):
        blurred_twice.inside(Window(0, 0, 32, 32))
    sensed = WalshHadamard((1, 64, 64), 0.5, block=0)
    with pytest.raises(NotImplementedError, match="does not know"):
        sensed.inside(Window(0, 0, 32, 32))
    with pytest.raises(DegradationError, match="local"):
        compose(A.crop(Window(0, 0, 64, 64)), WalshHadamard((1, 16, 16), 0.5, block=0)).inside(
            Window(0, 0, 32, 32)
        )


@given(spans(9), spans(9), spans(30), spans(30), st.sampled_from([0.0, 0.05, 0.5]))
@settings(deadline=None, max_examples=30)
def test_any_part_obeys_all_laws(rows, cols, free_rows, free_cols, truncation):
    (height, top, h), (width, left, w) = rows, cols
    A = Bicubic((1, 3 * height, 3 * width), 3)
    (_, y_0, n_y), (_, x_0, n_x) = free_rows, free_cols
    assume(y_0 + n_y <= 3 * height and x_0 + n_x <= 3 * width)
    free = Window(y_0, x_0, n_y, n_x)
    B = Part(A, Window(top, left, h, w), free, truncation=truncation)
    check_operator(B)
    # A part of a part.
    C = Part(Part(A, Window(top, left, h, w)), free=free, truncation=truncation)
    y = normal(0, 1, *B.out_shape)
    torch.testing.assert_close(C.pinv(y), B.pinv(y))


def test_a_part_has_a_gradient_and_is_not_empty():
    B = Part(Bicubic((1, 6, 4), 2), Window(0, 1, 2, 1), Window(1, 1, 4, 3))
    assert torch.autograd.gradcheck(B, normal(1, 1, 1, 6, 4).requires_grad_())
    for values in (Window(0, 0, 0, 1), Window(0, 1, 1, 2)):
        with pytest.raises(ShapeError, match="values from row 0"):
            Part(Bicubic((1, 6, 4), 2), values)
    with pytest.raises(ShapeError, match="pixels from row 3"):
        Part(Bicubic((1, 6, 4), 2), free=Window(3, 0, 4, 4))
