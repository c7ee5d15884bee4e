"""Settings and recipes: misspelt and impossible ones are told apart from good ones."""

import itertools
from pathlib import Path

import pytest

from sfumato.errors import SettingsError
from sfumato.training import PriorSettings, SR3Settings, load_recipe, stage_runs
from sfumato.zoo.prior import load_sr3

RECIPES = Path(__file__).parents[2] / "recipes"


def test_the_recipe_of_the_embedded_prior():
    first, second, third, grown, large = load_recipe(RECIPES / "prior.toml", PriorSettings)
    assert first.crop_cycle == (64,)
    assert first.wide_share == 0
    assert first.crop(0) == (64, 16)
    assert round(first.sigma_max) == 20
    assert second == PriorSettings(steps=second.steps)
    assert [second.crop(k) for k in range(5)] == [(128, 4)] * 2 + [(64, 16)] * 3
    assert second.sigma_max == 80
    assert (second.rounds_share, third.rounds_share) == (0, 0.34)
    assert [s.linear for s in (third, grown, large)] == [0, 32, 32]
    assert large.crop(0) == (128, 64)


def test_the_recipe_of_the_embedded_sr3_model():
    first, _, last = load_recipe(RECIPES / "sr3.toml", SR3Settings)
    assert first.init == "embedded"
    assert (first.pooled_share, last.pooled_share) == (0, 0.4)
    config = load_sr3("sr3")[1]
    assert last.network == config.network
    assert (config.pooled, config.regression, config.scale) == (True, True, last.scale)
    assert last.crop(0) == (128, 256)


def test_stages_follow_one_another(tmp_path):
    stages = [PriorSettings(init="mine"), PriorSettings(), PriorSettings()]
    runs = stage_runs(stages, tmp_path, "prior.safetensors")
    assert [s.init for s, _ in runs] == [
        "mine",
        str(tmp_path / "stage-1" / "prior.safetensors"),
        str(tmp_path / "stage-2" / "prior.safetensors"),
    ]
    assert runs[2][1] == tmp_path


def test_the_learning_rate_rises_and_falls():
    s = PriorSettings(steps=1000, warmup_steps=100, learning_rate=1.0)
    rates = [s.rate(k) for k in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert rates.index(max(rates)) in range(95, 101)
    assert rates[500] == pytest.approx(0.5)
    assert rates[1000] == pytest.approx(0)
    assert all(a > b for a, b in itertools.pairwise(rates[100:]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[stage]]\nstepz = 5", r"stage 1: stepz is no setting.*did you mean steps\?"),
        ("[[stage]]\n[[stage]]\nsteps = 0", "stage 2: steps = 0"),
        ("[[stage]]\nsteps = '5'", "steps = '5'"),
        ("[[stage]]\nlearning_rate = nan", "learning_rate"),
        ("[[stage]]\nlearning_rate = -1", "learning_rate"),
        ("[[stage]]\nwide_sigma = [80, 0.005]", "wide_sigma"),
        ("[[stage]]\ncrop_cycle = []", "crop_cycle"),
        ("[[stage]]\ncrop_cycle = [100000]", "4096"),
        ("[[stage]]\nchannels = [1000000000]", "a width of channels"),
        ("[[stage]]\nprecision = 'fp8'", "precision"),
        ("steps = 5", "holds steps"),
        ("stage = 5", r"expected tables called \[\[stage\]\]"),
        ("stage = [1]", "no table"),
        ("", "no stage"),
        ("[[stage", "cannot be read"),
    ],
)
def test_bad_recipes_are_refused(tmp_path, text, message):
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=message):
        load_recipe(path, PriorSettings)


def test_a_missing_recipe(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_recipe(tmp_path / "none.toml", PriorSettings)
