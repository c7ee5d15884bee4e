"""Blur: scipy's values, exact adjoints, pseudo-inverses that keep noise small."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sfumato.errors import DegradationError
from sfumato.linalg import NotConvergedWarning
from sfumato.operators import convolution
from sfumato.operators.base import Locality, Window
from sfumato.operators.convolution import TRUNCATION, Convolution
from sfumato.operators.kernels import (
    anisotropic_gaussian_kernel,
    gaussian_kernel,
    motion_kernel,
    uniform_kernel,
)
from sfumato.testing import check_operator

BOUNDARIES = st.sampled_from(["reflect", "replicate"])
SEEDS = st.integers(0, 2**31)
SCIPY = {"reflect": "reflect", "replicate": "nearest"}


def normal(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


def dense(A):
    n = int(np.prod(A.in_shape))
    return A(torch.eye(n, dtype=torch.float64).reshape(n, *A.in_shape)).flatten(1).T


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    BOUNDARIES,
    SEEDS,
)
@settings(deadline=None)
def test_equals_scipy_and_has_its_adjoint(size, taps, boundary, seed):
    k, x, y = normal(seed, *taps), normal(seed + 1, 2, 2, *size), normal(seed + 2, 2, 2, *size)
    A = Convolution((2, *size), k, boundary)
    expected = ndimage.convolve(x.numpy(), k.numpy()[None, None], mode=SCIPY[boundary])
    torch.testing.assert_close(A(x), torch.from_numpy(expected), rtol=0, atol=1e-11)
    assert float((A(x) * y).sum()) == pytest.approx(float((x * A.adjoint(y)).sum()), abs=1e-9)


@given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from(
        [
            gaussian_kernel(0.6),
            gaussian_kernel(2.0),
            uniform_kernel(3),
            uniform_kernel(4),
            motion_kernel(7, 0.0),
            motion_kernel(7, 90.0),
            -3 * uniform_kernel(5),
            torch.tensor([[1.0, 2.0, 0.5]]),
        ]
    ),
    BOUNDARIES,
    st.sampled_from([0.0, TRUNCATION, 0.2]),
)
@settings(deadline=None)
def test_closed_forms_obey_all_laws(size, kernel, boundary, truncation):
    A = Convolution((2, *size), kernel, boundary, truncation=truncation)
    assert A.svd() is not None
    assert A.damping == 0
    check_operator(A)


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from(
        [motion_kernel(5, 30.0), anisotropic_gaussian_kernel(2, 0.8, 20.0), normal(0, 3, 4)]
    ),
    BOUNDARIES,
)
@settings(deadline=None, max_examples=20)
def test_damped_inverses_obey_the_laws_of_damping(size, kernel, boundary):
    A = Convolution((1, *size), kernel, boundary)
    check_operator(A)


@pytest.mark.parametrize("boundary", ["reflect", "replicate"])
def test_without_truncation_iterations_reach_the_pseudo_inverse(boundary):
    kernel = torch.tensor([[0.1, 0.05, 0.0], [0.1, 0.6, 0.05], [0.0, 0.02, 0.08]])
    A = Convolution((1, 6, 7), kernel, boundary, truncation=0.0)
    assert A.svd() is None
    check_operator(A)
    y = normal(3, 1, 1, 6, 7)
    expected = torch.linalg.pinv(dense(A)) @ y.flatten()
    torch.testing.assert_close(A.pinv(y).flatten(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "boundary"),
    [
        (gaussian_kernel(1.0), "reflect"),
        (gaussian_kernel(1.0), "replicate"),
        (uniform_kernel(4), "reflect"),
    ],
)
def test_truncated_inverse_equals_the_dense_one(kernel, boundary):
    A = Convolution((1, 9, 8), kernel, boundary, truncation=0.05)
    M = dense(A)
    y = normal(0, 1, 1, 9, 8)
    expected = torch.linalg.pinv(M, rtol=0.05) @ y.flatten()
    torch.testing.assert_close(A.pinv(y).flatten(), expected, rtol=1e-9, atol=1e-9)
    s = A.svd().s.flatten().sort(descending=True).values
    kept = torch.linalg.svdvals(M)
    kept = torch.where(kept >= 0.05 * kept[0], kept, 0.0)
    torch.testing.assert_close(s, kept, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_rounding_noise_of_eight_bits_stays_small(channels):
    kernel = gaussian_kernel(2.0)
    A = Convolution((channels, 64, 48), kernel)
    noise = normal(0, 4, channels, 64, 48) / (255 * 12**0.5)
    assert float(A.pinv(noise).std()) < 0.03
    assert float(torch.linalg.vector_norm(A.pinv(noise)) / noise.norm()) < 1 / TRUNCATION


def test_a_flat_picture_stays_flat_at_every_border():
    for kernel in (gaussian_kernel(2.0), motion_kernel(15, 30.0), uniform_kernel(6)):
        for boundary in ("reflect", "replicate"):
            A = Convolution((1, 10, 7), kernel, boundary)
            torch.testing.assert_close(A(torch.ones(1, 1, 10, 7)), torch.ones(1, 1, 10, 7))


@pytest.mark.parametrize("boundary", ["reflect", "replicate"])
@pytest.mark.parametrize("kernel", [gaussian_kernel(2.0), motion_kernel(9, 30.0)])
def test_single_precision(kernel, boundary):
    A = Convolution((3, 33, 20), kernel, boundary)
    x = normal(0, 2, 3, 33, 20)
    y = A(x.float())
    assert y.dtype == A.adjoint(y).dtype == A.pinv(y).dtype == torch.float32
    torch.testing.assert_close(y.double(), A(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(A.pinv(A(x).float()).double(), A.pinv(A(x)), rtol=0, atol=1e-3)
    assert A(x.bfloat16()).dtype == torch.bfloat16


def test_has_a_gradient():
    for boundary in ("reflect", "replicate"):
        A = Convolution((1, 3, 4), normal(0, 3, 2), boundary)
        assert torch.autograd.gradcheck(A, normal(1, 1, 1, 3, 4).requires_grad_())
        assert torch.autograd.gradcheck(A.adjoint, normal(1, 1, 1, 3, 4).requires_grad_())


def test_a_window_equals_the_whole_beyond_the_halo():
    A = Convolution((2, 40, 50), motion_kernel(9, 30.0))
    halo = A.locality.halo
    assert A.locality == Locality(1, 4)
    window = Window(10, 0, 20, 30)
    assert A.measured(window) == window
    x = normal(0, 1, 2, 40, 50)
    inside, whole = A.crop(window)(window.of(x)), window.of(A(x))
    part = (..., slice(halo, -halo), slice(0, -halo))
    torch.testing.assert_close(inside[part], whole[part], rtol=0, atol=1e-12)
    assert not torch.allclose(inside, whole)


@pytest.mark.parametrize(
    "kernel",
    [
        torch.zeros(3, 3),
        torch.empty(0, 3),
        torch.ones(3),
        torch.tensor([[1.0, torch.nan]]),
        torch.tensor([[1.0, torch.inf]]),
        torch.ones(2, 2, dtype=torch.complex64),
    ],
)
def test_unfit_kernels(kernel):
    with pytest.raises(DegradationError, match=r"expected .*; give a matrix"):
        Convolution((1, 4, 4), kernel)


@pytest.mark.usefixtures("unchecked")
def test_unfit_settings():
    with pytest.raises(DegradationError, match="'reflect' or 'replicate'"):
        Convolution((1, 4, 4), torch.ones(1, 1), "zero")
    for truncation in (-0.1, 1.0, float("nan")):
        with pytest.raises(DegradationError, match="truncation"):
            Convolution((1, 4, 4), torch.ones(1, 1), truncation=truncation)


def test_names():
    assert str(Convolution((1, 4, 4), torch.ones(3, 5))) == "convolution:3x5"
    assert (
        str(Convolution((1, 4, 4), torch.ones(1, 1), name="gaussian_blur:2.0"))
        == "gaussian_blur:2.0"
    )


def test_what_iterations_cannot_reach_is_told(monkeypatch):
    monkeypatch.setattr(convolution, "_MAX_ITERATIONS", 20)
    A = Convolution((1, 12, 12), anisotropic_gaussian_kernel(3, 2, 20.0), truncation=0.0)
    with pytest.warns(NotConvergedWarning):
        A.pinv(normal(0, 1, 1, 12, 12))
