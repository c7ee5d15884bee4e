"""What came in goes out: bits, channels, alpha, orientation, profile, EXIF, by every command."""

import numpy as np
import pytest
import pyvips
from stand_in import grey, photo, pool, read, report_of, rmse, sfumato, unit, write

QUICK = ("--steps", 1, "-t", 32)
SRGB = bytes(pyvips.Image.profile_load("srgb"))
SIZE = (11, 37)


@pytest.fixture
def commands(tmp_path, prior):
    """Every restoring command, as the words between the input and the output."""
    missing = np.zeros((*SIZE, 1), np.uint8)
    missing[4:9, 6:30] = 255
    mask = write(tmp_path / "aside" / "mask.png", missing)
    quick = ("-n", prior, *QUICK)
    return {
        "upscale": ("upscale", "--kernel", "box", "-s", 2, *quick),
        "inpaint": ("inpaint", "-m", mask, *quick),
        "colorize": ("colorize", *quick),
        "denoise": ("denoise", "--noise", 0.05, *quick),
        "deblur": ("deblur", "--blur", "uniform:3", *quick),
        "restore": ("restore", "-d", "identity", *quick),
        "degrade": ("degrade", "-d", "average_pool:2"),
    }


COMMANDS = ["upscale", "inpaint", "colorize", "denoise", "deblur", "restore", "degrade"]


def call(words, source, out):
    done = sfumato(words[0], source, "-o", out, *words[1:])
    assert done.code == 0, done.err
    return read(out)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_bits_and_channels(tmp_path, commands, command, bits, channels):
    source = write(tmp_path / "in.png", photo(*SIZE, channels, bits=bits))
    found = call(commands[command], source, tmp_path / "out.png")
    assert found.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert found.shape[2] == (3 if command == "colorize" else channels)


def test_sixteen_bits_agree_better_than_eight_could(tmp_path, commands):
    source = write(tmp_path / "in.tif", photo(*SIZE, bits=16))
    out = tmp_path / "out.tif"
    found = call(commands["upscale"], source, out)
    agreement = rmse(pool(unit(found), 2), unit(read(source)))
    assert agreement < 0.05
    assert report_of(out)["consistency_rmse_255"] == pytest.approx(agreement, abs=1e-4)
    assert len(np.unique(found % 257)) > 200, "all sixteen bits are used"


@pytest.mark.parametrize(
    ("command", "suffix"),
    [*((command, ".png") for command in COMMANDS), ("upscale", ".tif"), ("inpaint", ".webp")],
)
def test_alpha(tmp_path, commands, command, suffix):
    alpha = np.zeros((*SIZE, 1), np.uint8)
    alpha[:, 10:] = 255
    options = {"lossless": True} if suffix == ".webp" else {}
    values = np.concatenate([photo(*SIZE), alpha], 2)
    source = write(tmp_path / f"in{suffix}", values, **options)
    found = call(commands[command], source, tmp_path / f"out{suffix}")
    if command == "degrade":
        assert found.shape[2] == 3, "a smaller picture has no place for it"
        return
    assert found.shape[2] == 4
    a = found[..., 3]
    scale = a.shape[1] // SIZE[1]
    assert (a[:, : 10 * scale - 2] == 0).all()
    assert (a[:, 10 * scale + 2 :] == 255).all()


def with_records(path, values, *, orientation=1, **options):
    """Write a picture with a profile, a camera's name, a copyright and an orientation."""
    image = pyvips.Image.new_from_array(values).copy(interpretation="srgb", xres=7, yres=7)
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", SRGB)
    for name, text in (("ifd0-Model", "Leica M6"), ("ifd0-Copyright", "Ada")):
        field = f"{text} ({text}, ASCII, {len(text) + 1} components, {len(text) + 1} bytes)"
        image.set_type(pyvips.GValue.gstr_type, f"exif-{name}", field)
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image.write_to_file(str(path), **options)
    return path


def record(path, name):
    image = pyvips.Image.new_from_file(str(path), revalidate=True)
    return image.get(f"exif-{name}") if image.get_typeof(f"exif-{name}") else ""


@pytest.mark.parametrize(
    ("command", "suffix"),
    [*((command, ".png") for command in COMMANDS), ("upscale", ".jpg"), ("inpaint", ".webp")],
)
def test_profile_and_exif(tmp_path, commands, command, suffix):
    source = with_records(tmp_path / f"in{suffix}", photo(*SIZE))
    out = tmp_path / f"out{suffix}"
    call(commands[command], source, out)
    image = pyvips.Image.new_from_file(str(out))
    assert bytes(image.get("icc-profile-data")) == SRGB
    assert "Leica M6" in record(out, "ifd0-Model")
    assert "Ada" in record(out, "ifd0-Copyright")
    if suffix != ".webp":
        assert image.xres == pytest.approx(7, abs=0.01)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_orientation_is_applied_once(tmp_path, commands, orientation):
    values = photo(*SIZE)
    source = with_records(tmp_path / "in.png", values, orientation=orientation)
    turns = {3: 2, 6: 3, 8: 1}[orientation]
    upright = np.rot90(values, turns)
    found = call(commands["upscale"], source, tmp_path / "out.png")
    assert found.shape[:2] == (2 * upright.shape[0], 2 * upright.shape[1])
    assert rmse(pool(unit(found), 2), unit(upright)) < 0.5
    image = pyvips.Image.new_from_file(str(tmp_path / "out.png"))
    assert not image.get_typeof("orientation") or image.get("orientation") == 1


def test_masks_lie_on_the_upright_picture(tmp_path, prior):
    values = photo(20, 30)
    source = with_records(tmp_path / "in.png", values, orientation=6)
    upright = np.rot90(values, 3)
    missing = np.zeros((30, 20, 1), np.uint8)
    missing[2:6] = 255
    mask = write(tmp_path / "mask.png", missing)
    out = tmp_path / "out.png"
    done = sfumato("inpaint", source, "-m", mask, "-o", out, "-n", prior, *QUICK)
    assert done.code == 0, done.err
    assert (read(out)[6:] == upright[6:]).all()


@pytest.mark.parametrize("pair", [(".jpg", ".png"), (".webp", ".tif"), (".tif", ".webp")])
def test_from_any_format_to_any(tmp_path, commands, pair):
    source = write(tmp_path / f"in{pair[0]}", photo(*SIZE))
    found = call(commands["upscale"], source, tmp_path / f"out{pair[1]}")
    assert rmse(pool(unit(found), 2), unit(read(source))) < 0.5


def test_jpeg_is_called_lossy_and_measured_as_it_is(tmp_path, commands):
    source, out = write(tmp_path / "in.png", photo(*SIZE, bits=16)), tmp_path / "out.jpg"
    found = call(commands["upscale"], source, out)
    report = report_of(out)
    measured = rmse(pool(unit(found), 2), unit(read(source)))
    assert report["consistency_rmse_255"] == pytest.approx(measured, abs=1e-3)
    assert any("JPEG is lossy" in note for note in report["notes"])
    assert any("16 bits" in note for note in report["notes"])


def test_cmyk_is_told(tmp_path, commands):
    image = pyvips.Image.new_from_array(photo(*SIZE)).copy(interpretation="srgb")
    cmyk = image.icc_transform("cmyk", input_profile="srgb")
    cmyk.write_to_file(str(tmp_path / "in.jpg"))
    call(commands["upscale"], tmp_path / "in.jpg", tmp_path / "out.png")
    assert any("CMYK" in note for note in report_of(tmp_path / "out.png")["notes"])


def test_grey_jpeg_is_coloured(tmp_path, commands):
    source = write(tmp_path / "in.jpg", photo(*SIZE, 1))
    found = call(commands["colorize"], source, tmp_path / "out.png")
    assert rmse(grey(unit(found)), unit(read(source))) < 0.5


def test_projection_keeps_what_the_result_had(tmp_path):
    y = write(tmp_path / "y.png", photo(*SIZE))
    theirs = with_records(tmp_path / "theirs.png", photo(22, 74, seed=4))
    out = tmp_path / "out.png"
    done = sfumato("project", theirs, "--measurement", y, "-d", "average_pool:2", "-o", out)
    assert done.code == 0, done.err
    assert "Leica M6" in record(out, "ifd0-Model")
    assert rmse(pool(unit(read(out)), 2), unit(read(y))) < 0.5
