"""Restoring with an SR3 model: its task, its condition, its regression, and exact consistency."""

from dataclasses import replace

import pytest
import torch

import sfumato
from sfumato.diffusion import repeated, resampled, upsampled
from sfumato.diffusion.sr3 import SR3Denoiser
from sfumato.errors import ModelError, SettingsError
from sfumato.nn import UNetConfig, seeded_unet
from sfumato.operators import parse
from sfumato.pipeline import Settings, augment
from sfumato.pipeline.refinement import Regression, embedded_for
from sfumato.zoo import Prior, SuperResolution

SCALE = 4


def a_model(regression=True, **changes):
    net = seeded_unet(UNetConfig((4, 8), 1, 2, 8, inputs=6), 0)
    g = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(net.tail[-1].weight, std=0.5, generator=g)
    D = SR3Denoiser(net, "edm", stride=4, sigma_data=0.1).eval().requires_grad_(False)
    task = SuperResolution(
        scale=SCALE,
        kernel="bicubic",
        regression=D.regression if regression else None,
        sigmas=(1.0, 0.3, 0.1),
        sampler="sr3",
        eta=None,
        relative=True,
    )
    task = replace(task, **changes)
    return Prior("a", D, "0", 64, 4, 80.0, "fp32", 1, "", None, super_resolution=task)


def picture(h=12, w=17):
    g = torch.Generator().manual_seed(0)
    return (torch.rand(3, h, w, generator=g) * 0.6 + 0.2).mul(255).round() / 255


def restored(prior, degradation="bicubic:4", y=None, **settings):
    y = picture() if y is None else y
    return sfumato.restore(y, degradation, prior=prior, settings=Settings(**settings))


def test_its_own_schedule_and_sampler_are_taken():
    report = restored(a_model()).report
    assert report.settings["sampler"] == "sr3"
    assert tuple(report.settings["schedule"]) == (1.0, 0.3, 0.1)
    assert report.evaluations_per_tile == 3
    other = restored(a_model(sampler="ddim", eta=0.5), steps=5).report
    assert (other.settings["sampler"], other.settings["eta"]) == ("ddim", 0.5)
    assert len(other.settings["schedule"]) == 5
    given = restored(a_model(), schedule=(0.5, 0.2)).report
    assert tuple(given.settings["schedule"]) == (0.5, 0.2)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50])
def test_schedules_of_other_lengths_run_through_the_same_levels(n):
    sigmas = resampled((1.0, 0.3, 0.1), n)
    assert len(sigmas) == n
    assert sigmas[0] == pytest.approx(1.0)
    assert list(sigmas) == sorted(set(sigmas), reverse=True)
    assert n == 1 or sigmas[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("kernel", ["bicubic", "average_pool"])
@pytest.mark.parametrize("stitch", ["whole", "joint", "mask-shift"])
def test_the_result_downsamples_to_the_input(kernel, stitch):
    # What the kernel made of an image in the gamut.
    x = torch.rand(3, 80, 108, generator=torch.Generator().manual_seed(2)) * 0.6 + 0.2
    y = sfumato.parse(f"{kernel}:4").operator((3, 80, 108))(x[None])[0]
    y = (255 * y).round() / 255
    tiles = {} if stitch == "whole" else {"tile": 64, "overlap": 40}
    result = restored(a_model(), f"{kernel}:4", y, stitch=stitch, **tiles)
    assert result.report.consistency_rmse_255 < 0.5
    free = restored(a_model(), f"{kernel}:4", y, stitch=stitch, method="none", **tiles)
    assert free.report.consistency_rmse_255 > 1


def test_the_regression_in_one_step_is_one_evaluation():
    y, model = picture(), a_model()
    result = restored(model, y=y, objective="distortion", method="none", steps=1)
    expected = model.super_resolution.regression(upsampled(2 * y[None] - 1, SCALE))
    expected = (255 * (expected.clamp(-1, 1) + 1) / 2).round() / 255
    torch.testing.assert_close(result.image, expected[0], atol=1e-6, rtol=0)
    assert result.report.evaluations_per_tile == 1
    assert restored(model, y=y, objective="distortion").report.consistency_rmse_255 < 0.5


@pytest.mark.parametrize("k", [1, 3, 4, 7])
def test_a_regression_in_eight_orientations_does_not_care_for_one(k):
    task, condition = a_model().super_resolution, upsampled(2 * picture()[None] - 1, SCALE)

    def turned_back(n, k):
        turned = augment.oriented(condition, k)
        return augment.restored(Regression(task, n).given(turned)(turned, 1.0), k)

    torch.testing.assert_close(turned_back(8, k), turned_back(8, 0), atol=1e-5, rtol=0)
    assert not torch.allclose(turned_back(1, k), turned_back(1, 0), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("steps", "n"), [(None, 8), (1, 1), (2, 2)])
def test_steps_of_a_regression_are_orientations(steps, n):
    result = restored(a_model(), objective="distortion", steps=steps)
    assert result.report.evaluations_per_tile == result.report.settings["steps"] == n


@pytest.mark.parametrize(
    ("word", "changes", "settings"),
    [
        ("bicubic", {}, {}),
        ("average_pool", {}, {}),
        ("average_pool", {"kernel": "average_pool"}, {}),
        ("average_pool", {"pooled": True}, {}),
        ("average_pool", {}, {"method": "none"}),
        ("average_pool", {}, {"steps": 1}),
        ("average_pool", {}, {"steps": 4}),
    ],
)
def test_one_round_is_enough(word, changes, settings):
    model = a_model(**changes)
    report = restored(model, f"{word}:4", objective="distortion", **settings).report
    assert len(report.settings["schedule"]) == 1
    assert report.evaluations_per_tile == settings.get("steps", 8)


@pytest.mark.parametrize("stitch", ["joint", "mask-shift"])
@pytest.mark.parametrize("word", ["bicubic", "average_pool"])
@pytest.mark.parametrize("pooled", [False, True])
def test_tiles_see_the_condition_of_the_whole_image(stitch, word, pooled):
    """With a denoiser that says its condition, tiles make the interpolated picture.

    Or, for a model that was shown means as blocks, these.
    """

    class Echo:
        def given(self, condition):
            return lambda x, sigma: condition

        def __call__(self, x, sigma):
            raise AssertionError

    y = picture(30, 41)
    model = replace(a_model(pooled=pooled), denoiser=Echo())
    settings = {"stitch": stitch, "method": "none", "tile": 64, "overlap": 40}
    x = restored(model, f"{word}:{SCALE}", y, **settings).image
    enlarged = repeated if pooled and word == "average_pool" else upsampled
    expected = (enlarged(2 * y[None] - 1, SCALE) + 1) / 2
    assert float((x - expected[0]).abs().max()) < 0.51 / 255


def test_a_grey_picture_stays_grey():
    x = restored(a_model(), y=picture().mean(0, keepdim=True)).image
    assert tuple(x.shape) == (1, 48, 68)


@pytest.mark.parametrize(
    "degradation",
    ["bicubic:3", "average_pool:8", "identity", "grayscale", "bicubic:4 | grayscale"],
)
def test_other_tasks_are_refused(degradation):
    y = picture() if "grayscale" not in degradation else picture()[:1]
    with pytest.raises(
        SettingsError, match="expected super-resolution by 2 or 4; use upscale -s 4"
    ):
        restored(a_model(), degradation, y)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "distortion", "steps": 9}, "expected up to 8 evaluations"),
        ({"objective": "distortion", "schedule": (1.0,)}, "expected up to 8 evaluations"),
        ({"schedule": (1.0, 0.5), "steps": 3}, "expected one of them"),
        ({"levels": 2}, "2 levels with an SR3 model"),
        ({"sampler": "rounds"}, "sampler rounds with an SR3 model"),
        ({"schedule": (0.1, 0.2)}, "decrease"),
        ({"schedule": ()}, "decrease"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        restored(a_model(), **settings)


def test_a_regression_model_is_used_as_one():
    model = a_model(samples=False)
    assert restored(model).report.evaluations_per_tile == 8
    with pytest.raises(SettingsError, match="--objective distortion"):
        restored(model, objective="perception")


def test_refining_starts_from_the_noise_asked_for():
    schedule = restored(a_model(), start_noise=0.1).report.settings["schedule"]
    assert tuple(schedule) == (0.2, 0.1)


def test_a_model_without_a_regression_says_so():
    with pytest.raises(SettingsError, match="knows no regression"):
        restored(a_model(regression=False), objective="distortion")


@pytest.mark.parametrize(
    ("degradation", "settings", "name"),
    [
        ("bicubic:4", {}, "sr3"),
        ("average_pool:4", {"objective": "distortion", "steps": 8, "seed": 3}, "sr3"),
        ("bicubic:4", {"steps": 50, "tile": 64, "method": "none", "samples": 2}, "sr3"),
        ("bicubic:4", {"objective": "distortion", "steps": 9}, "embedded"),
        ("bicubic:4", {"method": "ddnm"}, "embedded"),
        ("bicubic:4", {"eta": 0.5, "sampler": "sr3", "schedule": (0.5, 0.1)}, "sr3"),
        ("bicubic:4", {"sampler": "rounds"}, "embedded"),
        ("bicubic:4", {"objective": "distortion", "schedule": (0.5, 0.1)}, "embedded"),
        ("bicubic:4", {"levels": 1}, "sr3"),
        ("bicubic:4", {"levels": 2}, "embedded"),
        ("bicubic:4 | noise:0.02", {}, "embedded"),
        ("grayscale | bicubic:4", {}, "embedded"),
        ("bicubic:2", {}, "sr3"),
        ("average_pool:2", {"samples": 2}, "sr3"),
        ("bicubic:2", {"method": "dps"}, "embedded"),
        ("bicubic:2 | noise:0.02", {}, "embedded"),
        ("bicubic:3", {}, "embedded"),
        ("bicubic:8", {}, "embedded"),
        ("identity | noise:0.1", {}, "embedded"),
        ("noise:0.1", {"objective": "distortion", "tile": 64}, "embedded"),
        ("identity | noise:0.1", {"objective": "perception"}, "embedded"),
        ("identity | noise:0.1", {"samples": 2}, "embedded"),
        ("identity | noise:0.1", {"steps": 4}, "embedded"),
        ("identity | noise:0.1", {"method": "flow"}, "embedded"),
        ("gaussian_blur:2 | noise:0.1", {}, "embedded"),
    ],
)
def test_the_model_that_comes_with_the_package_goes_by_the_task(degradation, settings, name):
    assert embedded_for(parse(degradation), Settings(**settings)) == name


@pytest.mark.parametrize(("scale", "name"), [(4, "sr3"), (2, "sr3"), (3, "embedded")])
def test_a_picture_is_restored_by_it(scale, name):
    assert restored(None, f"bicubic:{scale}", picture(8, 8), steps=1).report.model == name


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_bits_do_not_depend_on_the_batch(batch):
    y = picture(30, 41)
    tiles = {"y": y, "tile": 48, "overlap": 16, "stitch": "joint"}
    assert torch.equal(
        restored(a_model(), batch=batch, **tiles).image, restored(a_model(), **tiles).image
    )


def test_a_model_may_be_named():
    by_name = restored("embedded", "bicubic:4", picture(8, 8), steps=1)
    loaded = restored(sfumato.load_prior("embedded"), "bicubic:4", picture(8, 8), steps=1)
    assert torch.equal(by_name.image, loaded.image)
    with pytest.raises(ModelError, match=r"nowhere\.safetensors"):
        restored("nowhere.safetensors", "bicubic:4", picture(8, 8), steps=1)
