"""``sfumato train``: parses, trains, shows, goes on."""

import csv
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import pyvips
from typer.testing import CliRunner

from sfumato.cli.train import train_app
from sfumato.cli.training_display import TimeLeft
from sfumato.io import load_checkpoint
from sfumato.zoo import load_prior

RECIPE = """
[[stage]]
channels = [4, 8]
blocks = 1
embedding = 8
steps = 4
crop_cycle = [16]
[[stage]]
channels = [4, 8]
blocks = 1
embedding = 8
steps = 3
crop_cycle = [16, 8]
"""


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for k in range(2):
        image = pyvips.Image.new_from_array(rng.integers(0, 256, (40, 40, 3), np.uint8))
        image.write_to_file(str(tmp_path / "photos" / f"{k}.png"))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def call(folder, *options):
    photos = str(folder / "photos")
    required = ["--data", photos, "--holdout", photos, "--out", str(folder / "run")]
    given = [*required, *options, "--device", "cpu", "--batch", "1"]
    return CliRunner().invoke(train_app, ["prior", *given])


def test_a_recipe_is_run_stage_by_stage_and_goes_on(folder):
    recipe = ["--recipe", str(folder / "recipe.toml")]
    first = call(folder, *recipe, "--minutes", "0")
    assert first.exit_code == 0, first.output
    assert "Stopped at step 1" in first.output
    second = call(folder, *recipe)
    assert second.exit_code == 0, second.output
    assert "from step 1" in second.output
    assert "dB at noise 0.05:" in second.output
    assert "Only 2 photographs" in second.output
    assert load_prior(folder / "run" / "stage-1" / "prior.safetensors").stride == 4
    assert load_prior(folder / "run" / "prior.safetensors").stride == 4


def test_a_run_leaves_a_log_and_sheets(folder):
    recipe = ["--recipe", str(folder / "recipe.toml"), "--prepare", "16"]
    for minutes in ("0", "60"):
        result = call(folder, *recipe, "--minutes", minutes)
        assert result.exit_code == 0, result.output
    for stage, last in (("run/stage-1", 4), ("run", 3)):
        with (folder / stage / "log.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        steps = [int(row["step"]) for row in rows]
        assert steps == sorted(set(steps))
        assert steps[-1] == last
        assert float(rows[-1]["dB at noise 0.1"]) > 0
        sheet = pyvips.Image.new_from_file(
            str(folder / stage / "samples" / f"step-{last:06d}.png")
        )
        assert (sheet.width, sheet.height) == (4 + 3 * 20, 4 + 2 * 20), "pictures of 16 pixels"


def test_without_tensorboard_one_line_says_so(folder, monkeypatch):
    monkeypatch.setattr("sfumato.training.log.installed", lambda name: False)
    result = call(folder, "--recipe", str(folder / "recipe.toml"))
    assert result.output.count("Without tensorboard") == 1
    assert not (folder / "run" / "tensorboard").exists()


def test_crops_must_fit_what_is_prepared(folder):
    result = call(folder, "--recipe", str(folder / "recipe.toml"), "--prepare", "12")
    assert result.exit_code == 2
    assert "options: prepare = 12" in result.output


@pytest.mark.parametrize("side", [12, 24])
def test_a_generator_sees_whole_pictures_of_the_side_asked_for(folder, side):
    (folder / "g.toml").write_text(
        "[[stage]]\nchannels = [8, 8]\nblocks = 1\nembedding = 8\nattention = []\nsteps = 1\n"
    )
    given = ["--data", str(folder / "photos"), "--out", str(folder / "g"), "--batch", "1"]
    given += ["--device", "cpu", "--recipe", str(folder / "g.toml"), "--prepare", str(side)]
    result = CliRunner().invoke(train_app, ["generator", *given])
    assert result.exit_code == 0, result.output
    config = load_checkpoint(folder / "g" / "generator.safetensors")[1]
    assert config["size"] == side
    assert config["training"]["settings"]["crop_cycle"] == [side]


def test_shards_are_trained_on(folder):
    with tarfile.open(folder / "a-0.tar", "w") as tar:
        for k in range(2):
            tar.add(folder / "photos" / f"{k}.png", f"{k}.png")
        tar.add(folder / "recipe.toml", "x.png")
    recipe = ["--recipe", str(folder / "recipe.toml")]
    result = call(folder, *recipe, "--data", str(folder / "a-{0..0}.tar"))
    assert result.exit_code == 0, result.output
    assert "x.png: skipped, unreadable" in "".join(result.output.split("\n"))


def test_steps_belong_to_one_stage(folder):
    result = call(folder, "--recipe", str(folder / "recipe.toml"), "--steps", "9")
    assert result.exit_code == 2


def test_bad_options_are_named(folder):
    result = call(folder, "--steps", "0")
    assert result.exit_code == 2
    assert "options: steps = 0" in result.output


def test_time_left_follows_the_speed():
    left = TimeLeft(n_reports=3)
    assert left(0, 100, 0.0) == ""
    assert left(10, 100, 600.0) == "1 h 30 min left"
    assert left(20, 100, 660.0) == "44 min left"
    assert left(30, 100, 720.0) == "7 min left"
    assert left(99, 100, 721.0) == "less than a minute left"


def test_help_loads_no_torch():
    script = "import sys, sfumato.cli.train; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
