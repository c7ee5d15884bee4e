"""Numbers are read as they are; masks, folders, digests."""

import os
import subprocess
import sys

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image

import sfumato.io
from sfumato.errors import ImageError
from sfumato.io import (
    Picture,
    digest,
    find_pictures,
    read_mask,
    read_measurement,
    write_picture,
)


@pytest.mark.parametrize("channels", [1, 3])
def test_float_tiff_is_read_as_it_is(tmp_path, channels):
    values = (10 * torch.randn(channels, 5, 6)).float()
    array = values.permute(1, 2, 0).contiguous().numpy()
    pyvips.Image.new_from_array(array).tiffsave(str(tmp_path / "a.tif"))
    assert torch.equal(read_measurement(tmp_path / "a.tif"), values)
    array[0, 0, 0] = np.nan
    pyvips.Image.new_from_array(array).tiffsave(str(tmp_path / "a.tif"))
    with pytest.raises(ImageError, match="1 values that are no number"):
        read_measurement(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 6), (1, 5, 6)),
        ((3, 5, 6), (3, 5, 6)),
        ((5, 6, 3), (3, 5, 6)),
        ((3, 5, 3), (3, 5, 3)),
        ((12, 1, 7), (12, 1, 7)),
    ],
)
def test_arrays_are_read_as_they_are(tmp_path, shape, expected):
    values = np.random.default_rng(0).standard_normal(shape)
    np.save(tmp_path / "a.npy", values)
    after = read_measurement(tmp_path / "a.npy")
    assert (after.dtype, tuple(after.shape)) == (torch.float32, expected)
    if shape == (5, 6, 3):
        values = values.transpose(2, 0, 1)
    assert np.array_equal(after.numpy(), values.reshape(expected).astype(np.float32))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[np.nan, 1.0]]), "no number"),
        (np.array([[1e300, 1.0]]), "too large"),
        (np.zeros((2, 2), np.uint8), "uint8"),
        (np.zeros(4), "shape"),
        (np.zeros((1, 2, 3, 4)), "shape"),
        (np.zeros((2, 2), complex), "complex"),
        (np.zeros((200, 200)), "limit_pixels"),
    ],
)
def test_arrays_of_other_kinds_are_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ImageError, match=message):
        read_measurement(tmp_path / "a.npy", limit_pixels=10_000)


def test_objects_and_cut_arrays_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(ImageError):
        read_measurement(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    data = (tmp_path / "a.npy").read_bytes()
    for n_missing in (1, 100, 200, 240):
        (tmp_path / "b.npy").write_bytes(data[:-n_missing])
        with pytest.raises(ImageError, match="cut short"):
            read_measurement(tmp_path / "b.npy")


def test_a_picture_is_a_measurement_too(tmp_path):
    values = torch.rand(1, 5, 6)
    write_picture(Picture(values, alpha=torch.rand(1, 5, 6), bits=16), tmp_path / "a.png")
    assert (read_measurement(tmp_path / "a.png") - values).abs().max() <= 0.501 / 65535


def save_mask(path, values):
    Image.fromarray(np.array(values, np.uint8)).save(path)
    return read_mask(path)


def test_white_is_missing(tmp_path):
    path = tmp_path / "a.png"
    known = save_mask(path, [[0, 127], [128, 255]])
    assert known.tolist() == [[[1, 1], [0, 0]]]
    colours = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]
    assert save_mask(path, colours).tolist() == [[[1, 0], [1, 0]]]
    assert save_mask(path, np.zeros((2, 3))).tolist() == [[[1, 1, 1], [1, 1, 1]]]


def test_alpha_is_a_mask_only_if_nothing_else_is(tmp_path):
    path = tmp_path / "a.png"
    painted = np.zeros((2, 2, 4))
    painted[0, 0, 3] = 255
    assert save_mask(path, painted).tolist() == [[[0, 1], [1, 1]]]
    painted[1, 1, :3] = 255
    assert save_mask(path, painted).tolist() == [[[1, 1], [1, 0]]]
    assert save_mask(path, np.full((2, 2, 4), 255)).tolist() == [[[0, 0], [0, 0]]]


def test_pictures_are_found(tmp_path):
    names = ["b.png", "a.JPG", "c.txt", ".d.png", "deep/e.tiff", ".hidden/f.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert find_pictures(tmp_path) == [tmp_path / "a.JPG", tmp_path / "b.png"]
    deep = [tmp_path / "a.JPG", tmp_path / "b.png", tmp_path / "deep/e.tiff"]
    assert find_pictures(tmp_path, recursive=True) == deep
    with pytest.raises(ImageError, match="no folder"):
        find_pictures(tmp_path / "b.png")


def test_folders_that_cannot_be_read_are_told_of(tmp_path, monkeypatch):
    for name in ("a.png", "closed/b.png", "open/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    told = []
    found = find_pictures(tmp_path, recursive=True, unreadable=told.append)
    assert found == [tmp_path / "a.png", tmp_path / "open/c.png"]
    assert told == [
        f"the folder {tmp_path}/closed cannot be read (Permission denied); "
        "what is in it is left out"
    ]
    with pytest.raises(ImageError, match="closed cannot be read"):
        find_pictures(tmp_path, recursive=True)


def test_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(tmp_path / "a") == known


def test_libvips_is_loaded_late():
    code = "import sys, sfumato.io; sys.exit('pyvips' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_all_is_exported():
    assert all(hasattr(sfumato.io, name) for name in sfumato.io.__all__)
