"""Classes on the command line: of a model, by a classifier, and by its vote."""

import json

import numpy as np
import pytest
import torch
from stand_in import photo, read, report_of, sfumato, write

from sfumato.operators import as_degradation
from sfumato.pipeline.places import read_source
from sfumato.pipeline.problem import make_problem
from sfumato.pipeline.vote import elect
from sfumato.testing import adm_state_dict
from sfumato.zoo import load_classifier, load_prior

TILES = ("--kernel", "box", "--steps", 2, "-t", 32, "--precision", "fp32")
QUICK = ("--steps", 2, "--stitch", "whole", "--precision", "fp32")
NAMES = ["ant", "bee", "cat"]


def saved(folder, name, options, **form):
    path = folder / name
    torch.save(adm_state_dict(width=32, mult=(1, 2), attention=(2,), **form), path)
    path.with_suffix(".json").write_text(json.dumps(options))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def adm(folder):
    return saved(folder, "prior.pt", {"num_heads": 2, "image_size": 32})


@pytest.fixture(scope="module")
def conditional(folder):
    return saved(folder, "classes.pt", {"num_heads": 2, "image_size": 32}, n_classes=3)


@pytest.fixture(scope="module")
def classifier(folder):
    options = {"num_head_channels": 32, "classes": NAMES}
    return saved(folder, "classifier.pt", options, n_classes=3, classifier_cells=8)


@pytest.fixture
def small(tmp_path):
    return write(tmp_path / "small.png", photo(20, 20))


def test_a_published_checkpoint_restores(tmp_path, adm, small):
    out = tmp_path / "x.png"
    done = sfumato("upscale", small, "-o", out, "-n", adm, "-s", 2, *TILES)
    assert done.code == 0, done.err
    assert read(out).shape == (40, 40, 3)
    assert report_of(out)["consistency_rmse_255"] < 0.5
    assert report_of(out)["model"] == str(adm)


def test_a_classifier_changes_the_result_and_says_so(tmp_path, adm, classifier, small):
    results = {}
    for name, options in {
        "plain": (),
        "cat": ("--class", "cat", "--classifier", classifier),
        "bee": ("--class", "1", "--classifier", classifier),
        "more": ("--class", "cat", "--classifier", classifier, "--guidance", 20),
    }.items():
        out = tmp_path / f"{name}.png"
        done = sfumato("upscale", small, "-o", out, "-n", adm, "-s", 2, *TILES, *options)
        assert done.code == 0, done.err
        results[name] = read(out)
        report = report_of(out)
        assert report["consistency_rmse_255"] < 0.5
        assert name in ("plain", "more") or report["model"].endswith(f", {name}")
    for name in ("cat", "bee", "more"):
        assert not np.array_equal(results[name], results["plain"])
    assert not np.array_equal(results["cat"], results["more"])


def test_the_vote_is_that_of_the_whole_picture(tmp_path, adm, classifier):
    album = tmp_path / "in"
    for k in range(2):
        write(album / f"{k}.png", photo(20, 12 + 9 * k, seed=k))
    out = tmp_path / "out"
    how = ("-n", adm, "--kernel", "box", "-s", 2, *QUICK, "--classifier", classifier)
    done = sfumato("upscale", album, "-o", out, *how)
    assert done.code == 0, done.err
    loaded = load_classifier(classifier, precision="fp32")
    for k in range(2):
        y = read_source(album / f"{k}.png").y
        label = NAMES[elect(make_problem(y, as_degradation("average_pool:2")), loaded)]
        assert report_of(out / f"{k}.png")["model"].endswith(f", {label}")
    again = sfumato("upscale", album, "-o", out, *how, "--class", "auto", "--resume")
    assert again.out.count("done already") == 2
    other = sfumato("upscale", album, "-o", out, *how, "--guidance", 2, "--resume")
    assert other.out.count("restored again") == 2


def test_a_dry_run_counts_the_classifier_too(tmp_path, folder, adm, small):
    options = {"num_head_channels": 32}
    side_64 = saved(folder, "large.pt", options, n_classes=2, classifier_cells=32)
    command = ("upscale", small, "-o", tmp_path / "x.png", "-n", adm, "-s", 2, *QUICK)
    done = sfumato(*command, "--classifier", side_64, "--dry-run")
    assert done.code == 0, done.err
    assert "2 of the network" in done.out
    assert not (tmp_path / "x.png").exists()


def test_a_model_of_classes_takes_one(tmp_path, conditional, classifier, small):
    out = tmp_path / "x.png"
    command = ("upscale", small, "-o", out, "-n", conditional, "-s", 2, *QUICK)
    done = sfumato(*command)
    assert (done.code, "expected --class NAME" in done.err) == (2, True)
    assert sfumato(*command, "--class", 2).code == 0
    assert report_of(out)["model"].endswith(", 2")
    done = sfumato(*command, "--class", "auto", "--classifier", classifier)
    assert done.code == 0, done.err
    made = tmp_path / "made.png"
    done = sfumato("generate", "--size", "32x32", "-o", made, "-n", conditional, *QUICK, "--class",
                   "bee", "--classifier", classifier)  # fmt: skip
    assert done.code == 0, done.err
    assert report_of(made)["model"].endswith(", bee")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--class", "auto"), "give --classifier PATH"),
        (("--guidance", 2), "give --class or --classifier"),
        (("--class", "cat"), "the model knows no classes"),
        (("--class", "dog", "--classifier", "it"), "expected ant, bee, cat"),
    ],
)
def test_classes_that_make_no_sense(tmp_path, adm, classifier, small, options, told):
    options = [classifier if word == "it" else word for word in options]
    done = sfumato("upscale", small, "-o", tmp_path / "x.png", "-n", adm, "-s", 2, *options)
    assert (done.code, told in done.err) == (2, True), done.err


def test_nothing_has_no_vote(tmp_path, adm, classifier):
    out = tmp_path / "x.png"
    done = sfumato("generate", "--size", "32x32", "-o", out, "-n", adm, "--classifier", classifier)
    assert (done.code, "give --class NAME" in done.err) == (2, True)


def test_both_are_converted_by_one_command(tmp_path, adm, classifier):
    for source, told in ((adm, "prior of 32 x 32"), (classifier, "classifier of 16 x 16")):
        out = tmp_path / f"{source.stem}.safetensors"
        done = sfumato("models", "convert", source, "-o", out, "--json",
                       source.with_suffix(".json"))  # fmt: skip
        assert done.code == 0, done.err
        assert told in done.out
    prior = load_prior(tmp_path / "prior.safetensors")
    assert (prior.tile, prior.stride) == (32, 2)
    assert load_classifier(tmp_path / "classifier.safetensors").classes == tuple(NAMES)
    said = sfumato("models", "info", tmp_path / "prior.safetensors").out
    assert "tile 32" in said
    assert "2 heads" in said


def test_what_is_not_converted(tmp_path, adm):
    out = tmp_path / "x.safetensors"
    strange = tmp_path / "strange.pt"
    torch.save({"a": torch.zeros(2)}, strange)
    done = sfumato("models", "convert", strange, "-o", out)
    assert done.code == 1
    assert "holds tensors of another program: a; expected a checkpoint of guided" in done.err
    done = sfumato("models", "convert", adm, "-o", out, "-s", 2)
    assert (done.code, "--scale 2 of a guided-diffusion model" in done.err) == (2, True)
    done = sfumato("models", "convert", tmp_path / "none.pt", "-o", out)
    assert done.code != 0
    done = sfumato("upscale", strange, "-o", tmp_path / "x.png", "-n", strange)
    assert (done.code, "another program: a; expected a checkpoint of guided" in done.err) == (
        1,
        True,
    )
    assert not out.exists()
