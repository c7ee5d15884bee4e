"""Bad input: one line, the right exit code, nothing written, nothing lost, no network asked."""

import errno
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from stand_in import photo, read, report_of, sfumato, write

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.io import save_checkpoint

QUICK = ("--steps", 2, "-t", 32)


@pytest.fixture
def _no_network(monkeypatch):
    """Whatever fails here, fails before hours have gone by."""

    def asked(self, x_t, sigma):
        pytest.fail("the network was asked before the error was seen")

    monkeypatch.setattr(EDMDenoiser, "forward", asked)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with a good picture and all kinds of bad files."""
    monkeypatch.chdir(tmp_path)
    good = write(tmp_path / "good.png", photo(24, 30))
    write(tmp_path / "clear.png", np.full((24, 30, 4), 90, np.uint8))
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:400])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder").mkdir()
    write(tmp_path / "nothing.png", np.zeros((24, 30, 1), np.uint8))
    write(tmp_path / "all.png", np.full((24, 30, 1), 255, np.uint8))
    write(tmp_path / "other.png", np.full((10, 10, 1), 255, np.uint8))
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99))
        + chunk(b"IEND", b"")
    )  # fmt: skip
    np.save(tmp_path / "nan.npy", np.full((3, 3), np.nan))
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "four.npy", np.zeros((4, 8, 8)))
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.pt")
    save_checkpoint(tmp_path / "foreign.safetensors", {"a": torch.zeros(1)}, {"kind": "sr4"})
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 64)
    return tmp_path


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def contents(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


BOX = ("--kernel", "box", "-s", 2)
#: The words without model and output, the exit code, and what the line must say.
CASES = {
    "no such file": (("upscale", "none.png"), 1, ["there is no file", "none.png"]),
    "cut short": (("upscale", "cut.png"), 1, ["cut.png", "cut short"]),
    "no picture": (("upscale", "text.png"), 1, ["not a picture", "PNG, JPEG"]),
    "empty file": (("upscale", "empty.png"), 1, ["0 bytes"]),
    "empty folder": (("upscale", "folder", "-o", "out"), 1, ["no pictures"]),
    "folder to a file": (("upscale", "folder"), 2, ["expected a folder"]),
    "bomb": (
        ("upscale", "bomb.png", "--limit-pixels", 100_000_000),
        1, ["30000 × 30000", "at most 100,000,000"]),
    "own limit": (("upscale", "good.png", "--limit-pixels", 100), 1, ["30 × 24"]),
    "no limit": (("upscale", "good.png", "--limit-pixels", 0), 2, ["limit-pixels"]),
    "mask that marks nothing": (
        ("inpaint", "good.png", "-m", "nothing.png"), 2, ["marks nothing", "white"]),
    "mask that marks all": (
        ("inpaint", "good.png", "-m", "all.png"), 2, ["every pixel is missing"]),
    "mask of another size": (
        ("inpaint", "good.png", "-m", "other.png"), 2, ["10 x 10", "expected 30 x 24"]),
    "mask that is none": (("inpaint", "good.png", "-m", "text.png"), 1, ["text.png"]),
    "bar in a name": (("inpaint", "good.png", "-m", "a|b.png"), 2, ["a|b.png", "rename"]),
    "no mask": (("inpaint", "good.png", "-m", "none.png"), 1, ["none.png"]),
    "folder of masks": (("inpaint", "good.png", "-m", "folder"), 2, ["folder"]),
    "strokes of another size": (
        ("colorize", "good.png", "--hints", "clear.png"), 2, ["without strokes"]),
    "unknown word": (
        ("restore", "good.png", "-d", "avrage_pool:2"), 2, ["did you mean 'average_pool'?"]),
    "no word": (("restore", "good.png", "-d", ""), 2, ["expected one of"]),
    "noise not last": (
        ("restore", "good.png", "-d", "noise:0.1 | average_pool:2"), 2, ["noise as the last"]),
    "two noises": (("restore", "good.png", "-d", "noise:0.1 | noise:0.1"), 2, ["after noise"]),
    "no factor": (("restore", "good.png", "-d", "average_pool"), 2, ["without its factor"]),
    "half a factor": (("restore", "good.png", "-d", "average_pool:2.5"), 2, ["whole number"]),
    "factor 0": (("restore", "good.png", "-d", "average_pool:0"), 2, ["from 1 to"]),
    "negative noise in words": (
        ("restore", "good.png", "-d", "noise:-0.1"), 2, ["from 0 to 10"]),
    "negative noise": (("denoise", "good.png", "--noise", "-0.1"), 2, ["--noise"]),
    "noise that is no number": (("denoise", "good.png", "--noise", "nan"), 2, ["--noise"]),
    "endless noise": (("denoise", "good.png", "--noise", "inf"), 2, ["from 0 to 10"]),
    "collaborative upscaling": (
        ("upscale", "good.png", "--collaborative"), 2, ["noise alone", "leave out"]),
    "no noise": (("denoise", "good.png", "--noise", "0"), 2, ["nothing to remove"]),
    "scale 0": (("upscale", "good.png", "-s", 0), 2, ["--scale"]),
    "scale beyond reason": (("upscale", "good.png", "-s", 5000), 2, ["from 1 to"]),
    "kernel of NaN": (("deblur", "good.png", "--blur", "nan.npy"), 1, ["nan.npy", "no number"]),
    "black kernel": (("deblur", "good.png", "--blur", "nothing.png"), 2, ["sum"]),
    "blur without a size": (("deblur", "good.png", "--blur", "gaussian"), 2, ["sigma"]),
    "pickled objects": (
        ("restore", "object.npy", "-d", "walsh_hadamard:0.5"), 1, ["object.npy", "objects"]),
    "measured NaN": (
        ("restore", "nan.npy", "-d", "walsh_hadamard:0.5"), 1, ["nan.npy", "no number"]),
    "four channels": (
        ("restore", "four.npy", "-d", "walsh_hadamard:0.5"), 2, ["(4, 8, 8)", "(3, 8, 8)"]),
    "overlap as large as the tile": (
        ("upscale", "good.png", "-t", 32, "--overlap", 32), 2, ["less than the tile's 32"]),
    "tile below one cell": (
        ("upscale", "good.png", "--kernel", "box", "-s", 20, "-t", 16, "--stitch", "mask-shift"),
        2, ["at least one cell"]),
    "no tile at all": (("upscale", "good.png", "-t", 0), 2, ["--tile"]),
    "tiles across bicubic": (
        ("upscale", "good.png", "--stitch", "mask-shift"), 2, ["use --stitch joint"]),
    "too many levels": (("upscale", "good.png", "--levels", 12), 2, ["120 x 96"]),
    "levels without end": (("upscale", "good.png", "--levels", 99), 2, ["levels", "12"]),
    "levels of a blur": (
        ("deblur", "good.png", "--blur", "gaussian:2", "--levels", 2), 2, ["use --levels 1"]),
    "ddnm with noise": (
        ("upscale", "good.png", *BOX, "--noise", 0.1, "--method", "ddnm"), 2, ["ddnm+"]),
    "ddnm+ without noise": (
        ("upscale", "good.png", "--method", "ddnm+"), 2, ["without measurement noise"]),
    "ddnm+ without fresh noise": (
        ("upscale", "good.png", *BOX, "--noise", 0.1, "--method", "ddnm+", "--sampler", "rounds"),
        2, ["rounds; expected ddim, ddpm, sr3"]),
    "proximal with a multistep sampler": (
        ("upscale", "good.png", *BOX, "--noise", 0.1, "--method", "proximal",
         "--sampler", "dpm-solver++"), 2, ["expected ddim, ddpm, sr3, rounds"]),
    "time travel of words": (
        ("upscale", "good.png", "--time-travel", "often"), 2, ["LENGTH:TIMES"]),
    "time travel of nothing": (
        ("upscale", "good.png", "--time-travel", "0:1"), 2, ["at least 1"]),
    "no steps": (("upscale", "good.png", "--steps", 0), 2, ["--steps"]),
    "eta above 1": (("upscale", "good.png", "--eta", 2), 2, ["--eta"]),
    "no samples": (("upscale", "good.png", "--samples", 0), 2, ["--samples"]),
    "seed too large": (("upscale", "good.png", "--seed", 2**64), 2, ["seed"]),
    "unknown device": (("upscale", "good.png", "--device", "toaster"), 2, ["toaster", "cuda"]),
    "device that is not there": (
        ("upscale", "good.png", "--device", "cuda:99"), 2, ["CUDA devices", "--device cpu"]),
    "pickled model": (("upscale", "good.png", "-n", "pickle.pt"), 1, ["of another program"]),
    "foreign model": (("upscale", "good.png", "-n", "foreign.safetensors"), 1, ["'sr4'"]),
    "broken model": (("upscale", "good.png", "-n", "broken.safetensors"), 1, ["damaged"]),
    "no model": (("upscale", "good.png", "-n", "nowhere"), 1, ["no prior", "embedded"]),
    "unknown ending": (("upscale", "good.png", "-o", "out.gif"), 1, [".png, .jpg"]),
    "no ending": (("upscale", "good.png", "-o", "out"), 1, [".png, .jpg"]),
    "below a file": (("upscale", "good.png", "-o", "text.png/out.png"), 1, ["is a file"]),
    "onto the input": (("upscale", "good.png", "-o", "good.png"), 2, ["is the input"]),
    "onto the input's folder": (("upscale", "good.png", "-o", "."), 2, ["is the input"]),
    "onto the mask": (
        ("inpaint", "good.png", "-m", "all.png", "-o", "all.png"), 2, ["is the input"]),
    "report onto the input": (
        ("upscale", "good.png", "--report", "good.png"), 2, ["is the input"]),
    "report onto a folder": (
        ("upscale", "good.png", "--report", "folder"), 1, ["folder", "for the report"]),
    "report below a file": (
        ("upscale", "good.png", "--report", "text.png/r.json"), 1, ["is a file"]),
    "transparency to JPEG": (
        ("upscale", "clear.png", "-o", "out.jpg"), 1, ["no transparency"]),
    "too wide for WebP": (
        ("upscale", "good.png", *BOX[:2], "-s", 600, "-t", 2400, "-o", "out.webp"), 1,
        ["18000 × 14400", "16383"]),
    "name too long": (("upscale", "x" * 300 + ".png"), 1, ["x.png", "too long"]),
    "output name too long": (
        ("upscale", "good.png", "-o", "x" * 300 + ".png"), 1, ["too long"]),
    "degrade a small picture": (
        ("degrade", "good.png", "-d", "average_pool:50"), 2, ["at least 50 x 50"]),
    "degrade onto the input": (
        ("degrade", "good.png", "-d", "identity", "-o", "good.png"), 2, ["is the input"]),
    "coefficients as a picture": (
        ("degrade", "good.png", "-d", "grayscale | walsh_hadamard:0.5"), 1, [".npy"]),
    "degrade with strokes": (
        ("degrade", "good.png", "-d", "grayscale_hints:good.png"), 2, ["strokes"]),
    "project another size": (
        ("project", "good.png", "--measurement", "good.png", "-d", "average_pool:2"), 2,
        ["30 x 24", "expected 60 x 48"]),
    "project onto the input": (
        ("project", "good.png", "--measurement", "good.png", "-d", "identity", "-o", "good.png"),
        2, ["is the input"]),
    "project without the result": (
        ("project", "none.png", "--measurement", "good.png", "-d", "identity"), 1, ["none.png"]),
}  # fmt: skip


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("case", CASES)
def test_one_line_the_right_code_and_nothing_written(place, prior, case):
    words, code, said = CASES[case]
    if words[0] not in ("degrade", "project") and "-n" not in words:
        words = (*words, "-n", prior)
    if "-o" not in words:
        words = (*words, "-o", "out.png")
    before = contents(place)
    done = sfumato(*words)
    assert done.code == code, done
    assert done.out == ""
    for part in said:
        assert part in done.err
    if "Usage:" not in done.err:
        assert done.err.startswith("sfumato: ")
        assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    assert contents(place) == before


def test_a_misspelt_blur_is_a_matter_of_usage(place, prior):
    done = sfumato("deblur", "good.png", "--blur", "gausian:2", "-o", "out.png", "-n", prior)
    assert done.code == 2
    assert "gaussian:SIGMA" in done.err


def test_a_full_disk_leaves_nothing_half_written(place, prior, monkeypatch):
    """What stood there before still stands there."""
    (place / "out.png").write_bytes(b"of yesterday")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = contents(place)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        done = sfumato("upscale", "good.png", "-o", "out.png", "-n", prior, *BOX, *QUICK)
    assert done.code == 1
    assert "No space left" in done.err
    assert "make room; the same command then goes on" in done.err
    assert (place / "out.png").read_bytes() == before[place / "out.png"]
    again = sfumato("upscale", "good.png", "-o", "out.png", "-n", prior, *BOX, *QUICK)
    assert again.code == 0
    assert not (place / "out.png.job").exists()


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_no_memory_is_said_in_a_line(place, prior, monkeypatch, error):
    def greedy(self, x_t, sigma):
        raise error

    monkeypatch.setattr(EDMDenoiser, "forward", greedy)
    done = sfumato("upscale", "good.png", "-o", "out.png", "-n", prior, *BOX, *QUICK)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "out of memory" in done.err


def test_other_mistakes_of_ours_are_not_hidden(place, prior, monkeypatch):
    def wrong(self, x_t, sigma):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(EDMDenoiser, "forward", wrong)
    with pytest.raises(RuntimeError, match="a mistake"):
        sfumato("upscale", "good.png", "-o", "out.png", "-n", prior, *BOX, *QUICK)


def test_an_interruption_ends_with_130_and_writes_nothing(place, prior, monkeypatch):
    def stopped(self, x_t, sigma):
        raise KeyboardInterrupt

    monkeypatch.setattr(EDMDenoiser, "forward", stopped)
    before = contents(place)
    done = sfumato("upscale", "good.png", "-o", "out.png", "-n", prior, *BOX, *QUICK)
    assert (done.code, done.err.count("\n")) == (130, 1)
    assert "interrupted" in done.err
    assert contents(place) == before


def test_a_link_to_the_input_is_the_input(place, prior):
    (place / "link.png").symlink_to(place / "good.png")
    done = sfumato("upscale", "good.png", "-o", "link.png", "-n", prior, *BOX, *QUICK)
    assert done.code == 2
    assert read(place / "good.png").shape == (24, 30, 3)


def test_a_larger_limit_reaches_the_result_too(place, prior, monkeypatch):
    """Four times the picture may be more than the limit for inputs."""
    monkeypatch.setattr("sfumato.io._read.LIMIT_PIXELS", 1000)
    done = sfumato(
        "upscale", "good.png", "-o", "out.png", "-n", prior, *BOX, *QUICK, "--limit-pixels", 800
    )
    assert done.code == 0, done.err
    assert report_of(place / "out.png")["width"] == 60
