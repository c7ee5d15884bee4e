"""Physics with deepinv's conventions, without deepinv."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import DegradationError
from sfumato.operators.deepinv import FromDeepinv
from sfumato.testing import check_operator


class Physics(torch.nn.Module):
    """As deepinv's: calling it measures with noise; ``A`` measures without."""

    def forward(self, x):
        return self.A(x) + 0.1 * torch.randn_like(self.A(x))


class Inpainting(Physics):
    """A mask held as a buffer, applied by a product; A_dagger divides where it can."""

    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def A(self, x, **_):
        return self.mask.to(x.dtype) * x

    A_adjoint = A_dagger = A


class Downsampling(Physics):
    """Every s-th pixel; the pseudo-inverse is the adjoint."""

    def __init__(self, factor, size):
        super().__init__()
        self.factor, self.size = factor, size

    def A(self, x, **_):
        return x[:, :, :: self.factor, :: self.factor]

    def A_adjoint(self, y, **_):
        x = torch.zeros(len(y), *self.size, dtype=y.dtype)
        x[:, :, :: self.factor, :: self.factor] = y
        return x

    A_dagger = A_adjoint


class CompressedSensing(Physics):
    """A dense matrix whose measurements are vectors, ``(batch, m)``."""

    def __init__(self, size, m):
        super().__init__()
        self.size = size
        n = torch.Size(size).numel()
        g = torch.Generator().manual_seed(0)
        self.M = torch.randn(m, n, generator=g, dtype=torch.float64) / m**0.5

    def A(self, x, **_):
        return x.flatten(1) @ self.M.T.to(x.dtype)

    def A_adjoint(self, y, **_):
        return (y @ self.M.to(y.dtype)).reshape(len(y), *self.size)

    def A_dagger(self, y, **_):
        return (y @ torch.linalg.pinv(self.M).T.to(y.dtype)).reshape(len(y), *self.size)


class Complex(CompressedSensing):
    def A(self, x, **_):
        return torch.fft.fft2(x)


class Several(CompressedSensing):
    def A(self, x, **_):
        return [x, x]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**31))
@settings(deadline=None)
def test_obeys_all_laws(height, width, factor, seed):
    shape = (3, height, width)
    g = torch.Generator().manual_seed(seed)
    mask = (torch.rand(1, 1, height, width, generator=g) > 0.5).float()
    check_operator(FromDeepinv(Inpainting(mask), shape))
    A = FromDeepinv(Downsampling(factor, shape), shape)
    assert A.out_shape == (3, -(-height // factor), -(-width // factor))
    check_operator(A)


def test_measurements_that_are_vectors():
    A = FromDeepinv(CompressedSensing((2, 3, 4), 7), (2, 3, 4))
    assert A.out_shape == (1, 1, 7)
    check_operator(A)
    check_operator(A, dtype=torch.float32, tolerance=1e-4)


def test_no_noise_is_added():
    A = FromDeepinv(Downsampling(2, (1, 4, 4)), (1, 4, 4))
    assert torch.equal(A(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 2, 2))


def test_names():
    physics = Downsampling(2, (1, 4, 4))
    assert str(FromDeepinv(physics, (1, 4, 4))) == "deepinv:Downsampling"
    assert str(FromDeepinv(physics, (1, 4, 4), name="mine")) == "mine"


@pytest.mark.usefixtures("unchecked")
def test_misuse():
    with pytest.raises(DegradationError, match="A, A_adjoint and A_dagger"):
        FromDeepinv(torch.nn.Identity(), (1, 4, 4))
    with pytest.raises(DegradationError, match="complex64; expected one real tensor"):
        FromDeepinv(Complex((1, 4, 4), 3), (1, 4, 4))
    with pytest.raises(DegradationError, match="type list"):
        FromDeepinv(Several((1, 4, 4), 3), (1, 4, 4))
