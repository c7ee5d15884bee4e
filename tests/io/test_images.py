"""Pictures come back as they went, and damaged ones do not come at all."""

import io
import struct
import zlib

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from sfumato.errors import ImageError, SettingsError
from sfumato.io.images import Picture, read_picture, write_picture

SUFFIXES = [".png", ".jpg", ".webp", ".tif"]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def integers(channels=3, height=13, width=17, bits=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2**bits, (channels, height, width), generator=generator)


def picture(channels=3, bits=8, *, alpha=False, **more):
    maximum = 2**bits - 1
    return Picture(
        pixels=integers(channels, bits=bits) / maximum,
        alpha=integers(1, bits=bits, seed=1) / maximum if alpha else None,
        bits=bits,
        **more,
    )


def stored(planes, bits):
    """The integers that a read plane stands for; they must be integers."""
    values = planes.double() * (2**bits - 1)
    assert (values - values.round()).abs().max() < (1e-2 if bits == 16 else 1e-4)
    return values.round().long()


def exif_block(orientation=1, order=">"):
    tags = Image.Exif()
    tags.endian = order
    tags[0x010F] = "Maker of cameras"
    tags[0x0112] = orientation
    tags[0x0132] = "2020:01:02 03:04:05"
    tags.get_ifd(0x8769)[0x829A] = TiffImagePlugin.IFDRational(1, 125)
    tags.get_ifd(0x8769)[0xA002] = 17
    tags.get_ifd(0x8825)[1] = "N"
    return tags.tobytes().removeprefix(b"Exif\0\0")


def exif_of(path):
    with Image.open(path) as image:
        tags = image.getexif()
        return dict(tags), dict(tags.get_ifd(0x8769)), dict(tags.get_ifd(0x8825))


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


# Round trips


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_png_and_tiff_keep_every_bit(tmp_path, suffix, bits, channels, alpha):
    before = picture(channels, bits, alpha=alpha)
    write_picture(before, tmp_path / f"a{suffix}")
    after = read_picture(tmp_path / f"a{suffix}")
    assert after.bits == bits
    assert after.pixels.dtype == torch.float32
    assert torch.equal(stored(after.pixels, bits), integers(channels, bits=bits))
    assert (after.alpha is not None) == alpha
    if alpha:
        assert torch.equal(stored(after.alpha, bits), integers(1, bits=bits, seed=1))
    assert after.notes == ()


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_webp_is_lossless_also_under_transparent_pixels(tmp_path, channels, alpha):
    before = picture(channels, alpha=alpha)
    if alpha:
        before.alpha[:, :5] = 0
    write_picture(before, tmp_path / "a.webp")
    after = read_picture(tmp_path / "a.webp")
    assert torch.equal(stored(after.pixels, 8), integers(channels).expand(3, -1, -1))
    assert (after.alpha is not None) == alpha
    if alpha:
        assert torch.equal(after.alpha, before.alpha)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_jpeg_comes_close(tmp_path, channels, bits):
    smooth = torch.linspace(0.1, 0.9, 32).expand(channels, 24, 32)
    write_picture(Picture(smooth, bits=bits), tmp_path / "a.jpg", quality=100)
    after = read_picture(tmp_path / "a.jpg")
    assert (after.bits, after.format, after.pixels.shape) == (8, "jpeg", smooth.shape)
    assert (after.pixels - smooth).abs().max() < 3 / 255


def test_quality_makes_files_larger(tmp_path):
    for suffix in (".jpg", ".webp"):
        sizes = []
        for quality in (20, 90):
            path = tmp_path / f"{quality}{suffix}"
            write_picture(picture(), path, quality=quality, lossless=False)
            sizes.append(path.stat().st_size)
        assert sizes[0] < sizes[1]
    with pytest.raises(SettingsError, match="quality of 0"):
        write_picture(picture(), tmp_path / "a.jpg", quality=0)


@pytest.mark.parametrize("bits", [8, 16])
def test_every_value_is_rounded_never_truncated(tmp_path, bits):
    levels = torch.arange(2**bits, dtype=torch.float64)
    for shift in (-0.45, 0.45):
        values = ((levels + shift) / (2**bits - 1)).reshape(1, 2 ** (bits // 2), -1)
        write_picture(Picture(values, bits=bits), tmp_path / "a.png")
        after = stored(read_picture(tmp_path / "a.png").pixels, bits).flatten()
        assert torch.equal(after, levels.long())


def test_values_outside_are_clipped_and_nan_is_refused(tmp_path):
    values = torch.tensor([[[-0.5, 1.5, torch.inf]]])
    write_picture(Picture(values), tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").pixels.flatten().tolist() == [0, 1, 1]
    with pytest.raises(ImageError, match="no number"):
        write_picture(Picture(values * torch.nan), tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


def test_half_precision_is_written(tmp_path):
    write_picture(Picture(torch.full((1, 2, 2), 0.5, dtype=torch.bfloat16)), tmp_path / "a.png")
    assert stored(read_picture(tmp_path / "a.png").pixels, 8).unique().tolist() == [128]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "wrong",
    [
        {"pixels": torch.zeros(2, 4, 4)},
        {"pixels": torch.zeros(4, 4)},
        {"pixels": torch.zeros(3, 0, 4)},
        {"alpha": torch.zeros(1, 4, 5)},
        {"bits": 12},
    ],
)
def test_impossible_pictures(wrong):
    with pytest.raises(ImageError, match="expected"):
        Picture(**({"pixels": torch.zeros(3, 4, 4)} | wrong))


# Metadata


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metadata_are_kept(tmp_path, suffix, order):
    before = picture(icc=SRGB, exif=exif_block(order=order), xmp=XMP, resolution=(300.0, 200.0))
    path = tmp_path / f"a{suffix}"
    write_picture(before, path)
    after = read_picture(path)
    assert after.icc == SRGB
    assert b"Description" in after.xmp
    assert b'Orientation="1"' in after.xmp
    assert after.resolution == pytest.approx((300, 200), rel=1e-3)
    tags, camera, place = exif_of(path)
    assert tags[0x010F] == "Maker of cameras"
    assert tags[0x0132] == "2020:01:02 03:04:05"
    assert camera[0x829A] == pytest.approx(1 / 125)
    assert place[1] == "N"


@pytest.mark.parametrize("second", SUFFIXES)
@pytest.mark.parametrize("first", SUFFIXES)
def test_exif_passes_from_any_format_to_any(tmp_path, first, second):
    write_picture(picture(exif=exif_block()), tmp_path / f"a{first}")
    write_picture(read_picture(tmp_path / f"a{first}"), tmp_path / f"b{second}")
    tags, camera, place = exif_of(tmp_path / f"b{second}")
    assert tags[0x010F] == "Maker of cameras"
    assert camera[0x829A] == pytest.approx(1 / 125)
    assert place[1] == "N"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_invented(tmp_path, suffix):
    write_picture(picture(), tmp_path / f"a{suffix}")
    after = read_picture(tmp_path / f"a{suffix}")
    assert (after.icc, after.exif, after.xmp) == (None, None, None)
    assert after.resolution is None or after.resolution == pytest.approx((72, 72), rel=1e-3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pixel_dimensions_follow_a_new_size(tmp_path, suffix):
    write_picture(Picture(torch.rand(3, 40, 60), exif=exif_block()), tmp_path / f"a{suffix}")
    assert exif_of(tmp_path / f"a{suffix}")[1].get(0xA002, 60) == 60


def test_a_profile_changes_no_value(tmp_path):
    strange = bytearray(SRGB)
    values = integers().permute(1, 2, 0).byte().numpy()
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=bytes(strange))
    assert torch.equal(stored(read_picture(tmp_path / "a.png").pixels, 8), integers())


def test_a_profile_of_another_kind_is_left_out(tmp_path):
    write_picture(picture(1, icc=SRGB), tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").icc is None
    values = Image.fromarray(integers(1)[0].byte().numpy())
    values.save(tmp_path / "b.jpg", icc_profile=SRGB)
    after = read_picture(tmp_path / "b.jpg")
    assert after.icc is None
    assert "profile" in after.notes[0]


def test_a_damaged_exif_block_is_left_out_and_told(tmp_path):
    values = Image.fromarray(integers(1)[0].byte().numpy())
    values.save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\0\0")
    after = read_picture(tmp_path / "a.png")
    assert after.exif is None
    assert "EXIF" in after.notes[0]


# Orientation


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(tmp_path, suffix, orientation):
    values = Image.fromarray(integers(3).permute(1, 2, 0).byte().numpy())
    options = {"lossless": True} if suffix == ".webp" else {}
    values.save(tmp_path / f"a{suffix}", exif=exif_block(orientation), **options)
    with Image.open(tmp_path / f"a{suffix}") as image:
        expected = torch.from_numpy(np.array(ImageOps.exif_transpose(image))).permute(2, 0, 1)
    after = read_picture(tmp_path / f"a{suffix}")
    assert torch.equal(stored(after.pixels, 8), expected.long())

    for second in SUFFIXES:
        write_picture(after, tmp_path / f"b{second}")
        assert read_picture(tmp_path / f"b{second}").pixels.shape == expected.shape
        assert exif_of(tmp_path / f"b{second}")[0].get(0x0112, 1) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_jpeg(tmp_path, orientation):
    ramp = np.add.outer(np.arange(16), 8 * np.arange(24)).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95, exif=exif_block(orientation))
    with Image.open(tmp_path / "a.jpg") as image:
        expected = torch.from_numpy(np.array(ImageOps.exif_transpose(image)))[None] / 255
    after = read_picture(tmp_path / "a.jpg").pixels
    assert after.shape == expected.shape
    assert (after - expected).abs().max() < 3 / 255


def test_resolution_turns_with_the_picture(tmp_path):
    values = Image.fromarray(integers(3).permute(1, 2, 0).byte().numpy())
    values.save(tmp_path / "a.png", exif=exif_block(6), dpi=(100, 200))
    assert read_picture(tmp_path / "a.png").resolution == pytest.approx((200, 100), rel=1e-3)


def test_png_orientation_after_the_pixels_is_seen(tmp_path):
    Image.fromarray(integers(1)[0].byte().numpy()).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:-12] + chunk(b"eXIf", exif_block(6)) + data[-12:])
    after = read_picture(tmp_path / "a.png")
    assert after.pixels.shape == (1, 17, 13)
    assert after.exif is not None


def test_the_thumbnail_of_before_is_dropped(tmp_path):
    thumbnail = io.BytesIO()
    Image.new("RGB", (4, 4)).save(thumbnail, "jpeg")
    jpeg = thumbnail.getvalue()
    first = struct.pack("<HHHIII", 1, 0x0112, 3, 1, 1, 26)
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(jpeg), 0)
    block = b"II*\0\x08\0\0\0" + first + second + jpeg
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + block)
    write_picture(read_picture(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert not image.getexif().get_ifd(1)


# Kinds of files


def test_palettes_and_single_bits_are_expanded(tmp_path):
    colours = Image.fromarray(integers(3).permute(1, 2, 0).byte().numpy()).quantize(16)
    colours.save(tmp_path / "a.png")
    after = read_picture(tmp_path / "a.png")
    expected = torch.from_numpy(np.array(colours.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(stored(after.pixels, 8), expected.long())
    assert after.alpha is None

    colours.save(tmp_path / "b.png", transparency=3)
    after = read_picture(tmp_path / "b.png")
    assert torch.equal(after.alpha[0] == 0, torch.from_numpy(np.array(colours) == 3))

    single = Image.fromarray(integers(1)[0].byte().numpy()).convert("1")
    for name in ("c.png", "c.tif"):
        single.save(tmp_path / name)
        after = read_picture(tmp_path / name)
        assert after.bits == 8
        assert torch.equal(after.pixels[0], torch.from_numpy(np.array(single)).float())


def test_interlaced_png_and_progressive_jpeg(tmp_path):
    values = pyvips.Image.new_from_array(integers(3).permute(1, 2, 0).byte().numpy())
    values.pngsave(str(tmp_path / "a.png"), interlace=True)
    assert torch.equal(stored(read_picture(tmp_path / "a.png").pixels, 8), integers())
    values.jpegsave(str(tmp_path / "a.jpg"), interlace=True)
    assert read_picture(tmp_path / "a.jpg").pixels.shape == (3, 13, 17)


@pytest.mark.parametrize(("name", "bits"), [("a.jpg", 8), ("a.tif", 8), ("a.tif", 16)])
@pytest.mark.parametrize("embedded", [False, True])
def test_cmyk_becomes_srgb_and_says_so(tmp_path, name, bits, embedded):
    colour = pyvips.Image.black(16, 16).new_from_image([180, 120, 90])
    ink = colour.cast("uchar").copy(interpretation="srgb")
    ink = ink.icc_transform("cmyk", input_profile="srgb", depth=bits)
    save = ink.jpegsave if name.endswith("jpg") else ink.tiffsave
    save(str(tmp_path / name), keep="icc" if embedded else "none")
    after = read_picture(tmp_path / name)
    assert after.bits == bits
    assert after.icc[16:20] == b"RGB "
    assert "CMYK" in after.notes[0]
    assert ("its profile" in after.notes[0]) == embedded
    expected = torch.tensor([180, 120, 90]) / 255
    assert (after.pixels.mean((1, 2)) - expected).abs().max() < 6 / 255
    write_picture(after, tmp_path / "b.png")
    assert read_picture(tmp_path / "b.png").icc == after.icc


def test_names_are_only_names(tmp_path):
    """Neither options in brackets nor a wrong ending mislead; a file that changed is read anew."""
    path = tmp_path / "photo[1,access=x].png"
    for seed in (0, 1):
        write_picture(Picture(integers(seed=seed) / 255), path)
        assert torch.equal(stored(read_picture(path).pixels, 8), integers(seed=seed))
    path.rename(tmp_path / "photo.jpg")
    assert read_picture(tmp_path / "photo.jpg").format == "png"


def test_several_pictures_are_refused_but_copies_passed_over(tmp_path):
    page = Image.fromarray(integers(3).permute(1, 2, 0).byte().numpy())
    for name in ("a.tif", "a.webp"):
        page.save(tmp_path / name, save_all=True, append_images=[page.rotate(180)])
        with pytest.raises(ImageError, match=r"2 pictures \(pages or frames\)"):
            read_picture(tmp_path / name)
    large = pyvips.Image.gaussnoise(100, 71).cast("uchar").copy(interpretation="b-w")
    large.tiffsave(str(tmp_path / "b.tif"), tile=True, pyramid=True, tile_width=16, tile_height=16)
    assert read_picture(tmp_path / "b.tif").pixels.shape == (1, 71, 100)


@pytest.mark.parametrize("kind", ["char", "short", "uint", "float"])
def test_other_numbers_are_refused(tmp_path, kind):
    pyvips.Image.black(4, 4, bands=3).cast(kind).tiffsave(str(tmp_path / "a.tif"))
    with pytest.raises(ImageError, match=f"stores its values as {kind}"):
        read_picture(tmp_path / "a.tif")


def test_other_channels_are_refused(tmp_path):
    pyvips.Image.black(4, 4, bands=5).cast("uchar").tiffsave(str(tmp_path / "a.tif"))
    with pytest.raises(ImageError, match="5 channels"):
        read_picture(tmp_path / "a.tif")
    Image.new("LAB", (4, 4)).save(tmp_path / "b.tif")
    with pytest.raises(ImageError, match=r"b\.tif"):
        read_picture(tmp_path / "b.tif")
