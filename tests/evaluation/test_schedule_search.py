"""The search finds the schedule of the right roughness, within its budget, the same each time."""

import math
from itertools import pairwise

import pytest
import torch
from stand_in_sr3 import White, a_network, a_prior, looks, textures, write_model

import sfumato
from sfumato.diffusion import parse_schedule
from sfumato.errors import ModelError, OutputError, SettingsError
from sfumato.evaluation import (
    Candidate,
    Measured,
    Planned,
    Search,
    candidates,
    check_place,
    sample_crops,
    search_schedule,
    store_schedule,
)
from sfumato.evaluation.sr3_samples import measure
from sfumato.io import load_checkpoint
from sfumato.metrics import Projection, frechet_between, kernel_distance, psnr
from sfumato.pipeline import Settings
from sfumato.zoo import load_prior


def candidate(text, eta=None):
    return Candidate(text, parse_schedule(text), eta)


#: From too little noise samples come out smooth; SR3's own sampler makes large last steps rough.
SMOOTH = candidate("karras:12:0.02:0.005", 0.0)
GOOD = candidate("karras:12:1:0.005", 0.0)
ROUGH = candidate("0.6,0.5,0.4,0.3,0.28,0.26,0.24,0.22,0.2,0.18,0.17,0.16", None)


def run(events):
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as stop:
            return seen, stop.value


def searched(tried, prior=None, crops=None, **changes):
    search = Search(**({"n_steps": 12, "dimensions": 2, "budget": 900} | changes))
    prior, crops = prior or a_prior(White()), textures(40) if crops is None else crops
    return run(search_schedule(prior, crops, search, features=looks, tried=tried))


@pytest.mark.parametrize("distance", ["frechet", "kernel"])
@pytest.mark.parametrize("tried", [[GOOD, SMOOTH, ROUGH], [SMOOTH, ROUGH, GOOD]])
def test_the_right_roughness_is_found_which_psnr_would_not(distance, tried):
    _, found = searched(tried, distance=distance)
    assert found.best.candidate == GOOD
    last = {m.candidate: m for m in found.table if m.rung == found.best.rung}
    assert found.own == last[tried[0]]
    assert found.own.distance >= found.best.distance
    if SMOOTH in last:
        assert last[SMOOTH].psnr > found.best.psnr


def test_samples_of_a_white_residual_have_its_variance():
    """The closed form of Euler's method: a step multiplies by ``g + (σ_s/σ) (1 − g)``."""
    s, sigmas = 0.1, [*GOOD.sigmas, 0.0]
    factor = sigmas[0]
    for a, b in pairwise(sigmas):
        gain = s**2 / (s**2 + a**2)
        factor *= gain + (b / a) * (1 - gain)
    prior = a_prior(White(s))
    y = torch.zeros(12, 3, 8, 8)
    x = sample_crops(prior, y, GOOD)
    assert float(x.std()) == pytest.approx(factor, rel=0.03)
    # From noise alone the mean is the condition's all the same, for this model.
    y = y + 0.3
    assert float(sample_crops(prior, y, GOOD).mean()) == pytest.approx(0.3, abs=0.01)


def test_the_budget_is_kept_and_told():
    tried = [SMOOTH, *(candidate(f"karras:12:{1 + k / 10}:0.005", 0.0) for k in range(12))]
    events, found = searched(tried, budget=1900)
    planned, *measured = events
    assert isinstance(planned, Planned)
    assert planned.evaluations <= 1900
    assert list(found.table) == measured
    assert all(isinstance(m, Measured) for m in measured)
    assert measured[-1].evaluations == planned.evaluations
    used = [m.evaluations for m in measured]
    assert used == sorted(set(used))
    for number, rung in enumerate(planned.rungs):
        here = [m for m in measured if m.rung == number]
        assert {m.crops for m in here} == {rung.crops}
        assert len(here) == rung.candidates
        assert here[0].candidate == SMOOTH
    assert len(planned.rungs) > 1


def test_the_better_ones_are_kept():
    tried = [SMOOTH, ROUGH, *(candidate(f"karras:12:{1 + k / 10}:0.005", 0.0) for k in range(8))]
    _, found = searched(tried, budget=1900)
    first = sorted((m for m in found.table if m.rung == 0), key=lambda m: m.distance)
    second = [m.candidate for m in found.table if m.rung == 1]
    best = [m.candidate for m in first if m.candidate != SMOOTH]
    assert set(second[1:]) == set(best[: len(second) - 1])
    assert ROUGH not in second


@pytest.mark.parametrize("distance", ["frechet", "kernel"])
def test_a_rung_measures_what_it_would_have_alone(distance):
    """Samples of earlier rungs are used again, and are compared with the true crops of theirs."""
    tried = [SMOOTH, *(candidate(f"karras:12:{1 + k / 10}:0.005", 0.0) for k in range(8))]
    crops = textures(40)
    _, found = searched(tried, crops=crops, budget=1900, distance=distance)
    own = [m for m in found.table if m.candidate == SMOOTH]
    assert [m.rung for m in own] == list(range(found.own.rung + 1))
    assert len(own) > 1
    prior, n = a_prior(White()), own[-1].crops
    x, truth = (
        (v + 1) / 2 for v in (sample_crops(prior, measure(prior, crops[:n]), SMOOTH), crops)
    )
    few = Projection.of(looks(truth[:n]), 2)
    for m in own:
        a, b = x[: m.crops], truth[: m.crops]
        assert m.psnr == pytest.approx(float(psnr(a, b).mean()), abs=1e-4)
        pair = few(looks(a)), few(looks(b))
        by_hand = {
            "frechet": frechet_between(*pair),
            "kernel": kernel_distance(*pair, paired=True),
        }
        assert m.distance == pytest.approx(by_hand[distance], rel=1e-4)


def test_the_same_each_time_and_another_with_another_seed():
    tried = [GOOD, SMOOTH, ROUGH]
    a, b, c = (searched(tried, seed=s)[1].table for s in (1, 1, 2))
    assert a == b
    assert a != c


def test_what_breaks_is_infinitely_far():
    """And is no trouble for the others."""
    prior = a_prior(White(broken_above=0.9))
    _, found = searched([GOOD, SMOOTH, ROUGH], prior=prior)
    assert math.isinf(found.own.distance)
    assert found.best.candidate != GOOD


def test_crop_0_is_sampled_as_a_restoration_is():
    prior = a_prior(a_network())
    y = measure(prior, textures(3, side=32))
    c = Candidate("", (1.0, 0.3, 0.1), 0.5)
    ours = (sample_crops(prior, y, c, seed=7) + 1) / 2
    settings = Settings(schedule=c.sigmas, sampler="ddim", eta=0.5, seed=7, method="none")
    theirs = sfumato.restore((y[0] + 1) / 2, "bicubic:4", prior=prior, settings=settings)
    torch.testing.assert_close(ours[0], theirs.image, atol=1e-4, rtol=0)

    c = Candidate("", (1.0, 0.3, 0.1), None)
    settings = Settings(schedule=c.sigmas, sampler="sr3", seed=7, samples=3, method="none")
    theirs = sfumato.restore((y[2] + 1) / 2, "bicubic:4", prior=prior, settings=settings)
    ours = (sample_crops(prior, y, c, seed=7) + 1) / 2
    # Of a batch some values may be rounded the other way.
    assert float((ours[2] - theirs.samples[2]).abs().mean()) < 0.01 / 255
    alone = (sample_crops(prior, y[2:], c, first=2, seed=7) + 1) / 2
    torch.testing.assert_close(alone[0], theirs.samples[2], atol=1e-4, rtol=0)


@pytest.mark.parametrize("n", [1, 3, 5])
def test_its_own_schedule_is_that_of_a_restoration(n):
    prior = a_prior(a_network())
    y = (measure(prior, textures(1, side=32))[0] + 1) / 2
    made = sfumato.restore(y, "bicubic:4", prior=prior, settings=Settings(steps=n)).report
    assert tuple(made.settings["schedule"]) == candidates(prior, n)[0].sigmas


def test_a_model_that_is_not_relative_begins_with_noise_alone():
    prior = a_prior(a_network(), relative=False)
    y = measure(prior, textures(1, side=32))
    c = Candidate("", (50.0, 0.3), None)
    settings = Settings(schedule=c.sigmas, sampler="sr3", method="none")
    theirs = sfumato.restore((y[0] + 1) / 2, "bicubic:4", prior=prior, settings=settings)
    ours = (sample_crops(prior, y, c) + 1) / 2
    torch.testing.assert_close(ours[0], theirs.image, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kernel", ["bicubic", "average_pool"])
def test_consistent_samples_agree_with_their_input(kernel):
    prior = a_prior(a_network(), kernel=kernel)
    y = measure(prior, textures(3, side=32))
    c = Candidate("", (1.0, 0.3, 0.1), None)
    free, exact = (sample_crops(prior, y, c, consistent=flag) for flag in (False, True))
    off = [float((measure(prior, x) - y).square().mean().sqrt()) * 127.5 for x in (free, exact)]
    assert off[1] < 0.5 < off[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 11}, "a budget of 11 evaluations; expected at least 96: 2 schedules of 12"),
        ({"dimensions": 40}, "40 crops for features of 40 dimensions; expected at least 41"),
        ({"n_steps": 0}, "n_steps = 0"),
        ({"distance": "fid"}, "expected frechet or kernel"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_what_cannot_be_searched_is_refused(changes, message, unchecked):
    with pytest.raises(SettingsError, match=message):
        searched([GOOD, SMOOTH, ROUGH], **changes)


def test_crops_must_fit_the_scale():
    with pytest.raises(SettingsError, match="a multiple of the scale, 4"):
        searched([GOOD, SMOOTH], crops=textures(9, side=18))


def test_a_schedule_is_stored_with_its_model(tmp_path):
    source = write_model(tmp_path / "a.safetensors")
    source.with_suffix(".md").write_text("# A card\n")
    out = tmp_path / "b.safetensors"
    c = Candidate("karras:2:1:0.1", (1.0, 0.1), 0.5)
    store_schedule(source, out, c, {"budget": 9})
    prior = load_prior(out)
    assert (prior.super_resolution.sigmas, prior.super_resolution.eta) == (c.sigmas, 0.5)
    assert prior.card == "# A card\n"
    (old, before), (new, after) = load_checkpoint(source), load_checkpoint(out)
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    changed = {k for k in after if after[k] != before.get(k)}
    assert changed == {"sigmas", "eta", "training"}
    assert after["training"] == {"steps": 3, "schedule_search": {"budget": 9}}
    assert load_prior(source).super_resolution.eta is None


def test_a_schedule_replaces_that_of_the_model_itself(tmp_path):
    path = write_model(tmp_path / "a.safetensors", eta=0.5, sigmas=[2.0, 1.0])
    path.with_suffix(".md").write_text("# A card\n")
    store_schedule(path, path, Candidate("", (1.0, 0.1), None))
    model = load_prior(path).super_resolution
    assert (model.sigmas, model.eta) == ((1.0, 0.1), None)
    assert path.with_suffix(".md").read_text() == "# A card\n"


def test_where_nothing_can_be_stored(tmp_path):
    source = write_model(tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="kind 'prior'"):
        store_schedule(write_model(tmp_path / "p.safetensors", kind="prior"), source, GOOD, None)
    with pytest.raises(SettingsError, match=r"ends in \.safetensors"):
        check_place(tmp_path / "a.pt")
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_place(tmp_path / "d.safetensors")
