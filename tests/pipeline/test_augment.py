"""Orientations undo themselves; values that were clipped are completed as they should be."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sfumato.diffusion import NoiseField
from sfumato.io import read_picture
from sfumato.metrics import psnr
from sfumato.operators import parse
from sfumato.pipeline import Settings, restore
from sfumato.pipeline.augment import (
    AlternatingOrientation,
    OrientationEnsemble,
    Unclipped,
    oriented,
    restored,
)


@given(st.integers(0, 7), st.integers(1, 6), st.integers(1, 6))
def test_orientations_undo_themselves(k, h, w):
    x = torch.arange(float(h * w)).reshape(1, 1, h, w)
    assert torch.equal(restored(oriented(x, k), k), x)


def test_the_eight_orientations_differ():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    seen = {tuple(oriented(x, k).flatten().tolist()) for k in range(8)}
    assert len(seen) == 8


def lopsided(x, sigma):
    """A denoiser that is not the same in all orientations."""
    return x + 0.1 * F.pad(x, (1, 0))[..., :-1]


class Counted:
    """A denoiser that takes several evaluations of a network, and counts its calls."""

    def __init__(self, evaluations):
        self.evaluations, self.calls = evaluations, 0

    def __call__(self, x_t, sigma):
        self.calls += 1
        return x_t


@pytest.mark.parametrize(
    ("each", "ensemble", "unclipped"),
    [(1, 8, 10), (2, 8, 10), (3, 6, 9), (8, 8, 16), (20, 20, 40)],
)
def test_ensembles_take_as_many_evaluations_as_they_say(each, ensemble, unclipped):
    x = torch.rand((1, 3, 6, 9))
    for kind, expected in ((OrientationEnsemble, ensemble), (Unclipped, unclipped)):
        denoiser = Counted(each)
        D = kind(denoiser)
        D(x, 0.1)
        assert denoiser.calls * each == D.evaluations == expected
    walk = AlternatingOrientation(Counted(each), [0.1])
    assert walk.evaluations == each


def test_ensembles_do_not_depend_on_the_orientation():
    x = torch.rand((1, 3, 6, 9), generator=torch.Generator().manual_seed(0))
    ensemble = OrientationEnsemble(lopsided)
    for k in range(8):
        turned = restored(ensemble(oriented(x, k), 1.0), k)
        torch.testing.assert_close(turned, ensemble(x, 1.0))
    steps = AlternatingOrientation(lopsided, [2.0, 1.0])
    assert not torch.equal(steps(x, 2.0), steps(x, 1.0))


def test_a_share_of_a_step_goes_so_far():
    x = torch.rand((1, 3, 6, 9), generator=torch.Generator().manual_seed(0))
    whole, part = (AlternatingOrientation(lopsided, [2.0, 1.0], s) for s in (1.0, 0.25))
    for sigma in (2.0, 1.0):
        torch.testing.assert_close(part(x, sigma) - x, (whole(x, sigma) - x) / 4)


@pytest.mark.parametrize("degradation", ["scratch_mask:4", "average_pool:4"])
def test_more_rounds_lead_to_the_same_image(degradation):
    """A network that sees its own answers a hundred times exaggerates them, by 1 dB and more."""
    x = read_picture("examples/photos/chelsea.png").pixels[:, 20:68, 200:248]
    y = parse(degradation).operator((3, 48, 48))(x[None])[0].clamp(0, 1)
    few, more = (
        restore(y, degradation, settings=Settings(objective="distortion", steps=n)).image
        for n in (20, 100)
    )
    assert float(psnr(more, x)) > float(psnr(few, x)) - 0.2


@pytest.mark.parametrize("grey", [False, True])
def test_clipped_noise_no_longer_greys_white_and_black(grey):
    """A picture of white, grey and black: the local mean of the clipped values is off by 0.4 σ."""
    sigma, x = 0.2, torch.ones(1, 3, 48, 96)
    x[..., 32:64], x[..., 64:] = 0.1, -1.0
    z = NoiseField(3)(draw=0, top=0, left=0, shape=(3, 48, 96))[None]
    if grey:
        z = z[:, :1].expand(-1, 3, -1, -1)
    y = (x + sigma * z).clamp(-1, 1)

    def mean_of_each(v, _):
        parts = [p.mean((2, 3), keepdim=True).expand_as(p) for p in v.split(32, 3)]
        return torch.cat(parts, 3).clamp(-1, 1)

    def upright(v, s):
        return mean_of_each(v, s) if v.shape[-1] == 96 else mean_of_each(v.mT, s).mT

    std = sigma * 3**0.5 if grey else sigma
    before = (OrientationEnsemble(upright)(y, std) - x).abs().mean()
    after = (Unclipped(upright, grey=grey)(y, std) - x).abs().mean()
    assert float(before) > 0.25 * sigma
    assert float(after) < 0.3 * float(before)
