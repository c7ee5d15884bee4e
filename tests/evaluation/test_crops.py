"""Crops are a function of seed and number, and windows of the pictures."""

import numpy as np
import pytest
import pyvips
import torch

from sfumato.errors import ImageError, SettingsError
from sfumato.evaluation import load_crops

SIZES = [(40, 50), (33, 32), (64, 32)]


def write(path, pixels):
    pyvips.Image.new_from_array(pixels).write_to_file(str(path))


@pytest.fixture
def folder(tmp_path):
    """Pictures whose values tell picture, row and column."""
    (tmp_path / "deep").mkdir()
    for k, (h, w) in enumerate(SIZES):
        rows, cols = np.mgrid[:h, :w]
        pixels = np.stack([0 * rows + k, rows, cols], 2).astype(np.uint8)
        write(tmp_path / ("deep" if k == 2 else ".") / f"{k}.png", pixels)
    return tmp_path


def test_every_crop_is_a_window_and_pictures_take_turns(folder):
    crops = load_crops(folder, 200, side=32)
    values = ((crops.x_0 + 1) * 127.5).round().long()
    pictures, tops, lefts = (values[:, c, 0, 0] for c in range(3))
    steps = torch.arange(32)
    assert (values[:, 0] == pictures[:, None, None]).all()
    assert (values[:, 1] == (tops[:, None] + steps)[:, :, None]).all()
    assert (values[:, 2] == (lefts[:, None] + steps)[:, None]).all()
    for k in range(0, 198, 3):
        assert sorted(pictures[k : k + 3].tolist()) == [0, 1, 2]
    for k, (h, w) in enumerate(SIZES):
        here = pictures == k
        # All places are met, the outermost ones included.
        assert set(tops[here].tolist()) <= set(range(h - 31))
        assert (tops[here].min(), tops[here].max()) == (0, h - 32) or h > 60
        assert (lefts[here].min(), lefts[here].max()) == (0, w - 32)


def test_crops_are_a_function_of_seed_and_number(folder):
    many = load_crops(folder, 20, side=32, seed=3).x_0
    assert torch.equal(load_crops(folder, 7, side=32, seed=3).x_0, many[:7])
    assert not torch.equal(load_crops(folder, 20, side=32, seed=4).x_0, many)


def test_what_is_no_photograph_is_skipped_and_told(folder):
    write(folder / "grey.png", np.zeros((40, 40), np.uint8))
    write(folder / "small.png", np.zeros((31, 90, 3), np.uint8))
    (folder / "broken.png").write_bytes(b"no picture")
    crops = load_crops(folder, 4, side=32)
    assert crops.n_pictures == 3
    told = " ".join(crops.skipped)
    for what in ("grey.png: grey", "small.png: too small, 90 x 31 pixels", "broken.png"):
        assert what in told


def test_nothing_to_cut_from_is_refused(folder):
    with pytest.raises(SettingsError, match="at least 65 x 65"):
        load_crops(folder, 4, side=65)
    with pytest.raises(SettingsError, match="at least 1"):
        load_crops(folder, 0)
    with pytest.raises(ImageError, match="no folder"):
        load_crops(folder / "none", 4)
