"""Baselines do what their laws say, and say so where they cannot do a task."""

import pytest
import torch
from skimage import restoration

from sfumato.errors import SettingsError
from sfumato.evaluation.baselines import BASELINES, Classical
from sfumato.evaluation.posed import pose
from sfumato.metrics import psnr

ENLARGING = ("bicubic", "back-projection")
DENOISING = ("total-variation", "non-local-means")


def answer(use, posed):
    return Classical(use, use).answer(posed).x


def rms(x):
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize("words", ["bicubic:2", "average_pool:4"])
def test_back_projection_explains_the_measurement(words, photo):
    posed = pose(words, "x", photo, 0)

    def off(use):
        return 255 * rms(posed.A(answer(use, posed)[None])[0] - posed.y)

    assert off("back-projection") < 0.5 < off("bicubic")
    assert off("back-projection:rounds=2") > off("back-projection")


@pytest.mark.parametrize("words", ["bicubic:4", "average_pool:2"])
def test_constant_pictures_stay_constant(words):
    x = torch.full((3, 16, 24), 100 / 255)
    for use in ENLARGING:
        assert torch.equal(answer(use, pose(words, "x", x, 0)), x)


def test_grey_is_without_colour_and_explains_the_measurement(photo):
    posed = pose("grayscale", "x", photo, 0)
    x = answer("grey", posed)
    assert torch.equal(x, x[:1].expand_as(x))
    assert 255 * rms(posed.A(x[None])[0] - posed.y) < 0.5
    with pytest.raises(SettingsError, match=r"average_pool:2; expected a grey picture"):
        answer("grey", pose("average_pool:2", "x", photo, 0))


@pytest.mark.parametrize("use", DENOISING)
@pytest.mark.parametrize("level", [15, 50])
def test_denoisers_take_noise_away(use, level, photo):
    posed = pose(f"identity | noise:{level / 255}", "x", photo, 0)
    assert psnr(answer(use, posed), photo) > psnr(posed.y, photo) + 2


def test_total_variation_takes_away_as_much_as_the_noise(photo):
    posed = pose("identity | noise:0.05", "x", 0.2 + 0.6 * photo, 0)
    assert rms(answer("total-variation", posed) - posed.y) == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("use", DENOISING)
def test_denoisers_enlarge_what_is_small_and_noisy(use, photo):
    posed = pose("average_pool:2 | noise:0.1", "x", photo, 0)
    assert psnr(answer(use, posed), photo) > psnr(answer("bicubic", posed), photo) + 1


@pytest.mark.parametrize("words", ["gaussian_blur:1.5", "motion_blur:7:30"])
def test_richardson_and_lucy_sharpen(words, photo):
    posed = pose(words, "x", photo, 0)
    assert psnr(answer("richardson-lucy", posed), photo) > psnr(posed.y, photo) + 2


def test_far_from_the_border_it_is_scikit_images():
    x = torch.zeros(1, 48, 48)
    noise = torch.rand(14, 14, generator=torch.Generator().manual_seed(0))
    x[:, 16:30, 18:32] = noise
    posed = pose("anisotropic_blur:1.5:0.7:20", "x", x, 0)
    kernel = posed.blur().kernel.numpy()
    theirs = restoration.richardson_lucy(
        posed.y[0].double().clamp(min=1e-4).numpy(), kernel, num_iter=8
    )
    ours = answer("richardson-lucy:rounds=8", posed)[0, 16:30, 18:32]
    assert rms(ours - torch.from_numpy(theirs)[16:30, 18:32]) < 0.01 < rms(noise - ours)


@pytest.mark.parametrize("words", ["random_mask:0.5", "box_mask:0.2", "scratch_mask:3"])
def test_biharmonic_keeps_what_is_known(words, photo):
    posed = pose(words, "x", photo, 0)
    x, known = answer("biharmonic", posed), posed.known().bool().expand_as(photo)
    assert torch.equal(x[known], photo[known])
    assert psnr(x, photo) > psnr(posed.y, photo) + 10


def test_the_pseudo_inverse_explains_the_measurement(photo):
    for words in ("grayscale", "walsh_hadamard:0.25:16", "average_pool:4"):
        posed = pose(words, "x", photo, 0)
        x = posed.A.pinv(posed.y[None])[0]
        assert rms(answer("pseudo-inverse", posed) - x.clamp(0, 1)) < 0.5 / 255


@pytest.mark.parametrize("use", sorted(set(BASELINES) - {"grey"}))
def test_grey_pictures_stay_grey(use, photo):
    words = {"richardson-lucy": "uniform_blur:3", "biharmonic": "random_mask:0.6"}
    words |= dict.fromkeys(DENOISING, "identity | noise:0.1")
    posed = pose(words.get(use, "bicubic:2"), "x", photo[:1], 0)
    assert answer(use, posed).shape == (1, 48, 40)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        ("bicubic", "grayscale"),
        ("back-projection", "average_pool:2 | grayscale"),
        ("total-variation", "average_pool:2"),
        ("non-local-means", "random_mask:0.5 | noise:0.1"),
        ("richardson-lucy", "identity"),
        ("biharmonic", "random_mask:0.5 | noise:0.1"),
        ("biharmonic", "bicubic:2"),
    ],
)
def test_what_a_baseline_cannot_do_it_says(use, words, photo):
    with pytest.raises(SettingsError, match="; expected a ") as told:
        answer(use, pose(words, "x", photo, 0))
    assert "\n" not in str(told.value)
