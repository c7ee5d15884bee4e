"""Intervals are right by another formula, and hold what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from made_up_study import answers_of, write_answers
from sfumato.evaluation.study import clustered, rates, read_answers, wilson

#: Fool rates of SR3's paper for faces without the input: FSRGAN, PULSE, SR3.
PUBLISHED = {"FSRGAN": 0.085, "PULSE": 0.337, "SR3": 0.474}


@given(st.data(), st.integers(1, 3000))
def test_wilson_agrees_with_scipy(data, n):
    k = data.draw(st.integers(0, n))
    theirs = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_is_where_the_score_test_turns(k, more):
    # Its bounds are the p with (p̂ − p)² = z² p (1 − p)/n; so it needs no formula of its own.
    n = k + more
    z = 1.959963984540054
    for p in wilson(k, n):
        assert (k / n - p) ** 2 == pytest.approx(z * z * p * (1 - p) / n, abs=1e-12)


def test_wilson_of_nothing_and_of_too_much():
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="5 of 4"):
        wilson(5, 4)


def simulated(rng, p, *, subjects=50, pairs=50, spread=0.0):
    """Return each subject's counts, whose own logit wobbles by ``spread``."""
    logit = np.log(p / (1 - p)) + spread * rng.standard_normal(subjects)
    fooled = rng.binomial(pairs, 1 / (1 + np.exp(-logit)))
    return [(int(k), pairs) for k in fooled]


@pytest.mark.parametrize("p", PUBLISHED.values(), ids=PUBLISHED)
def test_wilson_covers_known_rates(p):
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        counts = simulated(rng, p)
        low, high = wilson(sum(k for k, _ in counts), sum(n for _, n in counts))
        held += low <= p <= high
    assert 0.93 <= held / 1000 <= 0.97


def test_the_bootstrap_covers_where_subjects_differ_and_wilson_does_not():
    rng = np.random.default_rng(2)
    spread = 1.0
    logits = spread * np.random.default_rng(3).standard_normal(200_000)
    p = float((1 / (1 + np.exp(-logits))).mean())
    held = {"clustered": 0, "wilson": 0}
    for k in range(200):
        counts = simulated(rng, 0.5, spread=spread)
        low, high = clustered(counts, seed=k, n_resamples=1000)
        held["clustered"] += low <= p <= high
        low, high = wilson(sum(k for k, _ in counts), sum(n for _, n in counts))
        held["wilson"] += low <= p <= high
    assert 0.90 <= held["clustered"] / 200 <= 0.985
    assert held["wilson"] / 200 < 0.85


def test_the_bootstrap_is_seeded_and_needs_two_subjects():
    counts = [(k, 10) for k in range(8)]
    assert clustered(counts) == clustered(counts)
    assert clustered(counts, seed=1) != clustered(counts)
    assert clustered([(3, 10)]) is None
    assert clustered([(3, 10), (0, 0)]) is None


def test_a_simulated_study_gives_its_rates_back(tmp_path):
    answers = [
        read_answers(write_answers(tmp_path, answers_of(f"s{k}", PUBLISHED, pairs=60)))
        for k in range(40)
    ]
    found = rates(answers)
    by_method = {rate.name: rate for rate in found if rate.group == "method"}
    for method, p in PUBLISHED.items():
        rate = by_method[method]
        assert rate.trials == 40 * 20
        assert rate.subjects == 40
        assert rate.interval[0] <= p <= rate.interval[1]
        assert rate.clustered[0] <= p <= rate.clustered[1]
    (everything,) = (rate for rate in found if rate.group == "all")
    for group in ("method", "picture", "subject"):
        own = [rate for rate in found if rate.group == group]
        assert sum(rate.chosen for rate in own) == everything.chosen
        assert sum(rate.trials for rate in own) == everything.trials == 40 * 60
    assert sum(rate.group == "subject" for rate in found) == 40


def test_checks_and_interrupted_pairs_do_not_count(tmp_path):
    facts = answers_of("s", {"ddnm": 1.0}, pairs=4)
    facts["trials"][0]["interrupted"] = True
    found = rates([read_answers(write_answers(tmp_path, facts))])
    assert {(rate.chosen, rate.trials) for rate in found if rate.group == "all"} == {(3, 3)}
