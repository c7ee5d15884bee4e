"""Each measure against another implementation, and what none of them takes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.evaluation.measure import Shown
from sfumato.evaluation.measures import measure_of
from sfumato.io import read_picture
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
