"""What is read window by window is what is in memory; what is written is what is kept."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import DegradationError
from sfumato.io import Picture, masks, open_windows, read_picture, write_picture
from sfumato.operators import Window, parse
from sfumato.pipeline import Settings, restore
from sfumato.pipeline import source as of_files
from sfumato.pipeline.canvas import ArrayStore, GridCanvas
from sfumato.pipeline.files import restore_file
from sfumato.pipeline.problem import by_windows, hole_radius, make_problem
from sfumato.pipeline.source import FileSource, streams
from sfumato.zoo import load_prior

WORDS = [
    "average_pool:2",
    "bicubic:2",
    "grayscale | average_pool:3",
    "random_mask:0.4:3",
    "random_mask:0.5:1 | average_pool:2",
    "identity | noise:0.1",
]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("windows") / "y.png"
    g = torch.Generator().manual_seed(0)
    write_picture(Picture((torch.rand((3, 36, 48), generator=g) * 255).round() / 255), path)
    return path


@pytest.mark.parametrize("words", WORDS)
@given(st.data())
@settings(max_examples=8)
def test_a_file_poses_the_problem_of_a_picture_in_memory(picture, words, data):
    degradation = parse(words)
    windows = open_windows(picture)
    source = FileSource(windows, degradation)
    problem = make_problem(windows.read(0, 0, 36, 48), degradation)
    assert (source.task, source.grey, source.exact) == (
        problem.task, problem.grey, problem.exact
    )  # fmt: skip
    assert source.sigma_y == problem.sigma_y
    assert source.A.in_shape == problem.A.in_shape
    assert streams(picture, degradation) == by_windows(problem.A)
    s = 8 * source.A.locality.stride
    _, h, w = source.A.in_shape
    top, left = (data.draw(st.integers(0, (n - s) // s)) * s for n in (h, w))
    window = Window(top, left, min(2 * s, h - top), min(2 * s, w - left))
    for of_file, of_memory in (
        (source.at(window), problem.at(window)),
        (source.alone(window), problem.alone(window)),
    ):
        assert torch.equal(of_file.measurement.y, of_memory.measurement.y)
        assert torch.equal(of_file.weight, of_memory.weight)
        x = torch.rand((1, *of_file.A.in_shape), generator=torch.Generator().manual_seed(1))
        assert torch.equal(of_file.A(x), of_memory.A(x))


def test_windows_cover_all_once(picture):
    source = FileSource(open_windows(picture), parse("average_pool:3"))
    seen = torch.zeros(source.A.in_shape[1:])
    for window in source.windows(40):
        assert window.top % 3 == window.left % 3 == 0
        window.of(seen).add_(1)
    assert bool((seen == 1).all())


@given(st.integers(1, 6), st.integers(0, 20))
@settings(max_examples=20)
def test_holes_are_measured_on_a_thinned_map(radius, at):
    known = torch.ones(40, 40)
    known[at : at + 2 * radius - 1, at : at + 2 * radius - 1] = 0
    assert radius <= hole_radius(known) <= 1.5 * radius + 1
    assert hole_radius(torch.ones(5, 5)) == 0


def test_a_mask_that_hides_all_is_refused(picture, tmp_path):
    write_picture(Picture(torch.ones(1, 36, 48)), tmp_path / "all.png")
    source = FileSource(open_windows(picture), parse(f"mask:{tmp_path / 'all.png'}"))
    with pytest.raises(DegradationError, match="every pixel is missing"):
        source.hole_radius()


@pytest.mark.parametrize(("bits", "channels"), [(8, 3), (16, 3), (8, 1), (16, 1)])
def test_a_canvas_gives_back_what_is_on_the_grid(bits, channels):
    canvas = GridCanvas(ArrayStore(20, 30, channels, bits), bits)
    top = 2**bits - 1
    rng = np.random.default_rng(0)
    k = torch.from_numpy(rng.integers(0, top + 1, (1, channels, 7, 9)).astype(np.float32))
    x = (2 * (k / top) - 1).expand(1, 3, -1, -1)
    window = Window(5, 6, 7, 9)
    canvas.write(window, x)
    assert torch.equal(canvas.read(window), x)
    assert float(canvas.read(Window(0, 0, 5, 30)).max()) == -1
    canvas.write(window, 3 * torch.ones(1, 3, 7, 9))
    assert torch.equal(canvas.read(window), torch.ones(1, 3, 7, 9))


@pytest.mark.parametrize("words", [*WORDS, "average_pool:2 | random_mask:0.5"])
def test_the_share_of_known_values_is_that_in_memory(picture, words):
    degradation, windows = parse(words), open_windows(picture)
    source = FileSource(windows, degradation)
    problem = make_problem(windows.read(0, 0, 36, 48), degradation)
    for window in source.windows(12):
        assert source.known(window) == problem.known(window)


@pytest.mark.parametrize(
    "missing", [(0, 36, 0, 48), (4, 20, 8, 30), (0, 1, 47, 48), (17, 36, 0, 9)]
)
@pytest.mark.parametrize("look", [7, 16, 100])
def test_a_thinned_map_of_what_is_known_is_that_of_the_whole(
    picture, tmp_path, monkeypatch, missing, look
):
    top, bottom, start, end = missing
    known = torch.ones(36, 48)
    known[top:bottom, start:end] = 0
    write_picture(Picture(1 - known[None]), tmp_path / "mask.png")
    monkeypatch.setattr(of_files, "_MAP", 100)
    source = FileSource(open_windows(picture), parse(f"mask:{tmp_path / 'mask.png'}"))
    monkeypatch.setattr(source, "windows", partial(source.windows, look))
    found, k = source._known()
    assert k == 5
    assert torch.equal(found, torch.nn.functional.max_pool2d(known[None], k, ceil_mode=True)[0])


@pytest.mark.parametrize(
    "choices",
    [{"order": "known-first"}, {"levels": 2}, {"order": "known-first", "overlap": 0}],
    ids=str,
)
def test_a_mask_that_is_read_by_windows_gives_the_same_picture(
    picture, tmp_path, monkeypatch, choices
):
    """From file to file, with the mask in memory and not, and all of it in memory."""
    missing = torch.zeros(1, 36, 48)
    missing[:, 4:20, 8:30] = missing[:, 30, 3:] = 1
    write_picture(Picture(missing), tmp_path / "mask.png")
    words = f"mask:{tmp_path / 'mask.png'}"
    prior = replace(load_prior(), denoiser=shrink, name="stand-in")
    asked = Settings(steps=3, tile=16, stitch="mask-shift", **choices)
    results = []
    for name, most in (("small", 1 << 24), ("large", 0)):
        monkeypatch.setattr(masks, "_IN_MEMORY", most)
        target = tmp_path / f"{name}.png"
        list(restore_file(picture, target, parse(words), prior=prior, settings=asked))
        results.append(read_picture(target).pixels)
    y = read_picture(picture).pixels
    assert torch.equal(results[0], results[1])
    in_memory = restore(y, words, prior=prior, settings=asked).image
    assert torch.equal((255 * results[0]).round(), (255 * in_memory).round())
    assert torch.equal(results[0] * (1 - missing), y * (1 - missing))


def shrink(x_t, sigma):
    """Estimate as for Gaussian data of standard deviation 0.5."""
    return x_t * (0.25 / (0.25 + sigma**2))
