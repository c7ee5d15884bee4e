"""Each measure against another implementation, and what none of them takes."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.errors import ImageError, SettingsError, ShapeError
from sfumato.evaluation.measure import Shown
from sfumato.evaluation.measures import MEASURES, measure_of, measures_of
from sfumato.io import read_picture
from sfumato.metrics import ShiftTolerantLPIPS
from sfumato.operators import parse

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
BENCHMARK = Path(__file__).parents[3] / "shared" / "data" / "benchmark"
NAMES = ["chelsea.png", "Set5/img_003.png", "Set14/img_002.png", "Set14/img_010.png"]


@pytest.fixture(scope="module", params=NAMES)
def photograph(request):
    path = (PHOTOS if "/" not in request.param else BENCHMARK) / request.param
    if not path.exists():
        pytest.skip(f"{path} is not here")
    x = read_picture(path).pixels[:, :192, :160]
    return x[:, : x.shape[1] // 4 * 4, : x.shape[2] // 4 * 4]


@pytest.fixture(scope="module")
def pair(photograph):
    """A photograph, and what a method might have made of it, rounded to 8 bits."""
    g = torch.Generator().manual_seed(0)
    A = parse("average_pool:2").operator(tuple(photograph.shape))
    x = A.pinv(A(photograph[None]))[0] + 0.03 * torch.randn(photograph.shape, generator=g)
    return ((x.clamp(0, 1) * 255).round() / 255), photograph


def planes(x):
    return x.double().permute(1, 2, 0).numpy()


def luma(x):
    """The integers of MATLAB's table, not rounded, on [0, 1]."""
    rgb = planes(x.expand(3, -1, -1))
    return (rgb @ np.array([65.481, 128.553, 24.966]) + 16) / 255


@pytest.mark.parametrize("border", [0, 4])
def test_psnr_and_ssim_agree_with_scikit_image(pair, border):
    skimage = pytest.importorskip("skimage.metrics")
    shown = Shown(*pair)
    inner = slice(border, -border or None)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for word, view, axis in (("", planes, -1), ("-y", luma, None)):
        a, b = (view(x)[inner, inner] for x in pair)
        want = skimage.peak_signal_noise_ratio(b, a, data_range=1)
        got = measure_of(f"psnr{word}:border={border}").of(shown)
        assert got == pytest.approx(want, abs=1e-4)
        want = skimage.structural_similarity(a, b, data_range=1, channel_axis=axis, **gaussian)
        got = measure_of(f"ssim{word}", border=border).of(shown)
        assert got == pytest.approx(want, abs=1e-4)


def test_psnr_and_ssim_of_colour_agree_on_whole_pictures(photograph):
    """Over many sizes and contents: random parts, against scikit-image's own formulas."""
    skimage = pytest.importorskip("skimage.metrics")
    g = torch.Generator().manual_seed(1)
    for _ in range(3):
        h, w = (int(torch.randint(16, 64, (), generator=g)) for _ in range(2))
        a = photograph[:, :h, :w]
        b = (a + 0.1 * torch.randn(a.shape, generator=g)).clamp(0, 1)
        shown = Shown(b, a)
        want = skimage.peak_signal_noise_ratio(planes(a), planes(b), data_range=1)
        assert MEASURES["psnr"].of(shown) == pytest.approx(want, abs=1e-4)


def test_perceptual_distances_are_the_metrics(pair):
    try:
        want = ShiftTolerantLPIPS()(*pair)
    except SettingsError as error:
        pytest.skip(str(error))
    assert MEASURES["stlpips"].of(Shown(*pair)) == pytest.approx(float(want), abs=1e-6)


@pytest.mark.parametrize("degradation", ["average_pool:4", "bicubic:4"])
def test_consistency_is_the_mean_square_of_what_is_measured(pair, degradation):
    """Pooling by reshaping and bicubic by Pillow's filter: neither is ours."""
    x = pair[0]
    c, h, w = x.shape
    if degradation == "average_pool:4":
        made = x.view(c, h // 4, 4, w // 4, 4).mean((2, 4))
    else:
        image = pytest.importorskip("PIL.Image")
        planes_ = [image.fromarray(p.numpy()) for p in x]  # mode F: floats, not rounded
        small = [p.resize((w // 4, h // 4), image.Resampling.BICUBIC) for p in planes_]
        made = torch.stack([torch.from_numpy(np.array(p)) for p in small])
    y = ((made + 0.02).clamp(0, 1) * 255).round() / 255
    shown = Shown(x, None, y, degradation)
    mse = float((made - y).double().square().mean())
    assert MEASURES["consistency"].of(shown) == pytest.approx(1e5 * mse, rel=1e-4)
    assert MEASURES["rmse-ax"].of(shown) == pytest.approx(255 * mse**0.5, rel=1e-4)


def test_only_measured_values_count():
    """Half the pixels are unknown: what the result has there does not matter."""
    x = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    degradation = "random_mask:0.5:3"
    A = parse(degradation).operator((3, 16, 16))
    y = A(x[None])[0]
    known = A(torch.ones(1, 3, 16, 16))[0]
    result = torch.where(known > 0, x + 0.1, torch.rand(3, 16, 16))
    assert MEASURES["rmse-ax"].of(Shown(result, None, y, degradation)) == pytest.approx(
        25.5, rel=1e-4
    )


def test_grey_is_taken_for_all_three_channels(photograph):
    grey = photograph.mean(0, keepdim=True)
    for word in ("psnr", "psnr-y", "ssim", "ssim-y", "colour-bias"):
        of_grey = MEASURES[word].of(Shown(grey, photograph))
        assert of_grey == pytest.approx(
            MEASURES[word].of(Shown(grey.expand(3, -1, -1), photograph))
        )


def test_luma_of_grey_spans_studio_swing():
    """As of a file with three equal channels: an error of 1 step is one of 219/255."""
    black, dark = torch.zeros(1, 16, 16), torch.full((1, 16, 16), 1 / 255)
    assert MEASURES["psnr-y"].of(Shown(black, dark)) == pytest.approx(
        20 * math.log10(255**2 / 219)
    )


def test_colour_bias_sees_a_veil_and_no_noise():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(3, 32, 32, generator=g) / 2 + 0.2
    noise = 0.05 * torch.randn(3, 32, 32, generator=g)
    noise -= noise.mean((1, 2), keepdim=True)
    veil = torch.tensor([0.02, 0.0, -0.01]).view(3, 1, 1)
    assert MEASURES["colour-bias"].of(Shown(x + noise, x)) == pytest.approx(0, abs=1e-3)
    want = 255 * math.sqrt((0.02**2 + 0.01**2) / 3)
    assert MEASURES["colour-bias"].of(Shown(x + noise + veil, x)) == pytest.approx(want, rel=1e-3)


def test_diversity_is_the_standard_deviation_of_the_samples():
    g = torch.Generator().manual_seed(0)
    samples = list(0.5 + 0.02 * torch.randn(40, 3, 24, 24, generator=g))
    shown = Shown(samples[0], samples=samples[1:])
    want = float(np.std(np.stack([s.double().numpy() for s in samples]), axis=0, ddof=1).mean())
    assert MEASURES["diversity"].of(shown) == pytest.approx(255 * want, rel=1e-6)
    assert want == pytest.approx(0.02, rel=0.02)


def test_a_seam_is_seen_and_its_band_is_that_of_the_picture(photograph):
    x = photograph[:, :128, :128]
    shown = Shown(x, tiles=(64, 0))
    score, low, high = (MEASURES[w].of(shown) for w in ("seam", "seam-low", "seam-high"))
    seamed = x.clone()
    seamed[:, 64:] += 0.1
    assert low <= high
    assert MEASURES["seam"].of(Shown(seamed, tiles=(64, 0))) > max(score, high)
    assert math.isnan(MEASURES["seam"].of(Shown(x, tiles=(128, 0))))


@pytest.mark.parametrize("word", [w for w in MEASURES if "stlpips" not in w])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_by_all(word, value):
    x = torch.rand(3, 32, 32)
    bad = x.clone()
    bad[1, 3, 4] = value
    y = torch.rand(3, 16, 16)
    shown = Shown(bad, x, y, "average_pool:2", (16, 0), [x])
    with pytest.raises(ImageError, match="NaN or infinity in the result"):
        MEASURES[word].of(shown)


def test_sizes_that_differ_are_refused():
    a, b = torch.rand(3, 32, 32), torch.rand(3, 32, 30)
    for word in ("psnr", "psnr-y", "ssim", "ssim-y", "colour-bias", "stlpips"):
        with pytest.raises(ShapeError, match="32 x 32 pixels beside 30 x 32"):
            MEASURES[word].of(Shown(a, b))
    with pytest.raises(
        ShapeError, match=r"a result of shape \(3, 32, 32\); expected \(3, 64, 64\)"
    ):
        MEASURES["consistency"].of(Shown(a, None, a, "average_pool:2"))
    with pytest.raises(ShapeError, match="one or more of the result's shape"):
        MEASURES["diversity"].of(Shown(a, samples=[b]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("psnrr", "the measure 'psnrr'; expected one of psnr, "),
        ("psnr:bored=4", "expected psnr:border=N"),
        ("psnr:border=-1", "expected psnr:border=N"),
        ("consistency:border=4", "expected consistency alone"),
        ("psnr psnr", "the measure psnr twice"),
    ],
)
def test_words_that_are_none_are_refused(text, said):
    with pytest.raises(SettingsError, match=re.escape(said)):
        measures_of(text)


@pytest.mark.parametrize("word", MEASURES)
def test_a_measure_needs_what_it_says(word):
    """Without what it needs it refuses; its protocol is a sentence."""
    measure = MEASURES[word]
    assert len(measure.protocol) > 30
    with pytest.raises((SettingsError, ShapeError)):
        measure.of(Shown(torch.rand(3, 32, 32)))


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "n"), [("Set5", 5), ("Set14", 14)])
def test_all_shared_photographs_agree_with_scikit_image(folder, n):
    """Whole, against what four times fewer pixels leave of them, with the border of the tables."""
    skimage = pytest.importorskip("skimage.metrics")
    paths = sorted((BENCHMARK / folder).glob("*.png"))
    if not paths:
        pytest.skip(f"{BENCHMARK / folder} is not here")
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for path in paths:
        x = read_picture(path).pixels
        x = x[:, : x.shape[1] // 4 * 4, : x.shape[2] // 4 * 4]
        A = parse("bicubic:4").operator(tuple(x.shape))
        u = (A.pinv(A(x[None]))[0].clamp(0, 1) * 255).round() / 255
        for word, view, axis in (("", planes, -1), ("-y", luma, None)):
            a, b = (view(p)[4:-4, 4:-4] for p in (u, x))
            want = skimage.peak_signal_noise_ratio(b, a, data_range=1)
            got = measure_of(f"psnr{word}", border=4).of(Shown(u, x))
            assert got == pytest.approx(want, abs=1e-4)
            want = skimage.structural_similarity(a, b, data_range=1, channel_axis=axis, **gaussian)
            got = measure_of(f"ssim{word}", border=4).of(Shown(u, x))
            assert got == pytest.approx(want, abs=1e-4)
    assert len(paths) == n
