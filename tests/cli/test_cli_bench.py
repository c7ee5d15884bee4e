"""The benchmarks run, and what they print adds up."""

import re

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
    for part in ("noise", "projection", "reading", "canvas, writing", "all else"):
        assert part in done.out
    assert list(tmp_path.iterdir()) == []


def test_overhead(tmp_path):
    done = sfumato("bench", "overhead", "--side", 64, "--folder", tmp_path)
    assert done.code == 0, done.err
    tiles, network, times = map(
        float, re.search(r"last ([\d.]+) s, network ([\d.]+) s: ([\d.]+) times", done.out).groups()
    )
    assert tiles / network == pytest.approx(times, rel=0.1)
    assert 1 <= times < 3
