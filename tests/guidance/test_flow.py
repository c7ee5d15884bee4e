"""Denoising by the probability flow, from the noisy picture itself."""

import pytest
import torch

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.errors import SettingsError
from sfumato.guidance import Measurement
from sfumato.guidance.flow import Flow
from sfumato.nn import UNetConfig, seeded_unet
from sfumato.operators import Identity, parse
from sfumato.pipeline import Settings, restore
from sfumato.pipeline.problem import make_problem
from sfumato.pipeline.resolve import resolve
from sfumato.samplers import DPMSolverPP2M, sample, walk
from sfumato.zoo import Prior

SHAPE = (3, 32, 32)
C, SIGMA_Y = 0.5, 0.4


def gaussian(x_t, sigma):
    return C**2 / (C**2 + sigma**2) * x_t


def walked(y, sigmas, *, clips, denoiser=gaussian, copies=1):
    m = Measurement(Identity(SHAPE), y, sigmas[0], clips=clips, copies=copies)
    moves = walk(DPMSolverPP2M(), sigmas)
    steps = sample(
        denoiser, DPMSolverPP2M(), [Flow(m)], moves, x_T=y, noise=lambda draw: torch.zeros_like(y)
    )
    return [x for _, x in steps]


def test_a_noisy_picture_ends_where_the_flow_takes_it():
    """Gaussian pictures:  x(0) = y c / sqrt(c² + σ_y²), which has their variance again."""
    y = 0.3 * torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    levels = [SIGMA_Y * (1 - k / 200) for k in range(200)]
    *_, x = walked(y, [SIGMA_Y, *levels, 0.0], clips=False)
    torch.testing.assert_close(x, y * C / (C**2 + SIGMA_Y**2) ** 0.5, rtol=1e-3, atol=1e-6)


def test_the_step_that_stays_completes_what_was_clipped_and_no_more():
    x_0 = torch.full((1, *SHAPE), 0.9)
    z = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    y = (x_0 + SIGMA_Y * z).clamp(-1, 1)
    first, *_ = walked(y, [SIGMA_Y, SIGMA_Y, 0.1, 0.0], clips=True, denoiser=lambda x, s: x_0)
    inside = y.abs() < 1
    torch.testing.assert_close(first[inside], y[inside])
    assert abs(float((first - x_0).mean())) < 0.02 < float((x_0 - y).mean())


def test_copies_share_what_is_completed():
    x_0 = torch.ones(1, *SHAPE)
    y = (x_0 - 0.2 * torch.rand(1, 1, 32, 32)).clamp(-1, 1).expand(1, *SHAPE)
    first, *_ = walked(
        y, [SIGMA_Y, SIGMA_Y, 0.1, 0.0], clips=True, denoiser=lambda x, s: x_0, copies=3
    )
    torch.testing.assert_close(first, first[:, :1].expand_as(first))


def tiny():
    D = EDMDenoiser(seeded_unet(UNetConfig((4, 8), 1, 2, 8), 0)).eval().requires_grad_(False)
    return Prior("tiny", D, "0", 64, 4, 80.0, "fp32", 1, "", None)


def resolved(**settings):
    source = make_problem(torch.rand(SHAPE), parse("identity | noise:0.1"))
    return resolve(Settings(objective="perception", **settings), source, tiny())


def test_one_sample_draws_no_noise_and_several_do():
    one = resolved()
    assert (one.method, one.sampler, one.eta) == ("flow", "dpm-solver++", 0.0)
    assert one.schedule[0] == one.schedule[1] > one.schedule[2]
    y = torch.rand(SHAPE)
    first, other = (
        restore(y, "identity | noise:0.1", prior=tiny(), settings=Settings(steps=4, seed=seed))
        for seed in (0, 1)
    )
    assert torch.equal(first.image, other.image)
    several = resolved(samples=2)
    assert several.method == "ddnm+:eta_y=0.5"
    assert resolved(eta=0.5).sampler == resolved(method="ddnm+").sampler == "ddim"


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_steps_count_evaluations(steps):
    assert len(resolved(steps=steps).schedule) == steps


def test_another_sampler_is_refused():
    with pytest.raises(SettingsError, match=r"method flow with sampler ddim; expected dpm-"):
        resolved(method="flow", sampler="ddim")
