"""One file keeps the quality figures of every landing; a drop blocks."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from sfumato.zoo import load_prior

FIGURES = Path(__file__).parents[1] / "benchmarks" / "figures.json"
#: Noise of the measurement itself: rounding of the printed figures, other processors.
SLACK_DB, SLACK_LPIPS = 0.03, 0.004

#: Of a model that was taken out (docs/design/decisions.md, "Denoising looked twice").
RETIRED = {"pair: same, distortion"}

HISTORY = json.loads(FIGURES.read_text())


def by_task(entry):
    return {(r["set"], r["task"]): r for r in entry["figures"] if r["task"] not in RETIRED}


def test_the_embedded_models_are_the_ones_that_were_measured():
    assert HISTORY[-1]["model"] == load_prior().digest
    assert HISTORY[-1]["sr3"] == load_prior("sr3").digest


@pytest.mark.parametrize(("before", "after"), list(pairwise(HISTORY)))
def test_no_landing_is_worse_than_the_one_before(before, after):
    old, new = by_task(before), by_task(after)
    assert old.keys() <= new.keys(), "a figure was dropped"
    for key, row in old.items():
        if row["task"].endswith("distortion"):
            assert new[key]["psnr"] >= row["psnr"] - SLACK_DB, key
        if row["task"].endswith("perception"):
            assert new[key]["lpips"] <= row["lpips"] + SLACK_LPIPS, key
