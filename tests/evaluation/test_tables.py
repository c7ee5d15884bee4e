"""Tables: intervals that cover, forms that come back, and what is bold."""

import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import SettingsError
from sfumato.evaluation.measure import Measure
from sfumato.evaluation.record import Record
from sfumato.evaluation.tables import (
    as_csv,
    as_json,
    as_markdown,
    bootstrap,
    difference,
    published,
    summarise,
)

PSNR = Measure("PSNR", lambda shown: 0.0, "10 log10(1 / MSE)", unit="dB")
LPIPS = Measure("LPIPS", lambda shown: 0.0, "a distance", better="lower", digits=3)
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


def record(method, picture, task="sr", refused="", seconds=math.nan, **values):
    return Record(task, method, picture, "key", values, seconds=seconds, refused=refused)


@given(st.lists(NUMBERS, min_size=2, max_size=30), NUMBERS)
def test_an_interval_holds_the_mean_and_moves_with_the_values(values, shift):
    e = bootstrap(values, resamples=200)
    slack = 1e-9 * (1 + max(map(abs, values)) + abs(shift))
    assert min(values) - slack <= e.low <= e.high <= max(values) + slack
    assert e.mean == pytest.approx(np.mean(values))
    moved = bootstrap([v + shift for v in values], resamples=200)
    assert moved.low == pytest.approx(e.low + shift, abs=1e6 * slack, rel=1e-9)
    assert bootstrap(values, resamples=200) == e


def test_an_interval_covers_the_true_mean_as_often_as_it_says():
    """Of 95 %, with 30 values a percentile bootstrap reaches about 93."""
    rng = np.random.default_rng(0)
    found = [bootstrap(rng.normal(3, 2, 30).tolist(), resamples=400) for _ in range(400)]
    assert 0.89 < np.mean([e.low <= 3 <= e.high for e in found]) < 0.98


def test_an_interval_is_that_of_scipy():
    scipy = pytest.importorskip("scipy.stats")
    x = np.random.default_rng(1).gamma(2, size=40)
    e = bootstrap(x.tolist(), resamples=20000)
    theirs = scipy.bootstrap((x,), np.mean, method="percentile", n_resamples=20000, rng=2)
    want = theirs.confidence_interval
    assert (e.low, e.high) == pytest.approx((want.low, want.high), abs=0.02)


def test_what_has_no_interval():
    assert bootstrap([2.0]).low is None
    assert bootstrap([2.0, math.inf]).mean == math.inf
    assert bootstrap([2.0, math.inf]).high is None
    for values in ([], [1.0, math.nan]):
        with pytest.raises(SettingsError, match="numbers to average"):
            bootstrap(values)


def test_blocks_of_draws_do_not_change_the_interval(monkeypatch):
    values = np.random.default_rng(0).normal(size=50).tolist()
    whole = bootstrap(values)
    monkeypatch.setattr("sfumato.evaluation.tables._BLOCK", 777)
    assert bootstrap(values) == whole


def summaries():
    records = [
        record("ours", "a", PSNR=20.0, LPIPS=0.2, seconds=1.0),
        record("ours", "b", PSNR=22.0, LPIPS=math.nan, seconds=3.0),
        record("bicubic", "a", PSNR=19.0, LPIPS=0.5),
        record("bicubic", "b", PSNR=21.0, LPIPS=0.3),
        record("other", "a", refused="it needs a GPU"),
    ]
    theirs = published("sr", "DDNM", {"PSNR": 27.46}, "arXiv 2212.00490")
    return [*summarise(records, [PSNR, LPIPS]), theirs]


def test_means_are_over_what_was_measured():
    ours, bicubic, other, _ = summaries()
    assert (ours.n, ours.values["PSNR"].mean, ours.values["LPIPS"].n) == (2, 21.0, 1)
    assert ours.seconds == 2.0
    assert bicubic.seconds is None
    assert (other.n, other.refused, dict(other.values)) == (0, "it needs a GPU", {})


def test_the_best_of_ours_is_bold_and_rows_are_told_apart():
    table = as_markdown(summaries(), [PSNR, LPIPS], intervals=False, protocols=True)
    lines = table.splitlines()
    assert lines[0] == "| method | PSNR (dB) ↑ | LPIPS ↓ | seconds |"
    assert lines[2] == "| ours | **21.00** | **0.200** [n = 1] | 2.0 |"
    assert lines[3] == "| bicubic | 20.00 | 0.400 | - |"
    assert lines[4] == "| other | - | - | - |"
    assert lines[5] == "| DDNM (arXiv 2212.00490) | 27.46 | - | - |"
    assert "- PSNR: 10 log10(1 / MSE)." in lines
    assert "- sr, other: not done, it needs a GPU." in lines


def test_intervals_stand_in_the_cells_and_tasks_apart():
    records = [record(m, p, task=t, PSNR=v) for t in ("x2", "x4") for m in ("a", "b")
               for p, v in (("p", 1.0), ("q", 3.0))]  # fmt: skip
    table = as_markdown(summarise(records, [PSNR]), [PSNR])
    assert table.count("### x") == 2
    assert table.count("**2.00** (1.00 to 3.00)") == 4


def test_csv_and_json_hold_all_digits():
    rows = summaries()
    read = list(csv.DictReader(io.StringIO(as_csv(rows, [PSNR, LPIPS]))))
    assert [(r["method"], float(r["mean"])) for r in read if r["measure"] == "PSNR"] == [
        ("ours", 21.0), ("bicubic", 20.0), ("DDNM", 27.46)
    ]  # fmt: skip
    whole = json.loads(as_json(rows, [PSNR, LPIPS]))
    assert whole["measures"][0]["protocol"] == PSNR.protocol
    assert whole["rows"][0]["values"]["PSNR"]["low"] == rows[0].values["PSNR"].low
    infinite = summarise([record("a", "p", PSNR=math.inf)], [PSNR])
    assert json.loads(as_json(infinite, [PSNR]))["rows"][0]["values"]["PSNR"]["mean"] is None
    assert "∞" in as_markdown(infinite, [PSNR])


def test_numbers_of_sets_have_no_interval():
    fid = Measure("FID", lambda shown: 0.0, "a distance of sets", better="lower")
    records = [record("a", p, PSNR=v) for p, v in (("p", 1.0), ("q", 3.0))]
    (summary,) = summarise(records, [PSNR, fid], sets={("sr", "a"): {"FID": 12.5}})
    assert (summary.values["FID"].mean, summary.values["FID"].low) == (12.5, None)


def test_a_difference_is_over_the_same_pictures():
    """Pictures vary by 5 dB, two methods by 0.2: the means' intervals overlap, this one tells."""
    rng = np.random.default_rng(0)
    base = rng.normal(28, 5, 20)
    gain = rng.normal(0.2, 0.1, 20)
    records = [record("b", str(k), PSNR=v) for k, v in enumerate(base)]
    records += [record("a", str(k), PSNR=v) for k, v in enumerate(base + gain)]
    records += [record("a", "alone", PSNR=99.0), record("b", "none", PSNR=math.nan)]
    e = difference(records, "PSNR", "a", "b")
    assert e.n == 20
    assert e.mean == pytest.approx(gain.mean())
    assert 0 < e.low < e.mean < e.high < 0.3
    a, b = (s.values["PSNR"] for s in summarise(records[:40], [PSNR]))
    assert a.low < b.high
    assert b.low < a.high
    back = difference(records, "PSNR", "b", "a")
    assert (back.low, back.high) == pytest.approx((-e.high, -e.low), abs=0.01)
    with pytest.raises(SettingsError, match="0 pictures in 1 tasks with PSNR by a and c"):
        difference(records, "PSNR", "a", "c")
    with pytest.raises(SettingsError, match="in 2 tasks"):
        difference([*records, record("b", "1", task="x2", PSNR=1.0)], "PSNR", "a", "b")
