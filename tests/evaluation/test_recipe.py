"""Recipes: every one of the package makes sense, and what is wrong in one is told in a line."""

import math
import re
from pathlib import Path

import pytest

from sfumato.errors import SettingsError
from sfumato.evaluation.benchmark import Benchmark, Finished, run_benchmark
from sfumato.evaluation.contenders import contender
from sfumato.evaluation.data_sets import photographs
from sfumato.evaluation.own import Models
from sfumato.evaluation.recipe import Recipe, load_recipe, recipe_names
from sfumato.evaluation.run_folder import measures_for
from sfumato.io import Picture, write_picture
from sfumato.training import SR3Settings
from sfumato.training import load_recipe as training_recipe

TRAINED = Path(__file__).parents[2] / "recipes" / "ablations"

#: Of measures that need networks which nobody has brought.
HEADS = {"fid": "FID", "is": "IS", "top-1": "top-1 error", "top-5": "top-5 error"}
WHOLE = {
    "title": "Mine",
    "data": {"name": "Set0"},
    "tasks": [{"name": "box", "degradation": "average_pool:2"}],
    "measures": ["psnr"],
}
FAMILY = """
name = "{set}-x{scale}"
title = "{set}"
measures = ["psnr"]
border = {scale}
data = { name = "{set}" }

[family]
set = ["A", "B"]
scale = [2, 4]

[[tasks]]
name = "box"
degradation = "average_pool:{scale}"

[[published]]
recipe = "b-x2"
task = "box"
method = "theirs"
values = { PSNR = 30 }
source = "a paper"
"""


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    monkeypatch.setattr("sfumato.evaluation.recipe.FOLDER", tmp_path)
    (tmp_path / "family.toml").write_text(FAMILY)
    return tmp_path


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_run(name):
    recipe = load_recipe(name)
    with_models = Models(roles=dict.fromkeys(recipe.models, "a model"))
    for part in recipe.methods:
        assert contender(part, Models(), wanted=recipe.models).name == part.name
        assert contender(part, with_models, wanted=recipe.models).name == part.name
    measuring = measures_for(recipe)
    heads = {m.name for m in measuring.chosen.columns}
    heads |= {HEADS[why.partition(":")[0]] for why in measuring.lacking}
    for row in recipe.published:
        assert set(row.values) <= heads


def test_the_benchmarks_that_were_promised_are_there():
    super_resolution = {f"{s}-x{k}" for s in ("set5", "set14") for k in (2, 3, 4, 8)}
    tables = {f"sr3-table-{k}" for k in range(1, 6)} | {"ddnm-table"}
    tasks = {"noisy-x4", "denoising", "deblurring", "inpainting", "colourisation"}
    tasks |= {"old-photographs", "compressed-sensing", "evaluations"}
    ablations = {"ablation-zero-shot", "ablation-sr3-sampling", "ablation-sr3-training"}
    assert super_resolution | tables | tasks | ablations <= set(recipe_names())


def test_a_family_has_a_member_for_each_combination(recipes):
    assert recipe_names() == ["a-x2", "a-x4", "b-x2", "b-x4"]
    member = load_recipe("b-x4")
    assert member.border == 4
    assert member.tasks[0].degradation == "average_pool:4"
    assert member.published == ()
    assert load_recipe("b-x2").published[0].values == {"PSNR": 30}


def test_a_recipe_says_what_differs_from_its_base(recipes):
    (recipes / "mine.toml").write_text('base = "b-x2"\ntitle = "Mine"\n[data]\nfirst = 3\n')
    mine = load_recipe("mine")
    assert (mine.title, mine.data.name, mine.data.first) == ("Mine", "B", 3)
    assert mine.tasks == load_recipe("b-x2").tasks
    assert mine.published == ()
    (recipes / "mine.toml").write_text('base = "mine"\n')
    with pytest.raises(SettingsError, match="recipe mine is based on itself"):
        load_recipe("mine")


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "set5-x2"\nseed = 7\n')
    assert (load_recipe(path).seed, load_recipe(path).data.name) == (7, "Set5")
    with pytest.raises(SettingsError, match=r"missing.toml cannot be read"):
        load_recipe(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tilte": "x"}, "tilte is no key of it; did you mean title?"),
        ({"data": {"name": "x", "frist": 2}}, "data.frist is no key of it; did you mean first?"),
        ({"measures": []}, "measures"),
        ({"tasks": [{"name": "a b", "degradation": "identity"}]}, "tasks.0.name = 'a b'"),
        (
            {"tasks": [{"name": "a", "degradation": "avrage_pool:2"}]},
            "did you mean 'average_pool'",
        ),
        ({"tasks": 2 * WHOLE["tasks"]}, "two of one task name, box"),
        ({"methods": [{"name": "a", "tasks": ["x"]}]}, "method a: task x; expected one of box"),
        (
            {"published": [{"task": "x", "method": "m", "values": {"PSNR": 1}, "source": "s"}]},
            "published: task x; expected one of box",
        ),
    ],
)
def test_what_is_wrong_is_told(change, said):
    with pytest.raises(SettingsError) as told:
        Recipe.of(WHOLE | change, "mine")
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_what_lacks_is_told():
    with pytest.raises(SettingsError, match="recipe mine without title"):
        Recipe.of({k: v for k, v in WHOLE.items() if k != "title"}, "mine")


def test_an_unknown_name_brings_the_near_ones():
    with pytest.raises(SettingsError, match=r"did you mean .*set14-x4"):
        load_recipe("set14x4")
    with pytest.raises(SettingsError, match="there is no task bocks in set14-x4"):
        load_recipe("set14-x4").only("bocks")


def test_the_recipe_on_the_page_is_one(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "benchmarks.md"
    (block,) = re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    (tmp_path / "mine.toml").write_text(block)
    recipe = load_recipe(tmp_path / "mine.toml")
    assert contender(recipe.methods[0], Models()).name == "prior"
    assert measures_for(recipe).lacking == ()


def test_every_recipe_is_on_the_page():
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page, re.M)
    told = {name for row in rows for name in re.findall("`(.*?)`", row)}
    told |= {f"{s}-x{k}" for s in ("set5", "set14") for k in (2, 3, 4, 8)}
    told |= {f"sr3-table-{k}" for k in range(1, 6)}
    assert set(recipe_names()) <= told


@pytest.mark.parametrize("path", sorted(TRAINED.glob("*.toml")), ids=lambda path: path.stem)
def test_ablations_that_are_trained_differ_in_one_thing(path):
    (base,) = training_recipe(TRAINED / "sr3-base.toml", SR3Settings)
    (own,) = training_recipe(path, SR3Settings)
    changed = [k for k in SR3Settings.model_fields if getattr(own, k) != getattr(base, k)]
    assert len(changed) == (path.stem != "sr3-base")
    assert path.stem.removeprefix("sr3-") in load_recipe("ablation-sr3-training").models


#: Whatever these ask for can be done by sfumato with any prior.
AT_ONCE = (
    "set5-x2", "set14-x3", "set14-x4", "set5-x8", "noisy-x4", "denoising", "deblurring",
    "inpainting", "colourisation", "old-photographs", "compressed-sensing", "evaluations",
    "ablation-zero-shot",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", AT_ONCE)
def test_every_method_of_a_recipe_can_do_its_tasks(name, photo, stand_in, tmp_path):
    recipe = load_recipe(name)
    parts = [part for part in recipe.methods if part.model != "sr3"]
    models = Models(roles={"embedded": str(stand_in)})
    x = photo.tile(1, 2, 3) if name.startswith("ablation") else photo  # several tiles and levels
    write_picture(Picture(x), tmp_path / "Set1" / "a.png")
    listed = photographs(recipe.data, tmp_path / "Set1")
    contenders = [contender(part, models) for part in parts]
    chosen = measures_for(recipe.model_copy(update={"measures": ("psnr", "rmse-ax")})).chosen
    events = run_benchmark(Benchmark(recipe, listed, contenders, chosen, tmp_path / "out"))
    records = [e.record for e in events if isinstance(e, Finished)]
    assert {r.task for r in records} == {t.name for t in recipe.tasks}
    assert [f"{r.task}, {r.method}: {r.refused}" for r in records if r.refused] == []
    assert all(math.isfinite(r.values["PSNR"]) for r in records)
