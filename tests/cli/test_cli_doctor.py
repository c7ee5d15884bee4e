"""sfumato doctor, and what the engine costs with a model."""

import re

import pytest
from typer.testing import CliRunner

from sfumato.cli import app
from sfumato.errors import SettingsError
from sfumato.pipeline import doctor
from sfumato.pipeline.kernels import Paying, recall
from sfumato.zoo import load_prior


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


def test_times_are_told_of_what_the_device_computes_in(monkeypatch):
    monkeypatch.setattr(doctor, "is_native", lambda device, precision: precision != "fp16")
    timed = list(doctor.measure("embedded", side=32))
    assert [t.precision for t in timed] == ["fp32", "bf16"]
    assert all(t.eager > 0 and t.compiled is None for t in timed)


@pytest.mark.parametrize(
    ("paying", "said"),
    [
        (Paying(0.4, 0.2, 8), r"400 ms an eval.*, 200 ms compiled, which took 8 s; --kernels auto "
         r"compiles for such tiles, for more than 40 evaluations"),
        (Paying(0.4, 0.41, 8), r"400 ms an .*, 410 ms compiled, .*--kernels auto stays eager"),
        (None, r"ms an evaluation; no compiler here"),
    ],
)  # fmt: skip
def test_compiling_is_measured_and_remembered(monkeypatch, tmp_path, paying, said):
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path))

    def measured(prior, side):
        if paying is None:
            raise SettingsError("no compiler here")
        return paying

    monkeypatch.setattr(doctor, "measure_kernels", measured)
    result = run("doctor", "--measure", "--tile", "32")
    assert result.exit_code == 0, result.output
    assert re.search(said, result.output), result.output
    prior = load_prior()
    assert recall(prior, 32) == paying


def test_the_overhead_is_told_of_a_model(tmp_path):
    args = ["--side", "96", "--steps", "1", "--tile", "64", "--folder", str(tmp_path)]
    result = run("bench", "overhead", *args, "--precision", "fp32")
    assert result.exit_code == 0, result.output
    assert re.search(r"embedded in fp32 on cpu: [\d.]+ ms an evaluation of a tile, \d+ ms a tile",
                     result.output)  # fmt: skip
    assert re.search(r"[\d.]+% outside the network, [\d.]+ megapixels an hour", result.output)
    assert run("bench", "overhead", "-n", "sr3", "--side", "96").exit_code == 2
