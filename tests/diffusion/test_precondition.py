"""EDM preconditioning: exact where the answer is known, at any size, in either precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion.arithmetic import best_precision
from sfumato.diffusion.precondition import (
    EDMDenoiser,
    mirror_to_multiple,
)
from sfumato.errors import SettingsError, ShapeError
from sfumato.nn import UNetConfig, seeded_unet

TINY = UNetConfig(channels=(4, 8), blocks=1, embedding=8)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def excited(precision="fp32"):
    net = seeded_unet(TINY, 0)
    with torch.no_grad():
        for k, p in enumerate(net.parameters()):
            p.add_(0.1 * noise(*p.shape, seed=k))
    return EDMDenoiser(net, precision=precision)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 30.0])
def test_a_silent_network_is_the_best_linear_denoiser(sigma):
    """With F = 0 it is Wiener's: s² / (s² + σ²) x_t."""
    x = noise(2, 3, 8, 8)
    expected = 0.25 / (0.25 + sigma**2) * x
    torch.testing.assert_close(EDMDenoiser(seeded_unet(TINY, 0))(x, sigma), expected)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 19), width=st.integers(1, 19))
def test_any_size(height, width):
    x = noise(1, 3, height, width)
    answer = excited()(x, 0.3)
    assert answer.shape == x.shape
    assert answer.isfinite().all()


def test_each_image_has_its_own_noise_level():
    denoiser, x = excited(), noise(3, 3, 8, 12)
    sigma = torch.tensor([0.02, 0.5, 40.0])
    together = denoiser(x, sigma)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], denoiser(x[k : k + 1], float(sigma[k])))


def test_no_noise_is_no_change():
    x = noise(1, 3, 8, 8)
    assert torch.equal(excited()(x, 0.0), x)


def test_the_answer_follows_the_input():
    x = noise(1, 3, 8, 8)
    assert excited()(x.double(), 0.5).dtype == torch.float64
    strided = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(excited()(strided, 0.5), excited()(x, 0.5))


def test_bf16_is_near_fp32():
    x = noise(1, 3, 16, 16)
    full, half = excited()(x, 0.5), excited("bf16")(x, 0.5)
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    assert (full - half).square().mean().sqrt() < 0.02 * full.square().mean().sqrt()
    assert best_precision(torch.device("cpu")) in ("fp32", "bf16")


def test_gradients_reach_the_input_but_not_frozen_weights():
    denoiser, x = excited().requires_grad_(False), noise(1, 3, 5, 6).requires_grad_()
    denoiser(x, 0.5).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().min() > 0


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 20), multiple=st.integers(1, 17))
def test_the_mirror(n, multiple):
    row = torch.arange(float(n)).expand(1, n)
    long = mirror_to_multiple(row, multiple)[0]
    assert len(long) % multiple == 0
    assert len(long) - n < multiple
    assert torch.equal(long[:n], row[0])
    assert ((long[1:] - long[:-1]).abs() == (1 if n > 1 else 0)).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "x", [torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 0, 8)]
)
def test_what_is_no_image_is_refused(x):
    with pytest.raises(ShapeError, match="expected"):
        excited()(x, 0.5)


def test_noise_levels_must_fit_the_batch():
    with pytest.raises(ShapeError, match="for a batch of 2"):
        excited()(noise(2, 3, 8, 8), torch.ones(3))


@pytest.mark.usefixtures("unchecked")
def test_settings_are_checked():
    with pytest.raises(SettingsError, match="precision"):
        EDMDenoiser(seeded_unet(TINY, 0), precision="fp64")
    with pytest.raises(SettingsError, match="sigma_data"):
        EDMDenoiser(seeded_unet(TINY, 0), sigma_data=0.0)
