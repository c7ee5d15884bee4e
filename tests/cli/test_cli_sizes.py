"""Pictures of odd sizes and kinds are restored right, or refused in a line."""

import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import pyvips
from stand_in import grey, photo, pool, read, report_of, rmse, sfumato, unit, write
from test_cli_formats import SRGB

SIZES = [(1, 1), (1, 5000), (5000, 1), (257, 263), (129, 4001)]
COMMANDS = {
    "box": ("upscale", "--kernel", "box", "-s", 2),
    "bicubic": ("upscale", "-s", 2),
    "denoise": ("denoise", "--noise", 0.05),
    "inpaint": ("inpaint", "-m"),
    "colorize": ("colorize",),
}
PROMISE = 0.5


def named(size):
    return f"{size[1]}x{size[0]}"


def holes(height, width):
    """Return what is missing: a line, and more in the middle."""
    missing = np.zeros((height, width, 1), np.uint8)
    missing[height // 3 : height // 2, width // 3 : width // 2] = 255
    missing[2::7] = missing[:, 2::11] = 255
    return missing


def small_again(u):
    """Return what antialiased bicubic resampling (Keys, a = -0.5) makes of twice the size."""
    for axis in (0, 1):
        u = np.moveaxis(u, axis, 0)
        first, total, weights = 2 * np.arange(len(u) // 2), 0.0, 0.0
        for o in range(-3, 5):
            t = abs(o - 0.5) / 2
            w = (1.5 * t - 2.5) * t**2 + 1 if t < 1 else ((-0.5 * t + 2.5) * t - 4) * t + 2
            w = w * ((first + o >= 0) & (first + o < len(u)))[:, None, None]
            total, weights = total + w * u[np.clip(first + o, 0, len(u) - 1)], weights + w
        u = np.moveaxis(total / weights, 0, axis)
    return u


def agreement(name, result, y, known):
    """Return the RMSE between what is measured of the result and the input, in 1/255."""
    if name == "box":
        return rmse(pool(result, 2), y)
    if name == "bicubic":
        return rmse(small_again(result), y)
    if name == "inpaint":
        return rmse(result, y, known)
    if name == "colorize":
        return rmse(grey(result), grey(y) if y.shape[2] == 3 else y)
    return rmse(result, y)


def with_profile(path, values):
    """Write colours with a profile."""
    image = pyvips.Image.new_from_array(values)
    image = image.copy(interpretation="srgb" if values.itemsize == 1 else "rgb16")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", SRGB)
    image.write_to_file(str(path))
    return path


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def profile_of(path):
    image = pyvips.Image.new_from_file(str(path), revalidate=True)
    name = "icc-profile-data"
    return bytes(image.get(name)) if image.get_typeof(name) else None


def check(tmp_path, prior, name, size, *, bits=8, channels=3, alpha=False, suffix=".png"):
    """Restore a picture, and look at all that the result must have."""
    values = photo(*size, channels, bits=bits)
    seen = np.full((*size, 1), np.iinfo(values.dtype).max, values.dtype)
    seen[:, : size[1] // 2] //= 3
    stored = np.concatenate([values, seen], 2) if alpha else values
    path = tmp_path / f"in{suffix}"
    source = with_profile(path, stored) if channels == 3 else write(path, stored)
    words, missing = list(COMMANDS[name]), holes(*size)
    if name == "inpaint":
        words.append(write(tmp_path / "mask.png", missing))
    out = tmp_path / f"out{suffix}"
    before = names_in(tmp_path)
    quick = ("--steps", 1, "-t", 256, "--batch", 8)
    done = sfumato(words[0], source, *words[1:], "-o", out, "-n", prior, *quick)
    if name == "inpaint" and not missing.any():
        assert done.code == 2
        assert done.err.count("\n") == 1
        assert "marks nothing" in done.err
        assert names_in(tmp_path) == before
        return
    assert done.code == 0, done.err
    assert names_in(tmp_path) == sorted([*before, out.name, f"{out.name}.json"])
    found, scale = read(out), 2 if words[0] == "upscale" else 1
    n_colours = 3 if name == "colorize" else channels
    assert found.dtype == values.dtype
    assert found.shape == (size[0] * scale, size[1] * scale, n_colours + alpha)
    assert profile_of(out) == (SRGB if channels == 3 else None)
    if alpha:
        wanted = seen.repeat(scale, 0).repeat(scale, 1)
        middle = slice(max(0, scale * (size[1] // 2) - 2), scale * (size[1] // 2) + 2)
        differs = found[..., n_colours:] != wanted
        differs[:, middle] = False
        assert not differs.any()
    told = report_of(out)
    assert (told["height"], told["width"]) == found.shape[:2]
    measured = agreement(name, unit(found)[..., :n_colours], unit(values), missing == 0)
    assert told["consistency_rmse_255"] == pytest.approx(measured, abs=2e-3)
    if name == "denoise":
        assert measured < 255 * 0.15
        assert measured > 0 or size == (1, 1)
    else:
        assert measured <= PROMISE


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("size", SIZES[:2], ids=named)
def test_a_pixel_and_a_line(tmp_path, prior, name, size):
    check(tmp_path, prior, name, size)


@pytest.mark.parametrize("name", [n for n in COMMANDS if n != "bicubic"])
def test_a_picture_of_prime_sides(tmp_path, prior, name):
    check(tmp_path, prior, name, SIZES[3], bits=16, alpha=True, suffix=".tif")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("size", SIZES, ids=named)
@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ({"bits": 16}, ".png"),
        ({"alpha": True}, ".png"),
        ({"channels": 1}, ".tif"),
        ({"channels": 1, "bits": 16, "alpha": True}, ".tif"),
    ],
)
def test_sizes_and_kinds(tmp_path, prior, name, size, kind, suffix):
    check(tmp_path, prior, name, size, suffix=suffix, **kind)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
@pytest.mark.parametrize("profile", ["its own", "none"])
def test_cmyk_becomes_rgb_and_that_is_said(tmp_path, prior, suffix, profile):
    """What is measured is the picture as libvips shows it on a screen."""
    image = pyvips.Image.new_from_array(photo(11, 37)).copy(interpretation="srgb")
    inks = image.icc_transform("cmyk", input_profile="srgb")
    if profile == "none":
        inks.remove("icc-profile-data")
    inks.write_to_file(str(tmp_path / f"in{suffix}"))
    stored = pyvips.Image.new_from_file(str(tmp_path / f"in{suffix}"))
    assert stored.interpretation == "cmyk"
    shown = stored.icc_transform(
        "srgb", embedded=True, input_profile="cmyk", intent="relative",
        black_point_compensation=True,
    )  # fmt: skip
    out = tmp_path / "out.tif"
    done = sfumato(
        *COMMANDS["box"], tmp_path / f"in{suffix}", "-o", out, "-n", prior, "--steps", 1, "-t", 32
    )
    assert done.code == 0, done.err
    assert "CMYK was converted to sRGB" in done.out
    assert rmse(pool(unit(read(out)), 2), unit(shown.numpy())) <= PROMISE
    assert read(out).shape == (22, 74, 3)
    assert profile_of(out) == bytes(shown.get("icc-profile-data"))


# A picture of 900 megapixels.

SIDE, LEFT, TOP = 30_000, 14_000, 15_000


@pytest.fixture(scope="module")
def vast(tmp_path_factory):
    """A black BigTIFF in deflated tiles, with a small photograph in it."""
    image = pyvips.Image.black(SIDE, SIDE, bands=3).copy(interpretation="srgb")
    image = image.insert(pyvips.Image.new_from_array(photo(300, 300)), LEFT, TOP)
    path = tmp_path_factory.mktemp("vast") / "vast.tif"
    tiles = {"tile": True, "tile_width": 512, "tile_height": 512}
    image.tiffsave(str(path), bigtiff=True, compression="deflate", **tiles)
    assert path.read_bytes()[2] == 43, "it is a BigTIFF"
    return path


@pytest.fixture(scope="module")
def vast_mask(vast):
    """A mask of a few pixels of the photograph."""
    mask = pyvips.Image.black(SIDE, SIDE).draw_rect(255, LEFT + 90, TOP + 80, 40, 30, fill=True)
    path = vast.with_name("mask.tif")
    tiles = {"tile": True, "tile_width": 512, "tile_height": 512}
    mask.tiffsave(str(path), compression="deflate", **tiles)
    return path


#: At its end the program says how much memory it had at most. What the system tells of a child
#: (ru_maxrss) is at least what its parent, the tests, had before it began.
PROGRAM = """
import atexit, runpy, sys
from pathlib import Path
told = Path(sys.argv.pop(1))
atexit.register(lambda: told.write_text(Path("/proc/self/status").read_text()))
runpy.run_module("sfumato", run_name="__main__", alter_sys=True)
"""


class Measured:
    """A run of the program in a process of its own, whose largest memory is known."""

    def __init__(self, *words, until=None):
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "status"
            self.run = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(told), *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            if until:
                while self.run.poll() is None and not until():
                    time.sleep(0.05)
            if self.run.poll() is None and until:
                told = Path(f"/proc/{self.run.pid}/status")
                self.gb = self._gb(told)
                self.run.send_signal(signal.SIGKILL)
                self.out, self.err = self.run.communicate()
            else:
                self.out, self.err = self.run.communicate()
                self.gb = self._gb(told)
        self.code = self.run.returncode

    def _gb(self, told):
        return int(re.search(r"VmHWM:\s+(\d+)", told.read_text())[1]) * 1024 / 1e9


#: Gigabytes that are enough for a picture of any size.
ENOUGH = 1.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["box", "bicubic"])
def test_a_dry_run_of_a_vast_picture(tmp_path, prior, vast, name):
    out = tmp_path / "out.tif"
    quick = ("--steps", 1, "-t", 256)
    run = Measured(*COMMANDS[name], vast, "-o", out, "-n", prior, *quick, "--dry-run")
    assert run.code == 0, run.err
    assert "60000 x 60000 pixels" in run.out
    assert run.gb < ENOUGH
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["box", "bicubic"])
def test_a_region_of_a_vast_picture(tmp_path, prior, vast, name):
    out, (x, y) = tmp_path / "out.tif", (2 * LEFT + 100, 2 * TOP + 100)
    region = ("--region", f"{x},{y},300,200")
    quick = ("--steps", 1, "-t", 256)
    run = Measured(*COMMANDS[name], vast, "-o", out, "-n", prior, *quick, *region)
    assert run.code == 0, run.err[-500:]
    assert run.gb < ENOUGH
    found = unit(read(out))
    assert found.shape == (200, 300, 3)
    there = unit(photo(300, 300))[50:150, 50:200]
    inner = slice(4, -4), slice(4, -4)  # cubic weights look beyond the region
    assert agreement(name, found, there, None) <= (PROMISE if name == "box" else 8)
    measured = pool(found, 2) if name == "box" else small_again(found)
    assert rmse(measured[inner], there[inner]) <= PROMISE


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--region", f"{LEFT},{TOP},200,100")])
def test_a_mask_of_a_vast_picture(tmp_path, prior, vast, vast_mask, more):
    """It is taken in bounded memory, or refused with advice that can be followed."""
    out = tmp_path / "out.tif"
    quick = ("--steps", 1, "-t", 256)
    words = ("inpaint", vast, "-m", vast_mask, "-o", out, "-n", prior, *quick, *more)
    job = tmp_path / "out.tif.job" / "records.jsonl"
    until = None if more else lambda: job.exists() and job.stat().st_size > 0
    for limit in ((), ("--limit-pixels", SIDE**2)):
        run = Measured(*words, *limit, until=until)
        assert run.gb < ENOUGH
        if run.code in (0, -signal.SIGKILL):
            return
        assert run.code in (1, 2)
        assert run.err.count("\n") == 1
        assert not list(tmp_path.iterdir())
        if "limit" not in run.err:
            return
    pytest.fail(f"what it says to do does not help: {run.err}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["box", "bicubic"])
def test_a_vast_picture_is_begun_and_gone_on_with(tmp_path, prior, vast, name):
    """Killed after a few tiles, in bounded memory."""
    out = tmp_path / "out.tif"
    log = tmp_path / "out.tif.job" / "records.jsonl"
    words = (*COMMANDS[name], vast, "-o", out, "-n", prior, "--steps", 1, "-t", 256)
    for k in (1, 2):
        before = log.stat().st_size if log.exists() else 0
        run = Measured(*words, until=lambda n=before: log.exists() and log.stat().st_size > n)
        assert run.code == -signal.SIGKILL, run.err
        assert log.stat().st_size > before, k
        assert run.gb < ENOUGH
    assert not out.exists()
