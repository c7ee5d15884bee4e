"""The least error of denoising, by a network and by filtering what it finds alike."""

from dataclasses import replace

import pytest
import torch

from sfumato.diffusion.collaborative import Collaborative
from sfumato.errors import SettingsError
from sfumato.io import read_picture
from sfumato.metrics import psnr
from sfumato.pipeline import Settings, restore
from sfumato.pipeline.augment import OrientationEnsemble, Unclipped
from sfumato.zoo import load_prior


@pytest.fixture(scope="module")
def photograph():
    return read_picture("examples/photos/chelsea.png").pixels[:, 20:148, 100:228]


def noisy(x, sigma):
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return ((x + sigma * z).clamp(0, 1) * 255).round() / 255


@pytest.mark.parametrize("sigma", [0.06, 0.1, 0.2])
@pytest.mark.parametrize("grey", [False, True])
def test_it_comes_nearer_in_as_many_evaluations(photograph, sigma, grey):
    x = photograph.mean(0, keepdim=True) if grey else photograph
    y = noisy(x, sigma)
    without, by_default = (
        restore(y, f"noise:{sigma}", settings=Settings(collaborative=asked))
        for asked in (False, None)
    )
    assert by_default.report.evaluations_per_tile == without.report.evaluations_per_tile == 10
    told = [r.report.settings["collaborative"] for r in (without, by_default)]
    assert told == [False, True]
    assert psnr(by_default.image, x) > psnr(without.image, x) + 0.01


def test_tiles_lose_little(photograph):
    y = noisy(photograph, 0.1)
    whole, tiles = (restore(y, "noise:0.1", settings=Settings(tile=n)) for n in (128, 80))
    assert tiles.report.tiles == 4
    assert tiles.report.settings["stitch"] == "mask-shift"
    assert abs(psnr(tiles.image, photograph) - psnr(whole.image, photograph)) < 0.05
    assert (tiles.image - whole.image).abs().mean() < 2 / 255


def test_a_model_that_does_not_gain_is_left_alone(photograph):
    prior = replace(load_prior(), collaborative=False)
    y = noisy(photograph[:, :32, :32], 0.1)
    assert not restore(y, "noise:0.1", prior=prior).report.settings["collaborative"]
    asked = restore(y, "noise:0.1", prior=prior, settings=Settings(collaborative=True))
    assert asked.report.settings["collaborative"]


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("average_pool:2", {}),
        ("grayscale", {}),
        ("noise:0.1", {"objective": "perception"}),
        ("noise:0.1", {"objective": "perception", "sampler": "rounds", "steps": 1}),
        ("gaussian_blur:1 | noise:0.1", {"objective": "distortion"}),
    ],
)
def test_elsewhere_it_is_refused_and_not_told_of(photograph, words, settings):
    y = photograph[: 1 if words == "grayscale" else 3, :16, :16]
    with pytest.raises(SettingsError, match="leave out --collaborative"):
        restore(y, words, settings=Settings(collaborative=True, **settings))
    done = restore(y, words, settings=Settings(collaborative=False, **{"steps": 2, **settings}))
    assert "collaborative" not in done.report.settings


@pytest.mark.parametrize("method", ["dps", "pigdm", "mmps"])
def test_methods_that_go_back_through_the_network_do_without(photograph, method):
    y = noisy(photograph[:, :32, :32], 0.1)
    settings = Settings(method=method, sampler="rounds", steps=1, objective="distortion")
    assert "collaborative" not in restore(y, "noise:0.1", settings=settings).report.settings


def test_the_mean_of_all_orientations_is_what_steers_it():
    y = torch.rand((1, 3, 20, 24), generator=torch.Generator().manual_seed(1)) - 0.5

    def lopsided(x_t, sigma):
        return 0.5 * x_t + 0.2 * x_t.roll(1, dims=3)

    D = Unclipped(lopsided, collaborative=True)
    expected = Collaborative(OrientationEnsemble(lopsided))(y, 0.2)
    assert D.evaluations == 10
    assert torch.equal(D(y, 0.2), expected)
    assert not torch.equal(expected, OrientationEnsemble(lopsided)(y, 0.2))
