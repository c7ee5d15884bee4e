"""What is done already is known by its report."""

import json
import os

import numpy as np
import pytest
from stand_in import photo, sfumato, write

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.io import save_checkpoint
from sfumato.nn import UNetConfig, seeded_unet

BOX = ("upscale", "--kernel", "box", "-s", 2)
QUICK = ("--steps", 2, "-t", 32)


@pytest.fixture
def album(tmp_path):
    write(tmp_path / "in" / "a.png", photo(9, 7))
    write(tmp_path / "in" / "b.png", photo(3, 4))
    return tmp_path / "in"


def run(album, prior, *options, command=BOX, quick=QUICK):
    out = album.parent / "out"
    done = sfumato(
        command[0], album, "-o", out, "-n", prior, *command[1:], *quick, *options, "--resume"
    )
    assert done.code == 0, done.err
    return done.out


def contents(folder):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.iterdir())}


def test_what_is_done_with_the_same_settings_is_left(album, prior):
    run(album, prior)
    before = contents(album.parent / "out")
    said = run(album, prior, "--batch", 3)
    assert said.count("done already") == 2
    assert contents(album.parent / "out") == before


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--seed", 3), "seed was 0, is 3"),
        (("--noise", "0.1"), "degradation was"),
        (("--objective", "distortion"), "objective was"),
    ],
)
def test_with_other_settings_it_is_restored_again_and_that_is_said(album, prior, options, why):
    run(album, prior)
    said = run(album, prior, *options)
    assert said.count("restored again") == 2
    assert f"a.png: {why}" in said
    assert run(album, prior, *options).count("done already") == 2


def test_a_setting_that_was_asked_for_and_now_is_not(album, prior):
    run(album, prior, "--steps", 1)
    said = run(album, prior, quick=QUICK[2:])
    assert said.count("steps was 1, is ") == 2


def test_another_input_of_the_same_name(album, prior):
    run(album, prior)
    write(album / "a.png", photo(9, 7, seed=5))
    said = run(album, prior)
    assert "a.png has changed" in said
    assert said.count("done already") == 1


def test_another_size_of_the_same_name(album, prior):
    run(album, prior)
    write(album / "a.png", photo(9, 8))
    assert "width was 14, is 16" in run(album, prior)


def test_another_model(album, prior, tmp_path):
    config = {
        "kind": "prior", "channels": [4, 8], "blocks": 1, "unshuffle": 2, "embedding": 8,
        "sigma_data": 0.5, "sigma_max": 80.0, "tile": 32,
    }  # fmt: skip
    denoiser = EDMDenoiser(seeded_unet(UNetConfig((4, 8), 1, 2, 8), 1))
    save_checkpoint(tmp_path / "other.safetensors", denoiser.state_dict(), config)
    run(album, prior)
    assert run(album, tmp_path / "other.safetensors").count("model was") == 2


@pytest.mark.parametrize("report", [None, b"[]", b'"\xff"', b'{"settings": 3}'])
def test_a_report_that_tells_nothing(album, prior, report):
    run(album, prior)
    path = album.parent / "out" / "a.png.json"
    if report is None:
        path.unlink()
    else:
        path.write_bytes(report)
    said = run(album, prior)
    assert said.count("restored again") == 1
    assert json.loads(path.read_text())["width"] == 14


def test_a_preview_is_not_the_result(album, prior):
    run(album, prior, "--region", "0,0,4,4")
    said = run(album, prior)
    assert said.count("restored again") == 2
    assert run(album, prior, "--region", "0,0,4,4").count("restored again") == 2


def test_a_mask_that_was_painted_since(tmp_path, prior):
    missing = np.zeros((9, 7, 1), np.uint8)
    missing[3] = 255
    mask = write(tmp_path / "mask.png", missing)
    write(tmp_path / "in" / "a.png", photo(9, 7))
    command = ("inpaint", "-m", mask)
    run(tmp_path / "in", prior, command=command)
    assert "done already" in run(tmp_path / "in", prior, command=command)
    later = (tmp_path / "out" / "a.png.json").stat().st_mtime + 10
    os.utime(mask, (later, later))
    assert "mask.png is newer" in run(tmp_path / "in", prior, command=command)


@pytest.mark.parametrize("word", ["grayscale", "identity | noise:0.1", "walsh_hadamard:0.5"])
def test_every_kind_of_restoration_knows_itself_again(tmp_path, prior, word):
    grey = 1 if word == "grayscale" else 3
    write(tmp_path / "in" / "a.png", photo(40, 40, grey))
    command = ("restore", "-d", word)
    run(tmp_path / "in", prior, command=command)
    assert "done already" in run(tmp_path / "in", prior, command=command)


def test_one_file_without_resume_is_restored_again(album, prior, tmp_path):
    words = (*BOX[:1], album / "a.png", "-o", tmp_path / "a.png", "-n", prior, *BOX[1:], *QUICK)
    sfumato(*words)
    assert "consistency" in sfumato(*words).out
    assert "done already" in sfumato(*words, "--resume").out


def test_a_file_that_cannot_be_compared_fails_alone(album, prior):
    run(album, prior)
    (album / "a.png").write_bytes(b"no picture")
    done = sfumato(
        BOX[0], album, "-o", album.parent / "out", "-n", prior, *BOX[1:], *QUICK,
        "--resume", "--continue-on-error",
    )  # fmt: skip
    assert done.code == 3
    assert "1 left as they were, 1 failed" in done.out
