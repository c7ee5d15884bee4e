"""What is tried, and how many on how many crops."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in_sr3 import a_prior

from sfumato.diffusion import parse_schedule
from sfumato.errors import SettingsError
from sfumato.evaluation import candidates, plan_rungs
from sfumato.evaluation.halving import cost

NOISE = {"relative": False, "sigmas": (150.0, 10.0, 0.1)}


@pytest.mark.parametrize("n", [1, 2, 16, 100])
@pytest.mark.parametrize("kind", [{}, NOISE])
def test_all_are_schedules_of_that_length(kind, n):
    prior = a_prior(**kind)
    own, *others = candidates(prior, n)
    assert own.sigmas[0] == pytest.approx(prior.super_resolution.sigmas[0])
    assert own.eta is None
    assert len(others) > (2 if n == 1 else 50)
    for c in (own, *others):
        assert len(c.sigmas) == n
        assert list(c.sigmas) == sorted(set(c.sigmas), reverse=True)
        assert 0 < c.sigmas[-1] <= c.sigmas[0] < 152
    assert all(parse_schedule(c.schedule) == c.sigmas for c in others)
    assert len({(c.sigmas, c.eta) for c in (own, *others)}) == 1 + len(others)
    assert {c.eta for c in others} == ({None} if n == 1 else {None, 0, 0.3, 0.5, 0.85, 1})


def test_each_kind_of_model_has_its_own():
    relative = candidates(a_prior(), 16)[1:]
    assert all(c.schedule.startswith("karras") and c.sigmas[0] < 8.001 for c in relative)
    others = candidates(a_prior(**NOISE), 16)[1:]
    assert all(c.sigmas[0] > 10 for c in others)
    assert {c.schedule.split(":")[0] for c in others} == {"karras", "linear"}


def test_no_more_noise_than_the_model_knows():
    prior = replace(a_prior(relative=False, sigmas=(40.0, 1.0)), sigma_max=20.0)
    first = {c.sigmas[0] for c in candidates(prior, 16)}
    assert max(first) <= 40 * 1.001
    assert max(first) >= 15


def test_ramps_end_where_they_say():
    for text in ("linear:100:1e-06:4.4e-05", "linear:16:0.01:0.004"):
        _, _, beta, gamma = text.split(":")
        sigmas = parse_schedule(text)
        assert 1 / (1 + sigmas[0] ** 2) == pytest.approx(float(gamma), rel=1e-6)
        assert 1 / (1 + sigmas[-1] ** 2) == pytest.approx(1 - float(beta), rel=1e-6)


def test_the_order_is_decided_by_the_seed():
    prior = a_prior()
    assert candidates(prior, 8, seed=1) == candidates(prior, 8, seed=1)
    a, b = candidates(prior, 8, seed=1), candidates(prior, 8, seed=2)
    assert a != b
    assert a[0] == b[0]
    assert set(a) == set(b)


def test_other_models_and_no_steps_are_refused():
    with pytest.raises(SettingsError, match="expected an SR3 model of sfumato"):
        candidates(a_prior(sampler="ddpm"), 4)
    with pytest.raises(SettingsError, match="expected an SR3 model"):
        candidates(replace(a_prior(), super_resolution=None), 4)
    with pytest.raises(SettingsError, match="at least 1"):
        candidates(a_prior(), 0)


@settings(max_examples=40)
@given(
    n=st.integers(2, 300),
    budget=st.integers(0, 20_000),
    least=st.integers(2, 40),
    more=st.integers(0, 400),
    keep=st.integers(2, 4),
)
def test_a_plan_keeps_its_budget_and_is_worth_it(n, budget, least, more, keep):
    most = least + more
    if budget < 2 * least:
        with pytest.raises(SettingsError, match=f"at least {2 * least}"):
            plan_rungs(n, budget, least=least, most=most, keep=keep)
        return
    rungs = plan_rungs(n, budget, least=least, most=most, keep=keep)
    assert cost(rungs) <= budget
    assert 2 <= rungs[0].candidates <= n
    assert all(least <= r.crops <= most for r in rungs)
    for a, b in pairwise(rungs):
        assert b.crops == min(most, keep * a.crops)
        # Another rung has fewer candidates, the one that is never dropped among them.
        assert 2 <= b.candidates <= a.candidates
        assert b.candidates - 1 >= (a.candidates - 1) / keep
    richer = plan_rungs(n, 2 * budget, least=least, most=most, keep=keep)
    assert richer[0].candidates >= rungs[0].candidates


def test_a_large_budget_serves_all_on_all_crops():
    rungs = plan_rungs(241, 10**6, least=16, most=288)
    assert rungs == [rungs[0]]
    assert (rungs[0].candidates, rungs[0].crops) == (241, 288)


def test_impossible_plans_are_refused():
    with pytest.raises(SettingsError, match="at least 2 of either"):
        plan_rungs(1, 1000, least=16, most=288)
    with pytest.raises(SettingsError, match=r"at least 16; take more --crops"):
        plan_rungs(9, 1000, least=16, most=15)
