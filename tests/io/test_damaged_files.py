"""Files that are no picture, not whole, or too large are refused in one line."""

import os
import struct
import zlib

import pytest
import pyvips
import torch
from PIL import Image, ImageCms

from sfumato.errors import ImageError
from sfumato.io import Picture, read_picture, write_picture

SUFFIXES = [".png", ".jpg", ".webp", ".tif"]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def integers():
    return torch.randint(0, 256, (3, 13, 17), generator=torch.Generator().manual_seed(0))


def exif_block():
    tags = Image.Exif()
    tags[0x010F] = "Maker of cameras"
    tags.get_ifd(0x8825)[1] = "N"
    return tags.tobytes().removeprefix(b"Exif\0\0")


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello, world", "is not a picture"),
        (b"GIF89a" + bytes(20), "is a GIF picture"),
        (b"\0\0\0\x1cftypheic" + bytes(20), "HEIF"),
        (b"\x93NUMPY\1\0", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "cut short"),
        (b"\xff\xd8\xff\xe0", "cut short"),
        (b"RIFF\0\0\0\0WEBP", "cut short"),
        (b"II*\0\x08\0\0\0", "cut short"),
    ],
)
def test_what_is_no_picture(tmp_path, data, message):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        read_picture(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path):
    with pytest.raises(ImageError, match=r"there is no file .*a\.png"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_picture(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="no regular file"):
        read_picture(tmp_path / "pipe")
    with pytest.raises(ImageError, match="no file name"):
        read_picture("a\0b")
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(ImageError, match="cannot be read"):
        read_picture(tmp_path / "link")


def cuts(size):
    few = {1, 2, 3, 4, 8, 11, 12, 13, 20, 50, 100, 200}
    return sorted(few | {size // 10 * k for k in range(1, 10)} | {size - 9, size - 13, size - 20})


@pytest.mark.parametrize("exif", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_cut_is_noticed(tmp_path, suffix, exif):
    whole = Picture(integers() / 255, icc=SRGB, exif=exif_block() if exif else None)
    write_picture(whole, tmp_path / f"a{suffix}")
    data = (tmp_path / f"a{suffix}").read_bytes()
    path = tmp_path / f"b{suffix}"
    for n_missing in cuts(len(data)):
        path.write_bytes(data[:-n_missing])
        with pytest.raises(ImageError):
            read_picture(path)
    path.write_bytes(data)
    read_picture(path)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_cut_tiffs_of_others_are_noticed(tmp_path, compression):
    values = Image.fromarray(integers().permute(1, 2, 0).byte().numpy())
    values.save(tmp_path / "a.tif", compression=compression, icc_profile=SRGB)
    data = (tmp_path / "a.tif").read_bytes()
    for n_missing in cuts(len(data)):
        (tmp_path / "b.tif").write_bytes(data[:-n_missing])
        with pytest.raises(ImageError):
            read_picture(tmp_path / "b.tif")


def test_cut_bigtiffs_are_noticed(tmp_path):
    values = pyvips.Image.new_from_array(integers().permute(1, 2, 0).byte().numpy())
    data = values.tiffsave_buffer(bigtiff=True)
    for n_missing in cuts(len(data)):
        (tmp_path / "b.tif").write_bytes(data[:-n_missing])
        with pytest.raises(ImageError):
            read_picture(tmp_path / "b.tif")
    (tmp_path / "b.tif").write_bytes(data)
    assert read_picture(tmp_path / "b.tif").pixels.shape == (3, 13, 17)


def test_a_flipped_bit_in_png_is_noticed(tmp_path):
    write_picture(Picture(integers() / 255), tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match="damaged"):
        read_picture(tmp_path / "a.png")


def test_bombs_are_refused_by_their_header(tmp_path):
    size = struct.pack(">IIBBBBB", 60_000, 50_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + pixels + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match=r"60000 × 50000 .*100 megapixels; raise limit_pixels"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_limit_is_the_callers(tmp_path, suffix):
    write_picture(Picture(integers() / 255), tmp_path / f"a{suffix}")
    read_picture(tmp_path / f"a{suffix}", limit_pixels=13 * 17)
    with pytest.raises(ImageError, match="limit_pixels"):
        read_picture(tmp_path / f"a{suffix}", limit_pixels=13 * 17 - 1)
