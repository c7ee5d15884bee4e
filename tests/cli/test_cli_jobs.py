"""A job survives what happens to it, and its result is that of an undisturbed run, bit for bit."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from stand_in import photo, read, sfumato, write

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.errors import SettingsError
from sfumato.pipeline import Report, kept
from sfumato.pipeline.region import Region

TILES = ["--tile", 32, "--overlap", 16, "--steps", 2, "--stitch", "mask-shift"]
BOX = ["--kernel", "box", "-s", 2]


@pytest.fixture
def small(tmp_path):
    return write(tmp_path / "small.png", photo(60, 44, seed=5))


def restored(small, out, prior, *words):
    done = sfumato("upscale", small, "-o", out, "-n", prior, *TILES, *words)
    assert done.code == 0, done.err
    assert not out.with_name(out.name + ".job").exists()
    return read(out)


def stopped_after(n, monkeypatch):
    """Let the network be asked ``n`` times, and then Ctrl-C be pressed."""
    calls = [0]
    original = EDMDenoiser.forward

    def forward(self, x_t, sigma):
        calls[0] += 1
        if calls[0] > n:
            raise KeyboardInterrupt
        return original(self, x_t, sigma)

    monkeypatch.setattr(EDMDenoiser, "forward", forward)


JOINT = ["--stitch", "joint", "--steps", 5, "--tile", 64]


@pytest.mark.parametrize(
    "kernel",
    [
        BOX,
        ["-s", 2, "--tile", 64, "--overlap", 32],
        [*BOX, "--levels", 2],
        [*BOX, *JOINT, "--sampler", "dpm-solver++"],
        [*BOX, *JOINT, "--time-travel", "2:2"],
        [*BOX, *JOINT, "--levels", 2],
        [*BOX, "--samples", 3, "--tile", 64],
    ],
)
def test_an_interrupted_job_ends_with_the_same_bits(tmp_path, small, prior, kernel, monkeypatch):
    monkeypatch.setattr(kept, "_SECONDS", -1.0)
    monkeypatch.setattr(kept, "_PART", float("inf"))
    expected = restored(small, tmp_path / "a.png", prior, *kernel)
    out, job = tmp_path / "b.png", tmp_path / "b.png.job"
    records = 0
    for n in (3, 15, 9, 1, 13):
        with pytest.MonkeyPatch.context() as patched:
            stopped_after(n, patched)
            done = sfumato("upscale", small, "-o", out, "-n", prior, *TILES, *kernel)
        if done.code == 0:
            break
        assert done.code == 130
        assert not out.exists()
        if job.exists():
            now = len((job / "records.jsonl").read_text().splitlines())
            assert now >= records
            records = now
    assert records > 0
    assert np.array_equal(restored(small, out, prior, *kernel), expected)


def test_batches_do_not_change_the_bits(tmp_path, small, prior):
    expected = restored(small, tmp_path / "a.png", prior, *BOX, "--batch", 1)
    for batch in (2, 7):
        found = restored(small, tmp_path / f"{batch}.png", prior, *BOX, "--batch", batch)
        assert np.array_equal(found, expected)
    joint = [*BOX, "--stitch", "joint"]
    expected = restored(small, tmp_path / "j.png", prior, *joint, "--batch", 1)
    for batch in (2, 7):
        found = restored(small, tmp_path / f"j{batch}.png", prior, *joint, "--batch", batch)
        assert np.array_equal(found, expected)


def test_a_job_of_other_settings_is_not_mixed(tmp_path, small, prior):
    out, job = tmp_path / "out.png", tmp_path / "out.png.job"
    words = ["upscale", small, "-o", out, "-n", prior, *TILES, *BOX]
    with pytest.MonkeyPatch.context() as patched:
        stopped_after(12, patched)
        assert sfumato(*words).code == 130
    assert job.is_dir()
    done = sfumato(*words, "--seed", 3)
    assert done.code == 1
    assert "settings.seed was 0, is 3" in done.err
    assert "--restart" in done.err
    write(small, photo(60, 44, seed=6))
    done = sfumato(*words)
    assert "input was" in done.err
    done = sfumato(*words, "--restart", "--keep-job")
    assert done.code == 0, done.err
    assert json.loads((job / "job.json").read_text())["plan"]["settings"]["seed"] == 0
    # What is finished is not computed again.
    with pytest.MonkeyPatch.context() as patched:
        stopped_after(0, patched)
        assert sfumato(*words).code == 0


def test_16_bits_alpha_and_a_folder_of_chunks(tmp_path, prior):
    pixels = np.uint16(photo(40, 30, seed=1).astype(np.uint16) * 257)
    small = write(tmp_path / "small.png", pixels)
    from sfumato.io import Canvas

    expected = restored(small, tmp_path / "a.tif", prior, *BOX)
    assert expected.dtype == np.uint16
    done = sfumato("upscale", small, "-o", tmp_path / "b.zarr", "-n", prior, *TILES, *BOX)
    assert done.code == 0, done.err
    canvas = Canvas.open(tmp_path / "b.zarr")
    assert np.array_equal(canvas.read(0, 0, canvas.height, canvas.width), expected)


def test_a_region_is_that_of_the_full_run(tmp_path, small, prior):
    """Where it fits into one tile with the same neighbours, exactly; else nearly."""
    full = restored(small, tmp_path / "a.png", prior, *BOX).astype(float)
    done = sfumato(
        "upscale", small, "-o", tmp_path / "r.png", "-n", prior, *TILES, *BOX,
        "--region", "10,20,30,24",
    )  # fmt: skip
    assert done.code == 0, done.err
    part = read(tmp_path / "r.png").astype(float)
    assert part.shape == (24, 30, 3)
    assert "region 10,20,30,24 of" in done.out
    assert np.abs(part - full[20:44, 10:40]).mean() < 20
    for region, said in [("0,0,500,5", "inside of the result"), ("1,2,3", "X,Y,W,H")]:
        done = sfumato(
            "upscale", small, "-o", tmp_path / "n.png", "-n", prior, *BOX, "--region", region
        )
        assert done.code == 2
        assert said in done.err
    with pytest.raises(SettingsError):
        Region.parse("1,1,0,4")


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [[*BOX, "-t", 16, "--overlap", 8], ["-s", 2]])
def test_ten_kills(tmp_path, small, prior, kernel):
    """SIGKILL at ten random moments."""
    began = time.monotonic()
    words = ["upscale", small, "-n", prior, *TILES, *kernel, "-o"]
    command = [sys.executable, "-m", "sfumato", *map(str, words)]
    subprocess.run([*command, tmp_path / "a.png"], check=True, capture_output=True)
    took = time.monotonic() - began
    out, kills, chance = tmp_path / "b.png", 0, random.Random(4)
    while kills < 10:
        running = subprocess.Popen(
            [*command, out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(chance.uniform(0.3, 1) * took)
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
            kills += 1
        elif running.returncode == 0 and kills < 10:
            out.unlink()
            shutil.rmtree(tmp_path / "b.png.job", ignore_errors=True)
        running.wait()
    subprocess.run([*command, out], check=True, capture_output=True)
    assert np.array_equal(read(out), read(tmp_path / "a.png"))


@pytest.mark.parametrize("stitch", ["mask-shift", "joint"])
def test_a_job_goes_on_with_the_threads_it_was_begun_with(tmp_path, small, prior, stitch):
    out = tmp_path / "out.png"
    words = ["upscale", small, "-o", out, "-n", prior, *TILES, *BOX, "--tile", 48]
    words += ["--stitch", stitch]
    seen = []
    original = EDMDenoiser.forward

    def forward(self, x_t, sigma):
        seen.append(torch.get_num_threads())
        return original(self, x_t, sigma)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kept, "_SECONDS", -1.0)
        patched.setattr(kept, "_PART", float("inf"))
        torch.set_num_threads(2)
        stopped_after(18, patched)
        assert sfumato(*words).code == 130
        assert (tmp_path / "out.png.job").is_dir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(EDMDenoiser, "forward", forward)
        torch.set_num_threads(1)
        assert sfumato(*words).code == 0
    assert set(seen) == {2}
    assert torch.get_num_threads() == 1


def test_a_job_in_memory_goes_when_the_report_is_written(tmp_path, small, prior, monkeypatch):
    out, job = tmp_path / "out.png", tmp_path / "out.png.job"
    words = ["upscale", small, "-o", out, "-n", prior, *TILES, *BOX, *JOINT]
    monkeypatch.setattr(kept, "_SECONDS", -1.0)
    monkeypatch.setattr(kept, "_PART", float("inf"))
    there = []
    original = Report.write

    def write_report(self, path, **options):
        there.append(job.is_dir())
        original(self, path, **options)

    monkeypatch.setattr(Report, "write", write_report)
    assert sfumato(*words).code == 0
    assert there == [True]
    assert not job.exists()
