"""``sfumato sr3 search-schedule``: searches, shows, stores; says what is missing."""

import csv
import subprocess
import sys

import numpy as np
import pytest
import pyvips
from typer.testing import CliRunner

from sfumato.cli import app
from sfumato.errors import SettingsError
from sfumato.io import save_checkpoint
from sfumato.metrics import perceptual
from sfumato.nn import UNetConfig, seeded_unet
from sfumato.zoo import load_prior

CONFIG = {
    "kind": "sr3", "prediction": "edm", "sigma_data": 0.1, "scale": 4, "tile": 32,
    "network": {"form": "unet", "channels": [4, 8], "blocks": 1, "unshuffle": 2, "embedding": 8},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for k in range(3):
        pixels = rng.integers(0, 256, (20, 24, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        pyvips.Image.new_from_array(pixels).write_to_file(str(tmp_path / "photos" / f"{k}.png"))
    net = seeded_unet(UNetConfig((4, 8), 1, 2, 8, inputs=6), 0)
    state = {f"net.{name}": t for name, t in net.state_dict().items()}
    save_checkpoint(tmp_path / "model.safetensors", state, CONFIG)
    (tmp_path / "model.md").write_text("# A card\n")
    return tmp_path


@pytest.fixture
def _weights():
    try:
        perceptual.find_weights()
    except SettingsError as error:
        pytest.skip(str(error))


def call(folder, *options, steps="2"):
    small = ["--steps", steps, "--budget", "40", "--dimensions", "2", "--crops", "8"]
    model = str(folder / "model.safetensors")
    given = ["sr3", "search-schedule", model, "--data", str(folder / "photos"), *small, *options]
    return CliRunner().invoke(app, given)


@pytest.mark.usefixtures("_weights")
@pytest.mark.parametrize("distance", ["frechet", "kernel"])
def test_a_search_is_shown_and_stored(folder, distance):
    out, table = folder / "new" / "out.safetensors", folder / "table.csv"
    options = ["--distance", distance, "-o", str(out), "--table", str(table), "--seed", "3"]
    result = call(folder, *options)
    assert result.exit_code == 0, result.output
    assert "8 crops of 3 photographs" in result.output
    assert "rung 1" in result.output
    assert f"AlexNet-{distance}" in result.output
    assert "its own, 1 to 0.01" in result.output
    assert f"The model is {out}" in result.output
    prior = load_prior(out)
    assert len(prior.super_resolution.sigmas) == 2
    assert prior.card == "# A card\n"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    last = [r for r in rows if r["rung"] == rows[-1]["rung"]]
    best = min(last, key=lambda r: float(r["distance"]))
    eta = prior.super_resolution.eta
    assert best["sampler"] == ("sr3" if eta is None else f"ddim {eta:g}")
    assert int(rows[-1]["evaluations"]) <= 40
    if distance == "frechet":
        assert call(folder, *options).output == result.output


@pytest.mark.usefixtures("_weights")
def test_in_place_the_model_is_changed(folder):
    before = (folder / "model.safetensors").read_bytes()
    result = call(folder, "--in-place", steps="3")
    assert result.exit_code == 0, result.output
    assert (folder / "model.safetensors").read_bytes() != before
    assert len(load_prior(folder / "model.safetensors").super_resolution.sigmas) == 3


@pytest.mark.usefixtures("_weights")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected -o OUT.safetensors, or --in-place"),
        (["-o", "a.safetensors", "--in-place"], "both -o and --in-place"),
        (["-o", "a.pt"], "ends in .safetensors"),
        (["-o", "a.safetensors", "--budget", "9"], "a budget of 9 evaluations; expected at least"),
        (["-o", "a.safetensors", "--data", "nowhere"], "nowhere is no folder"),
        (["-o", "a.safetensors", "--crops", "2"], "2 crops for features of 2 dimensions"),
    ],
)
def test_what_is_asked_for_must_make_sense(folder, monkeypatch, options, message):
    monkeypatch.chdir(folder)
    before = (folder / "model.safetensors").read_bytes()
    result = call(folder, *options)
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert "Traceback" not in result.output
    assert (folder / "model.safetensors").read_bytes() == before
    assert not (folder / "a.safetensors").exists()


@pytest.mark.usefixtures("_weights")
def test_another_model_is_refused(folder, prior):
    given = ["sr3", "search-schedule", str(prior), "--data", str(folder / "photos")]
    result = CliRunner().invoke(app, [*given, "--steps", "2", "-o", str(folder / "a.safetensors")])
    assert result.exit_code == 2
    assert "expected an SR3 model" in result.output


def test_without_the_package_one_sentence_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(perceptual, "PACKAGE", "no_such_package")
    result = call(folder, "-o", str(folder / "a.safetensors"))
    assert result.exit_code == 2
    assert 'install it with: pip install "sfumato[lpips]"' in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_help_is_free_of_torch():
    code = (
        "import sys; from sfumato.cli import app\n"
        "try: app(['sr3', 'search-schedule', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--budget" in done.stdout


@pytest.mark.usefixtures("_weights")
def test_the_models_of_the_package_are_left_alone(folder):
    given = ["sr3", "search-schedule", "sr3", "--data", str(folder / "photos"), "--steps", "2"]
    result = CliRunner().invoke(app, [*given, "--in-place"])
    assert result.exit_code == 2
    assert "came with sfumato" in result.output
