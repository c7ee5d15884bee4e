"""A benchmark is done once, goes on after a kill, and does again only what has changed."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from sfumato.errors import ImageError, SettingsError
from sfumato.evaluation.benchmark import (
    Benchmark,
    Finished,
    Planned,
    key_of,
    numbers_of_sets,
    run_benchmark,
)
from sfumato.evaluation.choice import choose
from sfumato.evaluation.contenders import contender
from sfumato.evaluation.data_sets import find_data, photographs
from sfumato.evaluation.own import Models, Restoring
from sfumato.evaluation.posed import Answer, Contender, pose
from sfumato.evaluation.recipe import MethodPart, Recipe
from sfumato.evaluation.record import read_records
from sfumato.io import Picture, read_picture, write_picture

RECIPE = Recipe.of(
    {
        "title": "Made up",
        "data": {"name": "Set0", "multiple": 2},
        "tasks": [
            {"name": "box", "degradation": "average_pool:2"},
            {"name": "noisy", "degradation": "identity | noise:0.1"},
        ],
        "measures": ["psnr"],
        "seed": 5,
    },
    "made-up",
)


class Counting(Contender):
    """Answers with grey, counts, and may fail at a task."""

    def __init__(self, name="grey", level=0.5, refuses=""):
        self.name = self.caption = name
        self.level, self.refuses, self.asked = level, refuses, []

    def identity(self, picture):
        return {"level": self.level}

    def answer(self, posed):
        if self.refuses and self.refuses in posed.degradation:
            raise SettingsError("no", expected="another task")
        self.asked.append((posed.degradation, posed.picture))
        return Answer(torch.full(posed.shape, self.level), evaluations=7)


@pytest.fixture
def made(data, tmp_path):
    def benchmark(*contenders, recipe=RECIPE, measures="psnr"):
        listed = photographs(recipe.data, find_data(recipe.data, [data]))
        return Benchmark(recipe, listed, contenders, choose(measures), tmp_path / "out")

    return benchmark


def finish(events):
    kept = []
    while True:
        try:
            event = next(events)
        except StopIteration as stop:
            return stop.value, kept
        if isinstance(event, Finished):
            kept.append(event.kept)


def test_everything_is_done_once_and_written_down(made):
    grey = Counting()
    b = made(grey)
    records, kept = finish(run_benchmark(b))
    assert len(records) == 6
    assert not any(kept)
    assert len(set(grey.asked)) == len(grey.asked) == 6
    assert read_records(b.folder) == records
    assert all(r.evaluations == 7 and r.seconds >= 0 and not r.refused for r in records)
    for r in records:
        reference = read_picture(b.folder / "references" / f"{r.picture}.png").pixels
        result = read_picture(b.folder / r.result).pixels
        assert r.result == f"results/{r.task}/grey/{r.picture}.png"
        expected = 10 * math.log10(1 / float((result - reference).double().square().mean()))
        assert r.values["PSNR"] == pytest.approx(expected, abs=1e-4)
        assert (b.folder / "inputs" / r.task / f"{r.picture}.png").is_file()


@pytest.mark.parametrize("n", [0, 1, 3, 5])
def test_what_is_stopped_goes_on(made, n):
    first, second = Counting(), Counting()
    events = run_benchmark(made(first))
    done = 0
    for event in events:
        done += isinstance(event, Finished)
        if done == n and not isinstance(event, Planned):
            break
    events.close()
    records, kept = finish(run_benchmark(made(second)))
    assert kept == [True] * n + [False] * (6 - n)
    assert len(first.asked) + len(second.asked) == 6
    assert not set(first.asked) & set(second.asked)
    assert len(records) == 6


def test_only_what_changed_is_done_again(made):
    finish(run_benchmark(made(Counting("a"), Counting("b"))))
    same, other = Counting("a"), Counting("b", level=0.25)
    b = made(same, other)
    records, kept = finish(run_benchmark(b))
    assert (len(same.asked), len(other.asked)) == (0, 6)
    assert kept == 2 * ([True] * 3 + [False] * 3)
    assert read_records(b.folder) == records
    result = read_picture(b.folder / records[3].result).pixels
    assert torch.equal((result * 255).round(), torch.full_like(result, 64))
    again = Counting("a")
    _, kept = finish(run_benchmark(made(again, recipe=RECIPE.model_copy(update={"seed": 6}))))
    assert len(again.asked) == 6


def test_a_picture_that_changed_is_done_again(made, data):
    finish(run_benchmark(made(Counting())))
    x = read_picture(data / "Set0" / "img_1.png").pixels
    write_picture(Picture(1 - x), data / "Set0" / "img_1.png")
    again = Counting()
    b = made(again)
    finish(run_benchmark(b))
    assert [picture for _, picture in again.asked] == ["img_1"] * 2
    reference = read_picture(b.folder / "references" / "img_1.png").pixels
    assert torch.allclose(reference, 1 - x, atol=1e-6)


def test_a_result_that_is_gone_is_done_again_and_a_new_measure_is_not(made):
    records, _ = finish(run_benchmark(made(Counting())))
    b = made(Counting(), measures="psnr ssim")
    (b.folder / records[0].result).unlink()
    anew, kept = finish(run_benchmark(b))
    assert len(b.contenders[0].asked) == 1
    assert not any(kept)
    assert all(set(r.values) == {"PSNR", "SSIM"} for r in anew)
    assert [r.values["PSNR"] for r in anew] == [r.values["PSNR"] for r in records]
    assert [r.seconds for r in anew[1:]] == [r.seconds for r in records[1:]]


def test_refusals_are_kept_with_their_reason_and_tried_again(made):
    b = made(Counting(refuses="noise"))
    records, _ = finish(run_benchmark(b))
    assert [r.refused for r in records] == [""] * 3 + ["no; expected another task"] * 3
    _, kept = finish(run_benchmark(b))
    assert all(kept)
    assert len(b.contenders[0].asked) == 3
    able = Counting()
    records, _ = finish(run_benchmark(made(able)))
    assert len(able.asked) == 3
    assert not any(r.refused for r in records)
    assert read_records(b.folder) == records


def test_the_key_is_of_all_that_decides(photo):
    posed = pose("average_pool:2", "x", photo, 0)
    keys = {
        key_of(posed, photo, {"a": 1}),
        key_of(posed, photo, {"a": 2}),
        key_of(posed, 1 - photo, {"a": 1}),
        key_of(replace(posed, seed=1), photo, {"a": 1}),
        key_of(replace(posed, degradation="average_pool:4"), photo, {"a": 1}),
    }
    assert len(keys) == 5
    assert key_of(replace(posed, picture="y"), photo, {"a": 1}) in keys


def test_the_key_sees_the_file_of_a_mask(photo, tmp_path):
    keys = set()
    for level in (0.0, 1.0):
        mask = torch.full((1, *photo.shape[1:]), 0.0)
        mask[:, :9] = level
        write_picture(Picture(mask), tmp_path / "m.png")
        posed = pose(f"mask:{tmp_path / 'm.png'}", "x", photo, 0)
        keys.add(key_of(posed, photo, {}))
    assert len(keys) == 2


def test_the_model_and_the_settings_are_part_of_the_identity(stand_in, photo):
    models = Models()

    def told(model="embedded", **settings):
        return json.dumps(
            Restoring("x", "default", models, model=model, settings=settings).identity("")
        )

    assert len({told(), told(str(stand_in)), told(steps=3), told(steps=3, eta=0.5)}) == 4


def test_other_defaults_of_the_program_are_another_method(monkeypatch):
    method = Restoring("x", "default", Models())
    before = method.identity("")
    assert method.identity("") == before
    monkeypatch.setattr("sfumato.pipeline.presets.SMALL_HOLE", 9.0)
    assert method.identity("") != before


def test_coefficients_are_neither_clipped_nor_rounded():
    x = 0.5 + torch.rand((3, 32, 32), generator=torch.Generator().manual_seed(0)) / 2
    posed = pose("walsh_hadamard:0.5", "x", x, 0)
    assert float(posed.y.max()) > 1
    assert torch.equal(posed.y, posed.A(x[None])[0])


def test_each_picture_has_its_own_noise(photo):
    words = "identity | noise:0.1"
    a, b = (pose(words, "x", photo, seed).y for seed in (0, 1))
    assert torch.equal(a, pose(words, "y", photo, 0).y)
    assert not torch.equal(a, b)
    assert torch.equal((a * 255).round() / 255, a)


def test_coefficients_are_not_rounded(photo):
    y = pose("walsh_hadamard:0.5", "x", photo, 0).y
    assert float(y.max()) > 1
    assert not torch.equal((y * 255).round() / 255, y)


def test_sets_are_measured_against_the_photographs_of_their_results(made):
    b = made(Counting(refuses="noise"), measures="psnr")
    told = []

    def mean_of(results, references):
        told.append((len(results), len(references)))
        return float(sum(x.mean() for x in results) / len(results))

    measure = choose("alexnet-frechet").sets[0]
    chosen = replace(b.chosen, sets=(replace(measure, of=mean_of),))
    b = replace(b, chosen=chosen)
    records, _ = finish(run_benchmark(b))
    found, _ = finish(numbers_of_sets(b, records))
    assert told == [(3, 3)]
    assert list(found) == [("box", "grey")]
    assert found["box", "grey"][measure.name] == pytest.approx(0.5, abs=0.01)
    assert finish(numbers_of_sets(b, records))[0] == found
    assert len(told) == 1, "a set is measured once"
    others = [replace(r, key="another") for r in records]
    finish(numbers_of_sets(b, others))
    assert len(told) == 2
    (b.folder / "sets.json").write_text("[1]")
    with pytest.raises(ImageError, match="holds no numbers of sets; remove it"):
        finish(numbers_of_sets(b, records))


def test_a_contender_is_asked_for_its_own_tasks_only(made):
    grey = Counting()
    grey.tasks = ("noisy",)
    records, _ = finish(run_benchmark(made(grey)))
    assert {r.task for r in records} == {"noisy"}
    part = MethodPart(name="sr3", model="sr3", tasks=("bicubic",))
    assert contender(part, Models()).tasks == ("bicubic",)


def test_two_of_one_name_are_refused(made):
    with pytest.raises(SettingsError, match="two methods called grey"):
        made(Counting(), Counting())
    with pytest.raises(SettingsError, match="no method"):
        made()


def test_a_killed_program_goes_on(data, stand_in, tmp_path):
    """SIGKILL while the fifth of six results is made: four are kept, and two are made then."""
    out, asked, go = tmp_path / "out", tmp_path / "asked", tmp_path / "go"
    script = tmp_path / "copy.py"
    script.write_text(
        "import pathlib, sys, shutil, time\n"
        "asked, go = map(pathlib.Path, sys.argv[3:])\n"
        "open(asked, 'a').write('x')\n"
        "while asked.read_text() == 'xx' and not go.exists():\n"
        "    time.sleep(0.05)\n"
        "shutil.copy(sys.argv[1], sys.argv[2])\n"
    )
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'title = "Mine"\nmeasures = ["psnr"]\ndata = { name = "Set0", multiple = 2 }\n'
        '[[tasks]]\nname = "noisy"\ndegradation = "identity | noise:0.1"\n'
        '[[methods]]\nname = "prior"\nsettings = { steps = 2, objective = "perception" }\n'
    )
    template = f"{sys.executable} {script} {{input}} {{output}} {asked} {go}"
    words = ["bench", recipe, "--data", data, "--out", out, "-n", stand_in, "--methods", "recipe"]
    words += ["--methods", f"command:copy:{template}"]
    command = [sys.executable, "-m", "sfumato", *map(str, words)]
    # What a kill leaves of a command lies in the folder of the test.
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **quiet) as started:
        until = time.monotonic() + 240
        while not (asked.is_file() and asked.read_text() == "xx"):
            assert started.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(started.pid, signal.SIGKILL)
    before = (out / "records.jsonl").read_bytes()
    assert len(before.splitlines()) == 4
    go.touch()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = (out / "records.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == len(read_records(out)) == 6
    assert asked.read_text() == "xxxx"  # the one that was under way is begun again
    assert "| copy | " in done.stdout
    assert not list(out.rglob(".sfumato*"))


class Seeded(Counting):
    """Answers with a grey that is a function of the seed."""

    def answer(self, posed):
        answer = super().answer(posed)
        return replace(answer, x=torch.full(posed.shape, (posed.seed % 1000003) / 1000003))


def test_diversity_is_that_of_samples_with_seeds_of_their_own(made):
    sampled, single = Seeded("sampled"), Seeded("single")
    sampled.samples = 3
    b = made(sampled, single, measures="psnr diversity")
    records, _ = finish(run_benchmark(b))
    for record in records:
        beside = b.folder / record.result
        files = sorted(beside.parent.glob(f"{record.picture}.*png"))
        assert len(files) == (3 if record.method == "sampled" else 1)
        if record.method == "single":
            assert math.isnan(record.values["diversity"])
            continue
        levels = torch.stack([read_picture(f).pixels for f in files])
        spread = 255 * levels.std(0).mean().item()
        assert spread > 1
        assert record.values["diversity"] == pytest.approx(spread, rel=1e-4)
        first = read_picture(b.folder / "results" / record.task / "single" / beside.name).pixels
        assert torch.equal(read_picture(beside).pixels, first), "the first one has the usual seed"
    asked = len(sampled.asked)
    again, _ = finish(run_benchmark(made(sampled, single, measures="psnr ssim diversity")))
    assert len(sampled.asked) == asked, "samples are kept too"
    assert [r.values["diversity"] for r in again if r.method == "sampled"] == [
        r.values["diversity"] for r in records if r.method == "sampled"
    ]
    sampled.samples = 4
    finish(run_benchmark(made(sampled, single, measures="psnr")))
    assert len(sampled.asked) > asked
