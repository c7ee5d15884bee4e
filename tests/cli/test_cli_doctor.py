"""sfumato doctor, and what the engine costs with a model."""

import re

import pytest
from typer.testing import CliRunner

from sfumato.cli import app
from sfumato.pipeline import doctor


def run(*args):
    return CliRunner().invoke(app, list(args))


def test_it_says_what_is_chosen_and_why():
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for said in (r"torch: \d", r"cpu: .* cores, .* GB free", r"cpu, precision: (bf16|fp32)  \(",
                 "model embedded: ", r"extra ray: (not )?installed"):  # fmt: skip
        assert re.search(said, result.output), said


def test_it_tells_of_what_is_not_there(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda module: None)
    monkeypatch.setattr(doctor, "list_priors", tuple)
    result = run("doctor")
    assert result.exit_code == 1
    assert "extra lpips: not installed  (for the perceptual distance" in result.output
    assert 'pip install "sfumato[lpips]"' in result.output
    assert "! models: none" in result.output


def test_more_threads_than_cores_are_wrong(monkeypatch):
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(doctor.torch, "get_num_threads", lambda: 8)
    found = {f.about: f for f in doctor.examine()}
    assert found["cpu"].wrong


@pytest.mark.parametrize("native", ["bf16", "fp32"])
def test_times_are_told_of_both_arithmetics(monkeypatch, native):
    monkeypatch.setattr(doctor, "best_precision", lambda device: native)
    timed, chosen = doctor.measure("embedded", side=32, repeats=1)
    assert chosen == native
    assert [t.precision for t in timed] == ["fp32", "bf16"]
    assert all(t.milliseconds > 0 for t in timed)


def test_the_overhead_is_told_of_a_model(tmp_path):
    args = ["--side", "96", "--steps", "1", "--tile", "64", "--folder", str(tmp_path)]
    result = run("bench", "overhead", *args, "--precision", "fp32")
    assert result.exit_code == 0, result.output
    assert re.search(r"embedded in fp32 on cpu: [\d.]+ ms an evaluation of a tile, \d+ ms a tile",
                     result.output)  # fmt: skip
    assert re.search(r"[\d.]+% outside the network, [\d.]+ megapixels an hour", result.output)
    assert run("bench", "overhead", "-n", "sr3", "--side", "96").exit_code == 2
