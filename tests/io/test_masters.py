"""A master is the file that `write_picture` would have written, had there been memory for it."""

import base64
import errno
import os
import resource
from dataclasses import replace

import numpy as np
import pytest
import pyvips
import torch
from PIL import ImageCms
from test_images import XMP, exif_block, exif_of

from sfumato.errors import ImageError, OutputError, SettingsError
from sfumato.io import (
    Canvas,
    Picture,
    check_master,
    check_output,
    open_windows,
    read_picture,
    write_master,
    write_picture,
)
from sfumato.io import masters as module
from sfumato.io.masters import is_opaque

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SUFFIXES = [".tif", ".png", ".webp", ".jpg", ".zarr"]
HEIGHT, WIDTH = 270, 530


class Values:
    """What reads like a canvas."""

    def __init__(self, channels=3, bits=8, height=HEIGHT, width=WIDTH):
        self.height, self.width, self.channels, self.bits = height, width, channels, bits
        generator = np.random.default_rng(bits + channels)
        shape = (height, width, channels)
        self.array = generator.integers(0, 2**bits, shape).astype(f"uint{bits}")

    def read(self, top, left, height, width):
        return self.array[top : top + height, left : left + width]

    def planes(self):
        values = torch.from_numpy(self.array.astype(np.float32)).permute(2, 0, 1)
        return values / (2**self.bits - 1)


class Broken(Values):
    """A canvas of which only the beginning can be read."""

    def read(self, top, left, height, width):
        if top + height > 256:
            raise ImageError("the canvas is damaged")
        return super().read(top, left, height, width)


def alpha_of(bits):
    planes = Values(1, bits).planes()
    return planes, lambda top, left, high, wide: planes[:, top : top + high, left : left + wide]


def described(canvas, alpha=None):
    return Picture(
        canvas.planes(),
        alpha,
        bits=canvas.bits,
        icc=SRGB,
        exif=exif_block(),
        xmp=XMP,
        resolution=(300.0, 200.0),
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_same(one, other):
    assert torch.equal(one.pixels, other.pixels)
    assert (one.alpha is None) == (other.alpha is None)
    assert one.alpha is None or torch.equal(one.alpha, other.alpha)
    for attribute in ("bits", "icc", "exif", "xmp", "format", "notes"):
        assert getattr(one, attribute) == getattr(other, attribute)
    assert one.resolution == other.resolution or one.resolution == pytest.approx(
        other.resolution, rel=1e-5
    )


# What is written


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp", ".jpg"])
def test_a_master_is_the_picture(tmp_path, suffix, bits, channels, alpha):
    canvas = Values(channels, bits)
    planes, windows = alpha_of(bits) if alpha and suffix != ".jpg" else (None, None)
    picture = described(canvas, planes)
    write_picture(picture, tmp_path / f"a{suffix}")
    write_master(canvas, tmp_path / f"b{suffix}", picture, alpha=windows)
    after = read_picture(tmp_path / f"b{suffix}")
    assert_same(after, read_picture(tmp_path / f"a{suffix}"))
    if suffix in (".tif", ".png"):
        assert torch.equal(after.pixels, canvas.planes())
    if bits == 8:  # Pillow does not read all of the others
        tags, camera, place = exif_of(tmp_path / f"b{suffix}")
        assert (tags[0x010F], place[1]) == ("Maker of cameras", "N")
        assert camera[0x829A] == pytest.approx(1 / 125)
    assert names(tmp_path) == [f"a{suffix}", f"b{suffix}"]


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp", ".jpg"])
def test_nothing_is_invented(tmp_path, suffix):
    bare = Picture(torch.zeros(3, 1, 1))
    write_master(Values(), tmp_path / f"b{suffix}", bare)
    write_picture(replace(bare, pixels=Values().planes()), tmp_path / f"a{suffix}")
    assert_same(read_picture(tmp_path / f"b{suffix}"), read_picture(tmp_path / f"a{suffix}"))


def test_the_size_that_has_one_pixel(tmp_path):
    for suffix in SUFFIXES[:4]:
        write_master(
            Values(height=1, width=1), tmp_path / f"a{suffix}", Picture(torch.zeros(3, 1, 1))
        )
        assert read_picture(tmp_path / f"a{suffix}").pixels.shape == (3, 1, 1)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_zarr_folder(tmp_path, bits, alpha):
    canvas = Values(3, bits)
    planes, windows = alpha_of(bits)
    write_master(canvas, tmp_path / "a.zarr", described(canvas), alpha=windows if alpha else None)
    after = Canvas.open(tmp_path / "a.zarr")
    assert (after.channels, after.bits) == (3 + alpha, bits)
    values = after.read(0, 0, HEIGHT, WIDTH)
    assert np.array_equal(values[..., :3], canvas.array)
    if alpha:
        assert np.array_equal(values[..., 3], (planes[0] * (2**bits - 1)).round().numpy())
    assert base64.b64decode(after.metadata["icc"]) == SRGB
    assert after.metadata["resolution"] == [300, 200]
    assert names(tmp_path) == ["a.zarr"]


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_from_a_canvas_and_an_open_file_to_a_tiled_one(tmp_path, suffix, monkeypatch):
    """Alpha comes from windows that libvips decodes while it encodes; blocks are small."""
    monkeypatch.setattr(module, "_BLOCK_BYTES", 70_000)
    values = Values(bits=16)
    planes, _ = alpha_of(16)
    source = described(values, planes)
    write_picture(source, tmp_path / "whole.tif")
    pyvips.Image.tiffload(str(tmp_path / "whole.tif")).tiffsave(
        str(tmp_path / "source.tif"), tile=True, tile_width=128, tile_height=128
    )
    windows = open_windows(tmp_path / "source.tif")
    canvas = Canvas.create(tmp_path / "a.canvas", (HEIGHT, WIDTH, 3), 16, (100, 90))
    canvas.write(0, 0, values.array)
    write_master(canvas, tmp_path / f"b{suffix}", windows, alpha=windows.read_alpha)
    after = read_picture(tmp_path / f"b{suffix}")
    assert torch.equal(after.pixels, values.planes())
    assert torch.equal(after.alpha, planes)
    assert after.icc == windows.icc


@pytest.mark.parametrize("described_", [False, True])
def test_large_files_are_bigtiff(tmp_path, monkeypatch, described_):
    monkeypatch.setattr(module, "CLASSIC_TIFF_LIMIT_BYTES", 1_000_000)
    like = described(Values()) if described_ else Picture(torch.zeros(3, 1, 1))
    for bits, magic in ((8, b"II+\0"), (16, b"II+\0")):
        write_master(Values(3, bits), tmp_path / "a.tif", like)
        assert (tmp_path / "a.tif").read_bytes()[:4] == magic
        after, windows = read_picture(tmp_path / "a.tif"), open_windows(tmp_path / "a.tif")
        assert torch.equal(after.pixels, Values(3, bits).planes())
        assert torch.equal(windows.read(250, 200, 20, 300), after.pixels[:, 250:, 200:500])
        assert after.icc == like.icc
        if described_:
            write_picture(replace(like, bits=bits), tmp_path / "classic.tif")
            assert after.exif == read_picture(tmp_path / "classic.tif").exif
            assert b'Orientation="1"' in after.xmp
    write_master(Values(height=10), tmp_path / "a.tif", like)
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II*\0"
    assert pyvips.Image.tiffload(str(tmp_path / "a.tif")).get("tile-width") == 256


def test_quality_and_opaque_alpha_of_jpeg(tmp_path):
    like = Picture(torch.zeros(3, 1, 1))
    for name, quality in (("a.jpg", 20), ("b.jpg", 90)):
        write_master(Values(), tmp_path / name, like, quality=quality)
    assert (tmp_path / "a.jpg").stat().st_size < (tmp_path / "b.jpg").stat().st_size
    write_master(
        Values(), tmp_path / "c.jpg", like, quality=90, alpha=lambda *w: torch.ones(1, *w[2:])
    )
    assert (tmp_path / "c.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()
    with pytest.raises(OutputError, match="no transparency"):
        write_master(Values(), tmp_path / "d.jpg", like, alpha=alpha_of(8)[1])
    assert names(tmp_path) == ["a.jpg", "b.jpg", "c.jpg"]


def test_opaque_means_everywhere():
    alpha = torch.ones(1, 2000, 1500)

    def windows(top, left, height, width):
        return alpha[:, top : top + height, left : left + width]

    assert is_opaque(windows, (2000, 1500))
    alpha[0, 1999, 1499] = 0.999
    assert not is_opaque(windows, (2000, 1500))


# What is refused, and what goes wrong


def test_checks_agree_with_those_of_pictures(tmp_path):
    for name in ("a.jpg", "a.JPEG", "a.png", "a.webp", "a.tif", "a.tiff"):
        kind = check_output(tmp_path / name)
        assert check_master(tmp_path / name, (9, 9), 16, alpha=False) == kind
    for name, size in (("a.jpg", (65_501, 9)), ("a.webp", (9, 16_384))):
        with pytest.raises(OutputError, match="sides of at most"):
            check_master(tmp_path / name, size, 8, alpha=False)
    for name in ("a.png", "a.tif"):
        check_master(tmp_path / name, (10**6, 10**6), 16, alpha=True)
    with pytest.raises(OutputError, match="no transparency"):
        check_master(tmp_path / "a.jpg", (9, 9), 8, alpha=True)
    with pytest.raises(OutputError, match="known"):
        check_master(tmp_path / "a.gif", (9, 9), 8, alpha=False)
    with pytest.raises(ImageError, match="12 bits"):
        check_master(tmp_path / "a.tif", (9, 9), 12, alpha=False)
    assert check_master(tmp_path / "deep" / "a.zarr", (10**6, 10**6), 16, alpha=True) == "zarr"
    assert names(tmp_path) == []
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        check_master(tmp_path / "a.zarr", (9, 9), 8, alpha=False)


def test_what_is_no_picture(tmp_path):
    like = Picture(torch.zeros(3, 1, 1))
    with pytest.raises(SettingsError, match="quality of 0"):
        write_master(Values(), tmp_path / "a.jpg", like, quality=0)
    with pytest.raises(ImageError, match="4 channels; expected 1 or 3"):
        write_master(Values(4), tmp_path / "a.png", like)
    for suffix in (".png", ".tif", ".zarr"):
        with pytest.raises(ImageError, match="no number"):
            write_master(
                Values(),
                tmp_path / f"a{suffix}",
                like,
                alpha=lambda *window: torch.full((1, *window[2:]), torch.nan),
            )
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_canvas_that_breaks_leaves_nothing(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix != ".zarr":
        path.write_bytes(b"before")
    with pytest.raises(ImageError, match="the canvas is damaged"):
        write_master(Broken(), path, Picture(torch.zeros(3, 1, 1)))
    if suffix != ".zarr":
        assert path.read_bytes() == b"before"
    assert names(tmp_path) == ([path.name] if suffix != ".zarr" else [])


@pytest.mark.parametrize("limit", [1000, 100_000, 400_000])
def test_a_file_that_cannot_grow_is_an_output_error(tmp_path, limit):
    """As a full disk: each write beyond so many bytes fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    caught = {}
    for suffix in SUFFIXES:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            write_master(Values(), tmp_path / f"a{suffix}", described(Values()), quality=100)
        except OutputError as error:
            caught[suffix] = str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    chunks_fit = limit > 256 * 256 * 3
    assert list(caught) == SUFFIXES[: 5 - chunks_fit]
    assert all("cannot be written" in text and "\n" not in text for text in caught.values())
    assert names(tmp_path) == (["a.zarr"] if chunks_fit else [])


def test_every_size_of_a_full_disk(tmp_path):
    """Whatever part of the TIFF does not fit, it is noticed."""
    like = described(Values(height=40, width=40))
    canvas = Values(height=40, width=40)
    write_master(canvas, tmp_path / "a.tif", like)
    size = (tmp_path / "a.tif").stat().st_size
    (tmp_path / "a.tif").unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    noticed = []
    for limit in [*range(0, size, 997), size - 100, size - 1]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            write_master(canvas, tmp_path / "a.tif", like)
        except OutputError:
            noticed.append(limit)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert noticed == [*range(0, size, 997), size - 100, size - 1]
    assert names(tmp_path) == []


def test_a_disk_that_is_found_full_on_flushing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for suffix in SUFFIXES:
        with pytest.raises(OutputError, match="No space left on device; free some space"):
            write_master(Values(), tmp_path / f"a{suffix}", Picture(torch.zeros(3, 1, 1)))
    assert names(tmp_path) == []


def test_a_name_that_is_taken_meanwhile(tmp_path, monkeypatch):
    def taken(*_):
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(os, "rename", taken)
    with pytest.raises(OutputError, match="not empty"):
        write_master(Values(), tmp_path / "a.zarr", Picture(torch.zeros(3, 1, 1)))
    assert names(tmp_path) == []


def test_an_encoder_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "save_options", lambda *_, **__: {"nothing": 1})
    with pytest.raises(OutputError, match="cannot be written"):
        write_master(Values(), tmp_path / "a.png", Picture(torch.zeros(3, 1, 1)))
    assert names(tmp_path) == []
