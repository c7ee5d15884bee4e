"""``sfumato train``: parses, trains, shows, goes on."""

import subprocess
import sys

import numpy as np
import pytest
import pyvips
from typer.testing import CliRunner

from sfumato.cli.train import TimeLeft, train_app
from sfumato.errors import SettingsError
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
    given = [*required, "--device", "cpu", "--batch", "1", *options]
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


def test_steps_belong_to_one_stage(folder):
    result = call(folder, "--recipe", str(folder / "recipe.toml"), "--steps", "9")
    assert isinstance(result.exception, SettingsError)


def test_bad_options_are_named(folder):
    result = call(folder, "--steps", "0")
    assert isinstance(result.exception, SettingsError)
    assert "options: steps = 0" in str(result.exception)


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
