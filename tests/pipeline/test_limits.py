"""Priors of a fixed size, and of a small range of noise: what the network is asked."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sfumato.diffusion.parameterisation import EDM
from sfumato.diffusion.published import PublishedDenoiser
from sfumato.errors import SettingsError
from sfumato.io import Picture, write_picture
from sfumato.pipeline import make_settings, restore
from sfumato.pipeline.limits import at_most
from sfumato.pipeline.trial import Trial
from sfumato.tiling import TilePlan
from sfumato.zoo import Prior

TILE = 16


class Smooth(nn.Module):
    """A network that takes means of nine pixels; it remembers the noise that it was told."""

    def __init__(self):
        super().__init__()
        self.levels = []

    def forward(self, x, level):
        self.levels += level.tolist()
        return nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x


class Watched:
    """A denoiser that remembers the sizes of images and the noise it was given."""

    def __init__(self, denoiser):
        self.denoiser = denoiser
        self.sizes, self.sigmas = [], []

    def __call__(self, x_t, sigma):
        self.sizes.append(tuple(x_t.shape[2:]))
        self.sigmas.append(float(torch.as_tensor(sigma).max()))
        return self.denoiser(x_t, sigma)


def prior(*, fixed_size=True, sigma_max=80.0):
    denoiser = PublishedDenoiser(
        Smooth(), EDM(0.5), stride=TILE if fixed_size else 2, fixed_size=fixed_size
    )
    return Prior(
        name="small",
        denoiser=Watched(denoiser),
        digest="",
        tile=TILE,
        stride=denoiser.stride,
        sigma_max=sigma_max,
        precision="fp32",
        n_parameters=0,
        card="",
        source=Path("small"),
        fixed_size=fixed_size,
    )


def picture(height, width, channels=3):
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(0))


class TestFixedSize:
    @pytest.mark.parametrize("stitch", ["mask-shift", "joint", "independent"])
    def test_larger_pictures_are_seen_in_tiles_of_that_size(self, stitch):
        p = prior()
        settings = make_settings(steps=2, stitch=stitch)
        result = restore(picture(20, 13), "average_pool:2", prior=p, settings=settings)
        assert result.image.shape == (3, 40, 26)
        assert set(p.denoiser.sizes) == {(TILE, TILE)}
        assert result.report.settings["tile"] == TILE

    @pytest.mark.parametrize("words", ["average_pool:3", "bicubic:2", "random_mask:0.7"])
    def test_no_tile_is_larger_whatever_was_measured(self, words):
        p = prior()
        restore(picture(11, 15), words, prior=p, settings=make_settings(steps=2))
        assert max(n for size in p.denoiser.sizes for n in size) <= TILE

    def test_joint_tiles_do_not_care_for_cells(self):
        p = prior()
        settings = make_settings(steps=1, stitch="joint")
        restore(picture(11, 9), "average_pool:3", prior=p, settings=settings)
        assert set(p.denoiser.sizes) == {(TILE, TILE)}

    def test_smaller_pictures_are_one_tile(self):
        p = prior()
        result = restore(picture(5, 7), "average_pool:2", prior=p, settings=make_settings(steps=2))
        assert result.report.tiles == 1
        assert set(p.denoiser.sizes) == {(10, 14)}

    def test_other_tiles_are_refused(self):
        with pytest.raises(SettingsError, match=r"--tile 32 with small, .* leave out --tile"):
            restore(picture(20, 20), "identity", prior=prior(), settings=make_settings(tile=32))
        settings = make_settings(tile=TILE, steps=1)
        restore(picture(20, 20), "random_mask:0.5", prior=prior(), settings=settings)

    def test_the_whole_of_a_larger_picture_is_refused(self):
        settings = make_settings(stitch="whole", steps=1)
        restore(picture(8, 8), "average_pool:2", prior=prior(), settings=settings)
        with pytest.raises(SettingsError, match="at most 16 x 16"):
            restore(picture(9, 8), "average_pool:2", prior=prior(), settings=settings)

    def test_it_is_tried_out_with_its_own_size(self):
        p = prior()
        trial = Trial(p)
        assert trial.seconds(8, 8) > 0
        assert trial.bytes_per_pixel() > 0
        assert set(p.denoiser.sizes) == {(TILE, TILE)}

    @given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 7), st.integers(0, 2))
    def test_the_last_tile_fits_too(self, height, width, stride, overlap):
        tile = at_most(TILE, (height, width), stride)
        plan = TilePlan(height, width, tile, min(overlap, tile - stride), stride)
        assert max(max(t.size) for t in plan.tiles) <= TILE


class TestSmallRange:
    """As DRUNet's: up to 50/255, which is 0.39 on [-1, 1]."""

    MOST = 100 / 255

    @pytest.mark.parametrize("objective", ["distortion", "perception"])
    @pytest.mark.parametrize(
        "words",
        ["average_pool:2", "bicubic:2", "random_mask:0.6", "grayscale", "gaussian_blur:1",
         "walsh_hadamard:0.5:4", "noise:0.1"],
    )  # fmt: skip
    def test_every_task_stays_within_it(self, words, objective):
        p = prior(fixed_size=False, sigma_max=self.MOST)
        steps = 1 if words == "noise:0.1" and objective == "distortion" else 3
        settings = make_settings(steps=steps, objective=objective)
        y = picture(16, 16, 1 if words == "grayscale" else 3)
        result = restore(y, words, prior=p, settings=settings)
        assert result.image.isfinite().all()
        assert max(p.denoiser.sigmas) <= self.MOST + 1e-6
        assert result.report.settings["known_start"] or words == "noise:0.1"

    def test_a_hole_is_filled_from_around(self, tmp_path):
        missing = torch.zeros(1, 24, 24)
        missing[:, 6:18, 6:18] = 1
        write_picture(Picture(missing), tmp_path / "mask.png")
        u = torch.full((3, 24, 24), 0.8)
        p = prior(fixed_size=False, sigma_max=self.MOST)
        words = f"mask:{tmp_path / 'mask.png'}"
        result = restore(u * (1 - missing), words, prior=p, settings=make_settings(steps=8))
        assert (result.image - u).abs().mean() < 0.05

    def test_what_needs_more_noise_is_refused(self):
        p = prior(fixed_size=False, sigma_max=self.MOST)
        with pytest.raises(SettingsError, match=r"noise of 51/255 with small, .* up to 50/255"):
            restore(picture(8, 8), "noise:0.2", prior=p)
        with pytest.raises(SettingsError, match="an image from nothing"):
            restore(picture(8, 8), "nothing", prior=p)
        for settings in (make_settings(schedule=(1, 0.1)), make_settings(start_noise=0.5)):
            with pytest.raises(SettingsError, match="noise of 128/255"):
                restore(picture(8, 8), "average_pool:2", prior=p, settings=settings)

    def test_others_begin_with_pure_noise_as_ever(self):
        p = prior(fixed_size=False)
        settings = make_settings(steps=2, objective="perception", levels=1)
        result = restore(picture(32, 32), "box_mask:0.6", prior=p, settings=settings)
        assert not result.report.settings["known_start"]
        assert max(p.denoiser.sigmas) == 20.0

    @pytest.mark.parametrize(("objective", "first"), [("perception", 0.25), ("distortion", 1.0)])
    def test_small_holes_begin_with_what_their_border_says(self, objective, first):
        p = prior(fixed_size=False)
        settings = make_settings(steps=2, objective=objective)
        result = restore(picture(32, 32), "box_mask:0.25", prior=p, settings=settings)
        assert result.report.settings["known_start"]
        assert max(p.denoiser.sigmas) == first

    def test_small_holes_in_noise_begin_above_it(self):
        p = prior(fixed_size=False)
        settings = make_settings(steps=2, objective="perception")
        restore(picture(32, 32), "box_mask:0.25 | noise:0.2", prior=p, settings=settings)
        assert max(p.denoiser.sigmas) == pytest.approx(1.0)
