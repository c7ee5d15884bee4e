"""Levels of operators with a halo, by tiles: each level is read by windows at its own scale."""

from dataclasses import replace

import pytest
import torch

from sfumato.errors import SettingsError
from sfumato.io import Picture, open_windows, read_picture, write_picture
from sfumato.operators import Window, parse
from sfumato.pipeline import Settings
from sfumato.pipeline.files import restore_file
from sfumato.pipeline.problem import make_problem
from sfumato.pipeline.region import Region
from sfumato.pipeline.restore import Started
from sfumato.pipeline.source import FileSource
from sfumato.zoo import load_prior


def shrink(x_t, sigma):
    """Estimate as for Gaussian data of standard deviation 0.5."""
    return x_t * (0.25 / (0.25 + sigma**2))


@pytest.fixture(scope="module")
def prior():
    return replace(load_prior(), denoiser=shrink, name="stand-in")


def blobs(path, height, width):
    """Write soft blobs, which may be of a picture in the gamut."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand((1, 3, height // 4, width // 4), generator=g)
    x = torch.nn.functional.interpolate(x, size=(height, width), mode="bicubic")
    write_picture(Picture(x[0].clamp(0.1, 0.9)), path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return blobs(tmp_path_factory.mktemp("small") / "y.png", 32, 64)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return blobs(tmp_path_factory.mktemp("tiny") / "y.png", 20, 28)


def restored(source, target, words, prior, **settings):
    """Restore a file; return what it began with, and its report."""
    region = settings.pop("region", None)
    events = restore_file(
        source, target, parse(words), prior=prior, settings=Settings(**settings), region=region
    )
    began = None
    while True:
        try:
            event = next(events)
        except StopIteration as stop:
            return began, stop.value
        began = event if isinstance(event, Started) else began


def test_sixteen_times_goes_from_coarse_to_fine_by_tiles(tmp_path, small, prior):
    began, report = restored(
        small, tmp_path / "x.png", "bicubic:16", prior, steps=2, tile=256, overlap=128
    )
    assert began.settings["stitch"] == "mask-shift"
    sizes = [(v["width"], v["height"], v["ratio"]) for v in report.levels]
    assert sizes == [(256, 128, 4), (512, 256, 2), (1024, 512, 1)]
    assert [v["tiles"] > 1 for v in report.levels] == [False, True, True]
    assert report.consistency_rmse_255 <= 0.5


def test_neither_the_batch_nor_where_it_is_restored_changes_a_bit(tmp_path, tiny, prior):
    """Eight times in two levels; with one level the answer is another one."""
    options = {"steps": 2, "tile": 128, "overlap": 64}
    for name, more in (("1", {"batch": 1}), ("2", {"batch": 2}), ("one", {"levels": 1})):
        _, report = restored(tiny, tmp_path / f"{name}.png", "bicubic:8", prior, **options, **more)
        assert len(report.levels) == (1 if name == "one" else 2)
        assert report.consistency_rmse_255 <= 0.5
    one, two, other = (read_picture(tmp_path / f"{k}.png").pixels for k in ("1", "2", "one"))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_by_tiles_is_nearly_what_it_is_all_together(tmp_path, tiny, prior):
    options = {"steps": 2, "tile": 128, "overlap": 64}
    for stitch in ("mask-shift", "joint"):
        target = tmp_path / f"{stitch}.png"
        _, report = restored(tiny, target, "bicubic:8", prior, **options, stitch=stitch)
        assert len(report.levels) == 2
    a, b = (read_picture(tmp_path / f"{k}.png").pixels for k in ("mask-shift", "joint"))
    assert float((a - b).square().mean().sqrt()) < 1.5 / 255


def test_a_region_has_the_levels_of_the_whole(tmp_path, tiny, prior):
    region = Region.parse("100,60,60,50")
    began, report = restored(
        tiny, tmp_path / "x.png", "bicubic:8", prior, steps=2, tile=128, overlap=64, region=region
    )
    assert began.settings["levels"] == 2
    assert report.consistency_rmse_255 <= 0.5


@pytest.mark.parametrize("words", ["bicubic:8", "grayscale | bicubic:8", "bicubic:2"])
@pytest.mark.parametrize("window", [(0, 0, 64, 96), (32, 64, 64, 64), (64, 192, 64, 64)])
def test_a_file_poses_the_coarse_problem_of_a_picture_in_memory(small, words, window):
    if words == "bicubic:2":
        window = tuple(n // 4 for n in window)
    windows, degradation, w = open_windows(small), parse(words), Window(*window)
    source = FileSource(windows, degradation)
    y = windows.read(0, 0, windows.height, windows.width)
    whole = make_problem(y, degradation).coarse(2)
    assert whole.A.in_shape == (3, source.A.in_shape[1] // 2, source.A.in_shape[2] // 2)
    assert torch.equal(whole.measurement.y, make_problem(y, degradation).measurement.y)
    for here, there in (
        (source.coarse(2).at(w), whole.at(w)),
        (source.coarse(2).alone(w), whole.alone(w)),
    ):
        assert torch.equal(here.measurement.y, there.measurement.y)
        x = torch.rand((1, *here.A.in_shape), generator=torch.Generator().manual_seed(1))
        assert torch.equal(here.A(x), there.A(x))
    x = torch.rand((1, *whole.A.in_shape), generator=torch.Generator().manual_seed(1))
    part, place = whole.A.inside(w)
    assert torch.allclose(part(w.of(x)), place.of(whole.A(x)), atol=1e-5)


@pytest.mark.parametrize("words", ["bicubic:3", "gaussian_blur:1.2", "bicubic:2 | mask:{}"])
def test_levels_of_other_values_are_refused(tmp_path, small, prior, words):
    write_picture(Picture(torch.zeros(1, 32, 64)), tmp_path / "none.png")
    words = words.format(tmp_path / "none.png")
    with pytest.raises(SettingsError, match="a level coarser by") as refused:
        restored(
            small, tmp_path / "x.png", words, prior,
            steps=1, tile=64, overlap=32, levels=3, stitch="mask-shift",
        )  # fmt: skip
    assert "\n" not in str(refused.value)
    assert [p.name for p in tmp_path.iterdir()] == ["none.png"]
