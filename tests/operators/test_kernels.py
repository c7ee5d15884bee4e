"""Kernels: whole, even-handed, and sharp where they should be."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import DegradationError
from sfumato.operators.kernels import (
    anisotropic_gaussian_kernel,
    gaussian_kernel,
    motion_kernel,
    read_kernel,
    uniform_kernel,
)

ANGLES = st.floats(-360, 360)
SIGMAS = st.floats(0.3, 12)


def moments(k):
    """Covariance of a kernel about its centre, in (right, up)."""
    up = -(torch.arange(k.shape[0], dtype=k.dtype) - k.shape[0] // 2)[:, None].expand_as(k)
    right = (torch.arange(k.shape[1], dtype=k.dtype) - k.shape[1] // 2).expand_as(k)
    return (k * right**2).sum(), (k * up**2).sum(), (k * right * up).sum()


def assert_sound(k):
    assert k.dtype == torch.float64
    assert all(n % 2 for n in k.shape)
    assert float(k.min()) >= 0
    assert float(k.sum()) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(k, k.flip(0, 1), rtol=1e-12, atol=1e-15)
    for edge in (k[0], k[-1], k[:, 0], k[:, -1]):
        assert float(edge.max()) > 0


@given(SIGMAS)
@settings(deadline=None)
def test_gaussian(sigma):
    k = gaussian_kernel(sigma)
    assert_sound(k)
    assert k.shape == (2 * math.ceil(4 * sigma) + 1,) * 2
    assert torch.equal(k, k.T)
    assert torch.equal(k, k.flip(0))
    if sigma > 1:
        across, down, skew = moments(k)
        assert float(across) == pytest.approx(sigma**2, rel=5e-3)
        assert float(down) == pytest.approx(sigma**2, rel=5e-3)
        assert float(skew) == pytest.approx(0, abs=1e-12)


@given(st.floats(1, 10), st.floats(1, 10), ANGLES)
@settings(deadline=None)
def test_anisotropic_gaussian_has_its_covariance(sigma_1, sigma_2, angle):
    k = anisotropic_gaussian_kernel(sigma_1, sigma_2, angle)
    assert_sound(k)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    expected = (
        (sigma_1 * c) ** 2 + (sigma_2 * s) ** 2,
        (sigma_1 * s) ** 2 + (sigma_2 * c) ** 2,
        (sigma_1**2 - sigma_2**2) * c * s,
    )
    size = max(sigma_1, sigma_2) ** 2
    for got, want in zip(moments(k), expected, strict=True):
        assert float(got) == pytest.approx(want, abs=1e-2 * size)


@given(st.integers(1, 20))
def test_uniform(size):
    k = uniform_kernel(size)
    assert k.shape == (size, size)
    assert float(k.sum()) == pytest.approx(1, abs=1e-12)
    assert float(k.min()) == float(k.max())


@given(st.floats(0.1, 60), ANGLES)
@settings(deadline=None)
def test_motion(length, angle):
    k = motion_kernel(length, angle)
    assert_sound(k)
    across, down, skew = moments(k)
    # A pixel counts from its middle, so the spread differs by at most that of a pixel.
    assert float(across + down) == pytest.approx(length**2 / 12, abs=0.25 + 0.2 * length)
    if length > 4 and abs(float(across - down)) > 0.1 * length**2 / 12:
        want = math.tan(math.radians(2 * angle))
        assert float(2 * skew / (across - down)) == pytest.approx(want, abs=0.4 + abs(want) / 2)


@pytest.mark.parametrize("length", [1, 3, 9, 21])
def test_motion_along_an_axis_is_an_even_line(length):
    line = torch.full((1, length), 1 / length, dtype=torch.float64)
    torch.testing.assert_close(motion_kernel(length, 0.0), line)
    torch.testing.assert_close(motion_kernel(length, 180.0), line)
    torch.testing.assert_close(motion_kernel(length, 90.0), line.T)


def test_motion_of_even_length_ends_in_half_taps():
    half = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64)
    torch.testing.assert_close(motion_kernel(2, 0.0), half)


def test_motion_upwards_to_the_right():
    k = motion_kernel(9, 30.0)
    assert k[: k.shape[0] // 2, k.shape[1] // 2 + 1 :].sum() > 0.2
    assert k[: k.shape[0] // 2, : k.shape[1] // 2].sum() == 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("builder", "arguments"),
    [
        (gaussian_kernel, (0.0,)),
        (gaussian_kernel, (math.nan,)),
        (anisotropic_gaussian_kernel, (1.0, -1.0, 0.0)),
        (anisotropic_gaussian_kernel, (1.0, 1.0, math.inf)),
        (uniform_kernel, (0,)),
        (uniform_kernel, (2.5,)),
        (motion_kernel, (-1.0, 0.0)),
        (motion_kernel, (math.inf, 0.0)),
    ],
)
def test_impossible_parameters(builder, arguments):
    with pytest.raises(DegradationError, match="expected"):
        builder(*arguments)


def test_read_kernel(tmp_path):
    taps = np.array([[0.0, 2.0, 0.0], [1.0, 4.0, -1.0]], dtype=np.float32)
    np.save(tmp_path / "k.npy", taps)
    torch.testing.assert_close(
        read_kernel(tmp_path / "k.npy"), torch.from_numpy(taps).double() / 6
    )
    np.save(tmp_path / "zero.npy", 0 * taps)
    with pytest.raises(DegradationError, match=r"zero\.npy"):
        read_kernel(tmp_path / "zero.npy")
