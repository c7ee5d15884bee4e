"""Windows hold what the whole picture holds there, in bounded memory; they refuse what it does."""

import gc
import json
import os
import resource
import subprocess
import sys
import threading
from functools import cache

import numpy as np
import OpenImageIO
import pytest
import pyvips
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from sfumato.errors import ImageError, OutputError
from sfumato.io import Picture, open_windows, read_measurement, read_picture, write_picture
from sfumato.io import windows as module
from sfumato.io.windows import picture_shape

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TILES = {"tile": True, "tile_width": 16, "tile_height": 32}


def values(channels=3, height=70, width=53, bits=8):
    generator = np.random.default_rng(channels)
    return generator.integers(0, 2**bits, (height, width, channels)).astype(f"u{bits // 8}")


def image(channels=3, bits=8):
    names = {1: ("b-w", "grey16"), 3: ("srgb", "rgb16")}[(channels - 1) // 2 * 2 + 1]
    array = pyvips.Image.new_from_array(values(channels, bits=bits))
    return array.copy(interpretation=names[bits == 16])


def pillow(channels=3):
    return Image.fromarray(values(channels)[..., 0] if channels == 1 else values(channels))


def exif(orientation):
    tags = Image.Exif()
    tags[0x010F] = "Maker of cameras"
    tags[0x0112] = orientation
    return tags.tobytes()


def ink(bits):
    upright = image(3, 8).icc_transform("cmyk", input_profile="srgb", depth=bits)
    return upright.copy()


def write_with_openimageio(path, array, **attributes):
    height, width, channels = array.shape
    spec = OpenImageIO.ImageSpec(width, height, channels, array.dtype.name)
    spec.tile_width = spec.tile_height = 16
    for name, value in attributes.items():
        spec[name.replace("__", ":")] = value
    if channels == 4:
        spec.alpha_channel = 3
    output = OpenImageIO.ImageOutput.create("tiff")
    assert output.open(str(path), spec)
    assert output.write_image(array), output.geterror()
    assert output.close()


def makers():
    """Return the writer of each file, by its name."""
    made = {}
    for channels in (1, 2, 3, 4):
        for bits in (8, 16):
            one = image(channels, bits)
            name = f"{channels}x{bits}"
            made[f"{name}.png"] = one.pngsave
            made[f"{name}.strips.tif"] = one.tiffsave
            made[f"{name}.tiles.tif"] = lambda p, one=one: one.tiffsave(p, **TILES)
    for orientation in range(1, 9):
        options = {"exif": exif(orientation)}
        for suffix in ("jpg", "png", "tif"):
            name = f"orientation.{orientation}.{suffix}"
            made[name] = lambda p, options=options: pillow().save(p, **options)
        tagged = image(4, 16).copy()
        tagged.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        made[f"tiles.{orientation}.tif"] = lambda p, one=tagged: one.tiffsave(p, **TILES)
    for bits in (8, 16):
        for keep in ("icc", "none"):
            made[f"cmyk.{bits}.{keep}.tif"] = lambda p, k=keep, b=bits: ink(b).tiffsave(
                p, keep=k, **TILES
            )
    palette = pillow().quantize(16)
    return made | {
        "cmyk.jpg": lambda p: ink(8).jpegsave(p, keep="icc"),
        "grey.jpg": pillow(1).save,
        "progressive.jpg": lambda p: image().jpegsave(p, interlace=True),
        "interlaced.png": lambda p: image(3, 16).pngsave(p, interlace=True),
        "palette.png": palette.save,
        "palette-and-alpha.png": lambda p: palette.save(p, transparency=3),
        "palette.tif": palette.save,
        "single-bits.png": pillow(1).convert("1").save,
        "single-bits.tif": pillow(1).convert("1").save,
        "lossless.webp": lambda p: image(4).webpsave(p, lossless=True, exact=True),
        "lossy.webp": lambda p: image(3).webpsave(p),
        "big.tif": lambda p: image(3, 16).tiffsave(p, bigtiff=True, compression="lzw", **TILES),
        "big-strips.tif": lambda p: image().tiffsave(p, bigtiff=True, compression="deflate"),
        "pyramid.tif": lambda p: image().tiffsave(p, pyramid=True, **TILES),
        "jpeg.tif": lambda p: image().tiffsave(p, compression="jpeg", **TILES),
        "multiplied.tif": lambda p: write_with_openimageio(p, values(4)),
        "profile.tif": lambda p: pillow().save(p, icc_profile=SRGB, dpi=(300, 200)),
        "foreign-profile.png": lambda p: pillow(1).save(p, icc_profile=SRGB),
    }


MAKERS = makers()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return what makes a file, and reads it whole and by windows, once."""
    folder = tmp_path_factory.mktemp("windows")

    @cache
    def read(name):
        MAKERS[name](str(folder / name))
        return read_picture(folder / name), open_windows(folder / name)

    read.folder = folder
    return read


def draw_window(data, height, width):
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    high = data.draw(st.integers(1, height - top))
    return top, left, high, data.draw(st.integers(1, width - left))


def cut(planes, top, left, height, width):
    return planes[:, top : top + height, left : left + width]


@given(data=st.data(), name=st.sampled_from(sorted(MAKERS)))
def test_windows_are_the_picture(pair, data, name):
    whole, windows = pair(name)
    window = draw_window(data, windows.height, windows.width)
    assert torch.equal(windows.read(*window), cut(whole.pixels, *window))
    if windows.has_alpha:
        assert torch.equal(windows.read_alpha(*window), cut(whole.alpha, *window))


@given(data=st.data(), name=st.sampled_from([n for n in sorted(MAKERS) if "tif" in n]))
def test_windows_are_the_picture_when_tiles_are_let_go(pair, data, name):
    whole, _ = pair(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_KEPT_BYTES", data.draw(st.integers(0, 4000)))
        windows = open_windows(pair.folder / name)
        for _ in range(3):
            window = draw_window(data, windows.height, windows.width)
            assert torch.equal(windows.read(*window), cut(whole.pixels, *window))


def test_another_file_in_its_place(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    image().tiffsave(str(path), **TILES)
    monkeypatch.setattr(module, "_KEPT_BYTES", 1000)
    windows = open_windows(path)
    windows.read(0, 0, 50, 50)
    image(1).tiffsave(str(tmp_path / "b.tif"), **TILES)
    (tmp_path / "b.tif").replace(path)
    with pytest.raises(ImageError, match="another file than before; leave it"):
        windows.read(0, 0, 50, 50)
    path.unlink()
    with pytest.raises(ImageError, match="No such file"):
        windows.read(0, 0, 50, 50)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_all_else_is_the_pictures_too(pair, name):
    whole, windows = pair(name)
    assert (windows.channels, windows.height, windows.width) == tuple(whole.pixels.shape)
    assert windows.has_alpha == (whole.alpha is not None)
    for attribute in ("bits", "icc", "exif", "xmp", "resolution", "format", "notes"):
        assert getattr(windows, attribute) == getattr(whole, attribute)
    everything = (0, 0, windows.height, windows.width)
    assert torch.equal(windows.read(*everything), whole.pixels)


@pytest.mark.parametrize("name", ["orientation.6.jpg", "tiles.3.tif", "2x16.png", "cmyk.jpg"])
def test_the_shape_alone(tmp_path, name):
    MAKERS[name](str(tmp_path / name))
    assert picture_shape(tmp_path / name) == tuple(read_picture(tmp_path / name).pixels.shape)
    np.save(tmp_path / "a.npy", np.zeros((5, 6)))
    assert picture_shape(tmp_path / "a.npy") == (1, 5, 6)


@pytest.mark.parametrize(
    "window", [(-1, 0, 5, 5), (0, -1, 5, 5), (66, 0, 5, 5), (0, 49, 5, 5), (3, 3, 0, 5)]
)
def test_windows_lie_inside(pair, window):
    with pytest.raises(ImageError, match="expected one inside the picture of 53 × 70"):
        pair("3x8.png")[1].read(*window)


def test_alpha_is_refused_where_there_is_none(pair):
    with pytest.raises(ImageError, match="without an alpha channel"):
        pair("3x8.png")[1].read_alpha(0, 0, 1, 1)


# What is refused


def message_of(read, path):
    with pytest.raises(ImageError) as caught:
        read(path)
    return str(caught.value)


def save_pages(path):
    pillow().save(path, save_all=True, append_images=[pillow()])


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"hello, world"),
        lambda path: path.write_bytes(b"GIF89a" + bytes(20)),
        lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"),
        lambda path: path.write_bytes(b"II*\0\x08\0\0\0"),
        lambda path: path.mkdir(),
        lambda path: None,
        lambda path: pyvips.Image.black(40, 40).cast("float").tiffsave(str(path), **TILES),
        lambda path: image().bandjoin([1, 2]).tiffsave(str(path), **TILES),
        lambda path: write_with_openimageio(path, values(), planarconfig="separate"),
        save_pages,
    ],
)
def test_what_is_refused_is_refused_alike(tmp_path, make):
    path = tmp_path / "a.tif"
    make(path)
    assert message_of(open_windows, path) == message_of(read_picture, path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_cut_files_are_refused_alike(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_picture(Picture(torch.rand(3, 70, 53)), path)
    data = path.read_bytes()
    for n_kept in (20, len(data) // 3, len(data) - 13):
        path.write_bytes(data[:n_kept])
        assert message_of(open_windows, path) == message_of(read_picture, path)


@pytest.mark.parametrize("big", [False, True])
def test_every_cut_of_a_tiled_tiff_is_noticed_at_once(tmp_path, big):
    data = image().tiffsave_buffer(bigtiff=big, compression="deflate", **TILES)
    for n_missing in [1, 2, 9, 100, 400, *range(1000, len(data), 997)]:
        (tmp_path / "a.tif").write_bytes(data[:-n_missing])
        assert "cut short" in message_of(open_windows, tmp_path / "a.tif")


def test_missing_tiles_behind_a_whole_directory_are_noticed(tmp_path):
    """Where the directory comes first, a cut takes tiles only."""
    path = tmp_path / "a.tif"
    write_with_openimageio(path, values(3))
    data = path.read_bytes()
    with_directory_first = data if data[4:8] == b"\x08\0\0\0" else None
    assert with_directory_first is not None
    path.write_bytes(data[:-5])
    assert "last tiles are missing" in message_of(open_windows, path)


def test_damage_inside_a_tile_is_found_there(tmp_path):
    path = tmp_path / "a.tif"
    ramp = pyvips.Image.xyz(99, 99).cast("uchar")[0]
    ramp.tiffsave(str(path), compression="deflate", **TILES)
    data = bytearray(path.read_bytes())
    last = data.rindex(b"x\x9c")  # where zlib begins
    data[last + 2 : last + 12] = b"\xff" * 10
    path.write_bytes(data)
    assert "damaged" in message_of(read_picture, path)
    windows = open_windows(path)
    with pytest.raises(ImageError, match="damaged or cut short"):
        torch.cat([windows.read(top, 0, 1, windows.width) for top in range(windows.height)])


# Arrays


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(9, 12), (3, 9, 12), (9, 12, 3), (12, 1, 7)])
@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8"])
def test_windows_of_an_array(tmp_path, shape, dtype, order):
    array = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    whole, windows = read_measurement(tmp_path / "a.npy"), open_windows(tmp_path / "a.npy")
    assert (windows.channels, windows.height, windows.width) == tuple(whole.shape)
    assert (windows.bits, windows.format, windows.has_alpha) == (8, "", False)
    assert torch.equal(windows.read(0, 2, 1, 4), cut(whole, 0, 2, 1, 4))
    assert torch.equal(windows.read(0, 0, windows.height, windows.width), whole)
    with pytest.raises(ImageError, match="expected one inside"):
        windows.read(0, 0, 1, 13)


def test_arrays_are_refused_as_measurements_are(tmp_path):
    path = tmp_path / "a.npy"
    for array in (np.zeros(4), np.zeros((2, 2), np.uint8)):
        np.save(path, array)
        assert message_of(open_windows, path) == message_of(read_measurement, path)
    np.save(path, np.array([[0, 1], [np.nan, 1e300]]))
    windows = open_windows(path)
    assert windows.read(0, 0, 1, 2).tolist() == [[[0, 1]]]
    with pytest.raises(ImageError, match="2 values that are no number"):
        windows.read(0, 0, 2, 2)


# What it costs


def open_files():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_the_file_is_decoded_once_to_a_copy_that_goes_with_the_object(tmp_path):
    path, scratch = tmp_path / "a.png", tmp_path / "scratch"
    write_picture(Picture(torch.rand(3, 70, 53)), path)
    whole = read_picture(path).pixels
    before = open_files()
    windows = open_windows(path, scratch=scratch)
    assert open_files() > before
    path.unlink()
    assert list(scratch.iterdir()) == []
    for top in range(0, 70, 10):
        assert torch.equal(windows.read(top, 3, 10, 40), cut(whole, top, 3, 10, 40))
    del windows
    assert open_files() <= before


def test_a_full_scratch_folder(tmp_path):
    write_picture(Picture(torch.rand(3, 99, 99)), tmp_path / "a.png")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    caught = ""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        open_windows(tmp_path / "a.png", scratch=tmp_path)
    except OutputError as error:
        caught = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written" in caught
    with pytest.raises(OutputError, match="in the way"):
        open_windows(tmp_path / "a.png", scratch=tmp_path / "a.png")


MEASURE = """
import json, resource, sys
import sfumato.io
late = [m for m in ("zarr", "OpenImageIO", "pyvips") if m in sys.modules]
import pyvips
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
grown = []
for path in sys.argv[1:]:
    before = peak()
    windows = sfumato.io.open_windows(path)
    for top in range(0, windows.height - 512, 1900):
        for left in range(0, windows.width - 512, 450):
            windows.read(top, left, 512, 512)
    grown.append(peak() - before)
print(json.dumps([late, grown]))
"""


def test_memory_is_bounded_and_modules_are_loaded_late(tmp_path):
    """Also: no limit of pixels. Decoded, the files would take 120, 144 and 150 million bytes.

    Of the last one, which is wide, two rows of tiles would take 102.
    """
    strips, tiles, wide = (str(tmp_path / name) for name in ("a.png", "b.tif", "c.tif"))
    black = pyvips.Image.black
    black(12_000, 10_000).copy(interpretation="b-w").pngsave(strips, compression=1, filter="none")
    black(12_000, 12_000).copy(interpretation="b-w").tiffsave(
        tiles, tile=True, tile_width=256, tile_height=256, compression="deflate", bigtiff=True
    )
    black(200_000, 750).copy(interpretation="b-w").tiffsave(
        wide, tile=True, tile_width=256, tile_height=256, compression="deflate"
    )
    command = [sys.executable, "-c", MEASURE, wide, strips, tiles]
    done = subprocess.run(command, capture_output=True, check=True)
    late, grown = json.loads(done.stdout)
    assert late == []
    assert max(grown) < 80e6
    assert grown[0] < 30e6


FORKED = """
import os, sys
from sfumato.io import open_windows
windows = open_windows(sys.argv[1])
before = windows.read(0, 0, 70, 53)
pid = os.fork()
if not pid:
    os._exit(0 if windows.read(0, 0, 70, 53).equal(before) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_tiles_are_decoded_by_forked_processes_too(tmp_path):
    image().tiffsave(str(tmp_path / "a.tif"), **TILES)
    command = [sys.executable, "-c", FORKED, str(tmp_path / "a.tif")]
    assert subprocess.run(command, timeout=60).returncode == 0


def test_the_thread_of_the_tiles_goes_with_the_object(tmp_path):
    def alive():
        return {t for t in threading.enumerate() if t.name.startswith("tiles")}

    image().tiffsave(str(tmp_path / "a.tif"), **TILES)
    before = alive()
    windows = open_windows(tmp_path / "a.tif")
    windows.read(0, 0, 70, 53)
    (own,) = alive() - before
    del windows
    gc.collect()
    own.join(10)
    assert not own.is_alive()
