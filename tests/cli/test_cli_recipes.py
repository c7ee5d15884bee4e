"""sfumato bench NAME: recipes beside the other commands, and what is told of mistakes."""

import json

import pytest
from stand_in import photo, read, sfumato, write

RECIPE = """
title = "Made up"
measures = ["psnr", "consistency"]
data = { name = "Set0", multiple = 2 }

[[tasks]]
name = "box"
degradation = "average_pool:2"

[[methods]]
name = "bicubic"
use = "bicubic"

[[methods]]
name = "prior"
settings = { steps = 2, objective = "perception" }

[[methods]]
name = "holes"
use = "biharmonic"
"""


@pytest.fixture
def place(tmp_path):
    for k in range(2):
        write(tmp_path / "data" / "set0" / f"img_{k}.png", photo(38, 46, seed=k))
    (tmp_path / "mine.toml").write_text(RECIPE)
    return tmp_path


def bench(place, prior, *words):
    recipe, out = place / "mine.toml", place / "out"
    fixed = ("--data", place / "data", "--out", out, "-n", prior)
    return sfumato("bench", recipe, *fixed, *words)


def test_a_table_is_printed_and_kept(place, prior):
    done = bench(place, prior)
    assert done.code == 0, done.err
    assert "# Made up" in done.out
    assert "| bicubic interpolation | " in done.out
    assert "| prior | " in done.out
    assert "- biharmonic inpainting: average_pool:2; expected a picture with holes" in done.out
    assert "2 pictures of set0, sides cut to multiples of 2; seeds 0 to 1" in done.out
    folder = place / "out"
    assert {p.name for p in folder.iterdir()} == {
        "references", "inputs", "results", "records.jsonl", "run.json", "table.md", "table.csv",
        "table.json",
    }  # fmt: skip
    assert read(folder / "results" / "box" / "prior" / "img_1.png").shape == (38, 46, 3)
    lines = (folder / "records.jsonl").read_text().splitlines()
    again = bench(place, prior)
    assert again.out == done.out
    assert (folder / "records.jsonl").read_text().splitlines() == lines


def test_methods_of_ones_own_and_limits(place, prior):
    words = ("--methods", "recipe ddnm@steps=2,objective=perception", "--limit", 1)
    done = bench(place, prior, *words, "--methods", "command:copy:cp {input} {output}")
    assert done.code == 0, done.err
    assert "| ddnm@steps=2,objective=perception | " in done.out
    assert "- copy: a result of 23 x 19 pixels; expected 46 x 38" in done.out
    records = [json.loads(s) for s in (place / "out" / "records.jsonl").read_text().splitlines()]
    assert {r["picture"] for r in records} == {"img_0"}


def test_several_models_are_compared(place, prior):
    done = bench(place, prior, "-n", "embedded", "--limit", 1)
    assert done.code == 0, done.err
    assert "| prior, stand-in | " in done.out
    assert "| prior, embedded | " in done.out


def test_the_environment_names_the_folder_of_data_sets(place, prior, monkeypatch):
    monkeypatch.setenv("SFUMATO_DATA", str(place / "data"))
    words = ("--out", place / "out", "--methods", "bicubic")
    assert sfumato("bench", place / "mine.toml", *words).code == 0
    listed = sfumato("bench", "list", "--data", place / "data")
    assert listed.code == 0
    assert "set14-x4 " in listed.out
    assert "(needs Set14)" in listed.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("set14x4",), "there is no recipe set14x4; expected one of ablation"),
        (("set14-x4",), "Set14 was looked for in no folder at all"),
        (("engin",), "there is no recipe engin"),
        (("set14-x4", "--tasks", "bocks"), "there is no task bocks in set14-x4"),
        (("sr3-table-1", "--data", "."), "give -n sr3=PATH"),
    ],
)
def test_mistakes_are_told_in_a_line(words, said, monkeypatch, place):
    monkeypatch.delenv("SFUMATO_DATA", raising=False)
    monkeypatch.chdir(place / "data" / "set0")
    done = sfumato("bench", *words)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def test_half_of_what_lpips_needs_is_refused_before_any_work(place, prior):
    done = bench(place, prior, "--lpips", place / "alexnet.pth")
    assert done.code == 2
    assert "one of --lpips and --lpips-heads; expected both, or neither" in done.err
    assert not list(place.rglob("records.jsonl"))


def test_unknown_methods_and_roles(place, prior):
    done = bench(place, prior, "--methods", "bicubc")
    assert (done.code, "did you mean bicubic?" in done.err) == (2, True)
    words = ("--data", place / "data" / "set0", "-n", "sr=x")
    done = sfumato("bench", "sr3-table-1", *words)
    assert (done.code, "there is no model sr in recipe sr3-table-1" in done.err) == (2, True)


def test_other_commands_are_beside_it():
    helped = sfumato("bench", "--help").out
    for name in ("run", "list", "engine", "methods"):
        assert name in helped
