"""A mask that is read by windows is the one that is read as a whole."""

import numpy as np
import pytest
import pyvips
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sfumato.errors import ImageError
from sfumato.io import masks, open_mask, read_mask

SIZE = (70, 90)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, (*SIZE, *shape), np.uint8)


def opaque_strokes():
    values = np.zeros((*SIZE, 4), np.uint8)
    values[20:30, 5:80, 3] = 255
    return values


KINDS = {"grey": noise(), "colour": noise(3), "with alpha": noise(4), "strokes": opaque_strokes()}


@pytest.fixture
def small_memory(monkeypatch):
    """Let all masks be too large for memory, and look through them by small windows."""
    monkeypatch.setattr(masks, "_IN_MEMORY", 0)
    monkeypatch.setattr(masks, "_LOOK", 32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_windows_of_a_large_mask(tmp_path, small_memory, monkeypatch, kind, suffix):
    path = tmp_path / f"mask{suffix}"
    values = KINDS[kind]
    if suffix == ".tif":
        image = pyvips.Image.new_from_array(values)
        image.tiffsave(str(path), tile=True, tile_width=16, tile_height=16)
    else:
        Image.fromarray(values).save(path)
    large = open_mask(path)
    monkeypatch.undo()
    whole = read_mask(path)
    assert large.shape == tuple(whole.shape) == (1, *SIZE)
    assert large.empty == bool(whole.all()) is False
    assert 0 < int(whole.sum()) < whole.numel()

    @given(st.data())
    @settings(max_examples=20)
    def windows(data):
        top, left = (data.draw(st.integers(0, n - 1)) for n in SIZE)
        height, width = data.draw(st.integers(1, 70 - top)), data.draw(st.integers(1, 90 - left))
        part = large.read(top, left, height, width)
        assert part.dtype == torch.bool
        assert torch.equal(part, whole[:, top : top + height, left : left + width])

    windows()


@pytest.mark.parametrize("at", [None, (0, 0), (69, 89), (40, 33)])
def test_one_missing_pixel_is_found(tmp_path, small_memory, at):
    values = np.zeros(SIZE, np.uint8)
    if at:
        values[at] = 255
    Image.fromarray(values).save(tmp_path / "mask.png")
    assert open_mask(tmp_path / "mask.png").empty == (at is None)
    strokes = np.zeros((*SIZE, 4), np.uint8)
    strokes[..., 3] = values
    Image.fromarray(strokes).save(tmp_path / "strokes.png")
    assert open_mask(tmp_path / "strokes.png").empty == (at is None)


def test_no_more_is_held_of_a_large_mask_than_is_read(tmp_path, small_memory):
    Image.fromarray(KINDS["grey"]).save(tmp_path / "mask.png")
    part = open_mask(tmp_path / "mask.png").read(8, 8, 4, 4)
    assert part.untyped_storage().nbytes() == 16


def test_too_many_pixels_are_refused_by_the_header(tmp_path):
    Image.fromarray(KINDS["grey"]).save(tmp_path / "mask.png")
    with pytest.raises(ImageError, match=r"of 90 x 70 pixels.*at most 0\.006 megapixels"):
        open_mask(tmp_path / "mask.png", limit_pixels=6000)
