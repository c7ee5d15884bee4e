"""What others read of a benchmark: run.json and the tables, ours beside published figures."""

import csv
import json

import pytest
import torch

from sfumato.errors import SettingsError
from sfumato.evaluation.benchmark import Benchmark
from sfumato.evaluation.choice import Networks
from sfumato.evaluation.data_sets import find_data, photographs
from sfumato.evaluation.posed import Answer, Contender
from sfumato.evaluation.recipe import Recipe
from sfumato.evaluation.record import Record
from sfumato.evaluation.run_folder import measures_for, write_run, write_tables

RECIPE = Recipe.of(
    {
        "title": "Made up",
        "data": {"name": "Set0", "pictures": 5, "multiple": 2},
        "tasks": [
            {"name": "box", "degradation": "average_pool:2", "caption": "smaller"},
            {"name": "hole", "degradation": "box_mask:0.5"},
        ],
        "measures": ["psnr", "fid"],
        "notes": ["A note."],
        "published": [
            {
                "task": "box",
                "method": "theirs",
                "values": {"PSNR": 31.25, "FID": 4.5},
                "source": "a paper",
            }
        ],
    },
    "made-up",
)


class Grey(Contender):
    name, caption = "grey", "a grey picture"

    def identity(self, picture):
        return {}

    def answer(self, posed):
        return Answer(torch.full(posed.shape, 0.5))


@pytest.fixture
def benchmark(data, tmp_path):
    listed = photographs(RECIPE.data, find_data(RECIPE.data, [data]))
    chosen = measures_for(RECIPE).chosen
    (tmp_path / "out").mkdir()
    return Benchmark(RECIPE, listed, [Grey()], chosen, tmp_path / "out", "Set0")


RECORDS = [
    Record("box", "grey", "img_0", "k", {"PSNR": 20.0}, 1.0, None, "x.png"),
    Record("box", "grey", "img_1", "k", {"PSNR": 23.0}, 3.0, None, "x.png"),
    Record("hole", "grey", "img_0", "k", refused="holes; expected none"),
]


def test_the_run_is_described(benchmark):
    write_run(benchmark)
    run = json.loads((benchmark.folder / "run.json").read_text("utf-8"))
    assert run["title"] == "Made up"
    assert [(t["name"], t["caption"]) for t in run["tasks"]] == [
        ("box", "smaller"),
        ("hole", "box_mask:0.5"),
    ]
    assert run["methods"] == [{"name": "grey", "caption": "a grey picture"}]
    (measure,) = run["measures"]
    assert (measure["name"], measure["unit"], measure["better"]) == ("PSNR", "dB", "higher")
    assert run["published"] == [
        {
            "task": "box",
            "method": "theirs",
            "values": {"PSNR": 31.25, "FID": 4.5},
            "source": "a paper",
        }
    ]


def test_ours_stand_beside_theirs(benchmark):
    text = write_tables(benchmark, RECORDS).markdown
    assert (benchmark.folder / "table.md").read_text("utf-8") == text
    row = next(line for line in text.splitlines() if line.startswith("| a grey picture"))
    assert row.split(" | ")[1].startswith("21.50 (20.00 to 23.00)")
    theirs = next(line for line in text.splitlines() if line.startswith("| theirs (a paper)"))
    assert "31.25" in theirs
    assert "4.50" in theirs
    assert "- a grey picture: holes; expected none" in text
    assert "- A note." in text
    assert "3 pictures of Set0 of the 5 of the protocol, sides cut to multiples of 2" in text
    assert "seeds 0 to 2" in text


def test_tables_for_programs_say_the_same(benchmark):
    write_tables(benchmark, RECORDS)
    rows = list(csv.DictReader((benchmark.folder / "table.csv").read_text().splitlines()))
    ours = next(r for r in rows if r["method"] == "grey" and r["measure"] == "PSNR")
    assert float(ours["mean"]) == 21.5
    table = json.loads((benchmark.folder / "table.json").read_text())
    assert [r["method"] for r in table["rows"]] == ["grey", "grey", "theirs"]


def test_what_cannot_be_measured_here_is_told(tmp_path):
    measuring = measures_for(RECIPE)
    assert [c.name for c in measuring.chosen.columns] == ["PSNR"]
    (why,) = measuring.lacking
    assert why.startswith("fid: ")
    assert "--inception" in why
    with pytest.raises(SettingsError, match="nothing of made-up can be measured"):
        measures_for(RECIPE.model_copy(update={"measures": ("fid",)}))
    with pytest.raises(SettingsError, match="the measure 'psrn'"):
        measures_for(RECIPE.model_copy(update={"measures": ("psnr", "psrn")}), Networks())


def test_other_pictures_than_the_recipes_are_named(benchmark):
    from dataclasses import replace

    text = write_tables(replace(benchmark, source="holidays"), RECORDS).markdown
    assert "3 pictures of holidays, which are not Set0" in text
