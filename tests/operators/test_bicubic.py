"""Bicubic downsampling: torch's values at every size, and an exact inverse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import DegradationError, ShapeError
from sfumato.operators.base import Locality, Window
from sfumato.operators.bicubic import Bicubic
from sfumato.testing import check_operator

FACTORS = st.sampled_from([1, 2, 3, 4, 5, 8, 16])
SIDES = st.integers(1, 12)
SEEDS = st.integers(0, 2**31)


def normal(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


def interpolated_rows(x, height):
    """Torch 2.13 is wrong on pictures one pixel wide: let none have a single column."""
    wide = torch.cat([x, x], dim=-1)
    y = torch.nn.functional.interpolate(
        wide, size=(height, wide.shape[-1]), mode="bicubic", antialias=True, align_corners=False
    )
    return y[..., : x.shape[-1]]


@given(FACTORS, SIDES, SIDES, SEEDS)
@settings(deadline=None)
def test_equals_interpolate(factor, height, width, seed):
    x = normal(seed, 1, 2, factor * height, factor * width)
    expected = interpolated_rows(interpolated_rows(x, height).mT, width).mT
    y = Bicubic((2, factor * height, factor * width), factor)(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)


@given(FACTORS, SIDES, SIDES)
@settings(deadline=None)
def test_obeys_all_laws(factor, height, width):
    A = Bicubic((2, factor * height, factor * width), factor)
    assert A.svd().s.shape == A.out_shape == (2, height, width)
    check_operator(A, tolerance=1e-12)


@pytest.mark.parametrize("factor", [2, 3, 4, 16])
def test_is_well_conditioned_and_flat_pictures_stay_flat(factor):
    A = Bicubic((1, 40 * factor, 30 * factor), factor)
    s = A.svd().s
    assert float(s.max() / s.min()) < 2.2
    ones = torch.ones(1, 1, 40, 30)
    torch.testing.assert_close(A(torch.ones(1, *A.in_shape)), ones, rtol=0, atol=1e-6)


def test_a_long_side():
    A = Bicubic((1, 4 * 700, 4), 4)
    y = normal(0, 1, 1, 700, 1).float()
    assert A.pinv(y).dtype == torch.float32
    torch.testing.assert_close(A(A.pinv(y)), y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
def test_the_halo_is_exact(factor):
    A = Bicubic((1, 12 * factor, 10 * factor), factor)
    halo = A.locality.halo
    one = torch.zeros(1, 1, 12, 10, dtype=torch.float64)
    one[0, 0, 6, 5] = 1
    rows, cols = (A.adjoint(one)[0, 0].abs() > 1e-15).nonzero().unbind(1)
    assert (int(rows.min()), int(rows.max())) == (6 * factor - halo, 7 * factor - 1 + halo)
    assert (int(cols.min()), int(cols.max())) == (5 * factor - halo, 6 * factor - 1 + halo)


def test_a_window_equals_the_whole_beyond_the_halo():
    A = Bicubic((2, 64, 48), 4)
    assert A.locality == Locality(4, 6)
    window = Window(16, 0, 32, 32)
    assert A.measured(window) == Window(4, 0, 8, 8)
    x = normal(0, 1, 2, 64, 48)
    inside, whole = A.crop(window)(window.of(x)), A.measured(window).of(A(x))
    torch.testing.assert_close(inside[..., 2:-2, :-2], whole[..., 2:-2, :-2], rtol=0, atol=1e-12)


def test_has_a_gradient():
    A = Bicubic((1, 6, 4), 2)
    assert torch.autograd.gradcheck(A, normal(1, 1, 1, 6, 4).requires_grad_())


@pytest.mark.usefixtures("unchecked")
def test_misuse():
    with pytest.raises(ShapeError, match="crop it to 8 x 4"):
        Bicubic((3, 6, 9), 4)
    for factor in (0, -2, 1.5):
        with pytest.raises(DegradationError, match="whole number"):
            Bicubic((3, 6, 9), factor)
    assert str(Bicubic((3, 8, 8), 4)) == "bicubic:4"
