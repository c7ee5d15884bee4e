"""The benchmarks run, and what they print adds up."""

import re
import subprocess
import sys

import pytest
from stand_in import sfumato


@pytest.mark.parametrize("kernel", ["box", "bicubic"])
def test_engine(tmp_path, kernel):
    done = sfumato(
        "bench", "engine", "--side", 256, "--steps", 2, "--tile", 128, "--kernel", kernel,
        "--folder", tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert re.match(r"256 x 256: 9 tiles, 18 evaluations, .* peak memory \d+ MB", done.out)
    consistency = float(re.search(r"consistency ([\d.]+)/255", done.out)[1])
    assert consistency < 0.5
    shares = [float(n) for n in re.findall(r"([\d.]+)%$", done.out, re.M)]
    assert sum(shares) == pytest.approx(100, abs=1)
    for part in ("noise", "projection", "reading", "canvas, writing", "  writing", "all else"):
        assert part in done.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["box", "bicubic"])
def test_memory_does_not_grow_with_the_picture(tmp_path, kernel):
    peaks = []
    for side in (3072, 9216) if kernel == "box" else (2048, 4096):
        words = ["--side", side, "--steps", 1, "--kernel", kernel, "--folder", tmp_path]
        command = [sys.executable, "-m", "sfumato", "bench", "engine", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(re.search(r"peak memory (\d+) MB", done.stdout)[1]))
    assert peaks[1] <= 1.15 * peaks[0]
    assert peaks[1] <= 1500


def test_overhead(tmp_path):
    done = sfumato("bench", "overhead", "--side", 64, "--folder", tmp_path)
    assert done.code == 0, done.err
    tiles, network, times = map(
        float, re.search(r"last ([\d.]+) s, network ([\d.]+) s: ([\d.]+) times", done.out).groups()
    )
    assert tiles / network == pytest.approx(times, rel=0.1)
    assert 1 <= times < 3


def test_linear(tmp_path):
    words = ["--sides", "64,96,128", "--steps", 1, "--repeats", 2, "--folder", tmp_path]
    done = sfumato("bench", "linear", *words)
    assert done.code == 0, done.err
    assert len(re.findall(r"^ +\d+ x \d+ +1 tiles", done.out, re.M)) == 3
    found = [float(n) for n in re.findall(r"R² = ([\d.]+)", done.out)]
    assert len(found) == 2
    assert all(0 <= n <= 1 for n in found)
    assert sfumato("bench", "linear", "--sides", "64,96").code == 2


@pytest.mark.slow
def test_workers(tmp_path):
    done = sfumato("bench", "workers", "--side", 256, "--steps", 1, "--folder", tmp_path)
    assert done.code == 0, done.err
    together, apart = map(float, re.findall(r": ([\d.]+) s,", done.out))
    share = float(re.search(r"reach ([\d.]+)", done.out)[1])
    assert share == pytest.approx(apart / (2 * together), rel=0.2)
    assert list(tmp_path.iterdir()) == []
