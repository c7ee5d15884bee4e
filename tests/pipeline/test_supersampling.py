"""Smaller factors by a model for larger ones: what is asked for are means, and agrees exactly."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_sr3_restoration import SCALE, a_model, restored

import sfumato
from sfumato._events import exhausted
from sfumato.diffusion import upsampled
from sfumato.errors import SettingsError
from sfumato.io import Picture, read_picture, write_picture
from sfumato.io.canvas import Canvas
from sfumato.operators import AveragePool, Window, parse
from sfumato.pipeline import Settings, stream
from sfumato.pipeline.files import restore_file
from sfumato.pipeline.region import Region
from sfumato.pipeline.supersampling import Means, means, supersampling

TILES = {"tile": 64, "overlap": 40}


def small(word, height, width, channels=3, bits=8):
    """What ``word`` measures of some image in the gamut, rounded."""
    g = torch.Generator().manual_seed(3)
    x = torch.rand(channels, height, width, generator=g) * 0.6 + 0.2
    y = parse(word).operator((channels, height, width))(x[None])[0]
    return (y * (2**bits - 1)).round() / (2**bits - 1)


@pytest.mark.parametrize("word", ["bicubic:2", "average_pool:2"])
@pytest.mark.parametrize("stitch", ["whole", "joint", "mask-shift"])
@pytest.mark.parametrize("objective", ["distortion", "perception"])
def test_the_result_downsamples_to_the_input(word, stitch, objective):
    y = small(word, 40, 54)
    tiles = {} if stitch == "whole" else TILES
    result = restored(a_model(), word, y, stitch=stitch, objective=objective, **tiles)
    assert tuple(result.image.shape) == (3, 40, 54)
    A = parse(word).operator((3, 40, 54))
    rmse = float((A(result.image[None])[0] - y).square().mean().sqrt()) * 255
    assert result.report.consistency_rmse_255 == pytest.approx(rmse, rel=1e-3)
    assert rmse < 0.3
    assert result.report.settings["supersampling"] == 2
    assert (result.report.width, result.report.height) == (54, 40)


def test_it_is_the_mean_of_what_the_model_says():
    y, model = small("bicubic:2", 24, 36), a_model()
    result = restored(model, "bicubic:2", y, objective="distortion", method="none", steps=1)
    large = model.super_resolution.regression(upsampled(2 * y[None] - 1, SCALE)).clamp(-1, 1)
    expected = (AveragePool((3, 48, 72), 2)(large) + 1) / 2
    torch.testing.assert_close(result.image, expected[0], atol=0.51 / 255, rtol=0)


@pytest.mark.parametrize(
    ("words", "times"),
    [("bicubic:4", 1), ("bicubic:2", 2), ("average_pool:2 | noise:0.1", 2), ("identity", 1),
     ("bicubic:3", 1), ("bicubic:2 | bicubic:2", 1), ("bicubic:8", 1)],
)  # fmt: skip
def test_only_factors_that_divide_the_model_s(words, times):
    assert supersampling(a_model(), parse(words)) == times
    assert supersampling(replace(a_model(), super_resolution=None), parse(words)) == 1


def test_half_of_the_steps_will_do():
    y = small("bicubic:2", 24, 36)
    assert restored(a_model(), "bicubic:2", y).report.evaluations_per_tile == 2
    regression = restored(a_model(), "bicubic:2", y, objective="distortion").report
    assert regression.evaluations_per_tile == 4
    asked = restored(a_model(), "bicubic:2", y, steps=5).report
    assert len(asked.settings["schedule"]) == 5


@given(
    st.integers(1, 4),
    st.sampled_from([8, 16]),
    st.lists(st.integers(0, 65535), min_size=16, max_size=16),
)
def test_means_are_rounded_once(times, bits, numbers):
    values = np.array(numbers[: times**2], np.uint16).reshape(times, times, 1)
    mean = Fraction(int(values.sum(dtype=np.int64)), times**2) * (2**bits - 1) / 65535
    found = int(means(values, times, bits)[0, 0, 0])
    assert abs(found - mean) <= Fraction(1, 2)


def test_means_of_a_canvas_are_those_of_its_windows(tmp_path):
    g = np.random.default_rng(0)
    values = g.integers(0, 65536, (36, 48, 3), np.uint16)
    canvas = Canvas.create(tmp_path / "canvas", values.shape, 16, (16, 16))
    canvas.write(0, 0, values)
    seen, whole = Means(canvas, 2, 8), means(values, 2, 8)
    assert (seen.height, seen.width, seen.channels, seen.bits) == (18, 24, 3, 8)
    assert (seen.read(3, 5, 10, 12) == whole[3:13, 5:17]).all()


@pytest.mark.parametrize("word", ["bicubic:2", "average_pool:2"])
@pytest.mark.parametrize(("channels", "bits"), [(3, 8), (3, 16), (1, 8)])
def test_from_file_to_file_it_has_the_same_bits(tmp_path, word, channels, bits):
    y = small(word, 40, 76, channels, bits)
    source, target = tmp_path / "small.tif", tmp_path / "large.tif"
    write_picture(Picture(y, bits=bits), source)
    asked = Settings(stitch="mask-shift", **TILES)
    list(restore_file(source, target, parse(word), prior=a_model(), settings=asked))
    in_memory = sfumato.restore(y, word, prior=a_model(), settings=asked, bits=bits)
    written = read_picture(target)
    top = 2**bits - 1
    assert written.bits == bits
    assert torch.equal((written.pixels * top).round(), (in_memory.image * top).round())


def test_alpha_grows_with_it(tmp_path):
    y, source, target = small("bicubic:2", 40, 76), tmp_path / "a.png", tmp_path / "b.png"
    alpha = torch.linspace(0, 1, 38).expand(1, 20, 38)
    write_picture(Picture(y, alpha=alpha), source)
    settings = Settings(stitch="mask-shift", **TILES)
    list(restore_file(source, target, parse("bicubic:2"), prior=a_model(), settings=settings))
    assert tuple(read_picture(target).alpha.shape) == (1, 40, 76)


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    y, source = small("bicubic:2", 60, 140), tmp_path / "small.png"
    write_picture(Picture(y), source)
    results = []
    for stopped in (False, True):
        target = tmp_path / f"{stopped}.png"
        how = {"prior": a_model(), "settings": Settings(stitch="mask-shift", **TILES)}
        if stopped:
            events = restore_file(source, target, parse("bicubic:2"), **how)
            for _ in range(12):
                next(events)
            events.close()
            assert target.with_name("True.png.job").is_dir()
            assert not target.exists()
        list(restore_file(source, target, parse("bicubic:2"), **how))
        results.append(read_picture(target).pixels)
    assert torch.equal(*results)


@pytest.mark.parametrize("stitch", ["whole", "mask-shift"])
def test_a_region_is_one_of_what_was_asked_for(tmp_path, stitch):
    """With a denoiser that says the interpolated picture, it is that of the whole."""

    class Echo:
        def given(self, condition):
            return lambda x, sigma: condition

        def __call__(self, x, sigma):
            raise AssertionError

    y, source = small("average_pool:2", 80, 120), tmp_path / "small.png"
    write_picture(Picture(y), source)
    prior = replace(a_model(), denoiser=Echo())
    how = {"prior": prior, "settings": Settings(stitch=stitch, **TILES)}
    parts, reports = {}, {}
    regions = {"whole": None, "all": Window(0, 0, 80, 120), "part": Window(20, 31, 30, 41)}
    for name, window in regions.items():
        target, region = tmp_path / f"{name}.png", window and Region(window)
        events = restore_file(source, target, parse("average_pool:2"), **how, region=region)
        reports[name] = exhausted(events)
        parts[name] = read_picture(target).pixels
    full = reports["whole"].consistency_rmse_255
    assert 0.05 < full < 0.3
    assert reports["all"].consistency_rmse_255 == pytest.approx(full, rel=0.02)
    assert tuple(parts["part"].shape) == (3, 30, 41)
    difference = parts["whole"][:, 20:50, 31:72] - parts["part"]
    assert float(difference.abs().max()) < 1.01 / 255
    outside = Region(Window(60, 100, 30, 30))
    with pytest.raises(SettingsError, match="inside of the result's 120 x 80 pixels"):
        list(restore_file(source, target, parse("average_pool:2"), **how, region=outside))


def test_an_image_to_begin_from_is_of_the_size_that_was_asked_for():
    y = small("average_pool:2", 24, 36)
    start = (y.repeat_interleave(2, -1).repeat_interleave(2, -2)).contiguous()
    settings = Settings(start_noise=0.05)
    result = exhausted(
        stream(y, "average_pool:2", prior=a_model(), settings=settings, start=start)
    )
    assert tuple(result.image.shape) == (3, 24, 36)
    assert result.report.consistency_rmse_255 < 0.3
