"""SR3 on the command line: restoring, cascades, generating, and converting others' checkpoints."""

import re

import numpy as np
import pytest
import torch
from stand_in import photo, read, report_of, sfumato, write

from refinement_layout import TINY, write_checkpoint
from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.diffusion.sr3 import SR3Denoiser
from sfumato.io import save_checkpoint
from sfumato.nn import SR3, SR3Config, UNetConfig, seeded_unet
from sfumato.zoo import load_prior

FORM = {"form": "unet", "channels": [4, 8], "blocks": 1, "embedding": 8}


@pytest.fixture(scope="session")
def sr3(tmp_path_factory):
    """An SR3 model that says the interpolated picture and a little noise."""
    path = tmp_path_factory.mktemp("sr3") / "model.safetensors"
    net = seeded_unet(UNetConfig((4, 8), 1, 2, 8, inputs=6), 0)
    denoiser = SR3Denoiser(net, "edm", stride=4, sigma_data=0.1)
    config = {"kind": "sr3", "network": FORM, "prediction": "edm", "sigma_data": 0.1}
    config |= {"scale": 4, "regression": True, "tile": 64, "sigmas": [0.5, 0.1]}
    save_checkpoint(path, denoiser.state_dict(), config)
    return path


@pytest.fixture(scope="session")
def generator(tmp_path_factory):
    path = tmp_path_factory.mktemp("generator") / "model.safetensors"
    form = {"channels": [8, 8], "blocks": 1, "attention": [2], "embedding": 8, "head_width": 8}
    config = {"kind": "generator", **form, "classes": ["cat", "dog"], "size": 16}
    net = SR3(SR3Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in form.items()},
                        channels_in=3, n_classes=2))  # fmt: skip
    g = torch.Generator().manual_seed(0)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1, generator=g)
    save_checkpoint(path, EDMDenoiser(net).state_dict(), config)
    return path


@pytest.fixture
def small(tmp_path):
    return write(tmp_path / "small.png", photo(17, 25))


@pytest.fixture
def tiny(tmp_path):
    return write(tmp_path / "tiny.png", photo(5, 9))


def test_upscaling_is_exact_at_any_size(tmp_path, small, sr3):
    out = tmp_path / "large.png"
    done = sfumato("upscale", small, "-o", out, "-n", sr3, "--consistent")
    assert done.code == 0, done.err
    assert read(out).shape[:2] == (68, 100)
    report = report_of(out)
    assert report["consistency_rmse_255"] < 0.5
    assert report["settings"]["schedule"] == [0.5, 0.1]
    again = sfumato("upscale", small, "-o", out, "-n", sr3, "--no-consistent", "--steps", 3)
    assert again.code == 0, again.err
    assert report_of(out)["settings"]["method"] == "none"
    assert report_of(out)["evaluations_per_tile"] == 3
    one = sfumato("upscale", small, "-o", out, "-n", sr3, "--objective", "distortion")
    assert one.code == 0, one.err
    assert report_of(out)["evaluations_per_tile"] == 8


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ([], "sr3"),
        (["-s", 4, "--kernel", "box", "--objective", "distortion"], "sr3"),
        (["-n", "embedded"], "embedded"),
        (["-s", 2], "sr3"),
        (["-s", 3], "embedded"),
        (["--noise", 0.02], "embedded"),
        (["--method", "ddnm"], "embedded"),
    ],
)
def test_what_comes_with_the_package_is_chosen_by_the_task(tmp_path, tiny, options, name):
    out = tmp_path / "large.png"
    done = sfumato("upscale", tiny, "-o", out, "--steps", 1, *options)
    assert done.code == 0, done.err
    assert report_of(out)["model"] == name
    if name == "sr3":
        word, factor = report_of(out)["degradation"].split(":")
        assert word == ("average_pool" if "--kernel" in options else "bicubic")
        assert int(factor) == (4 if 2 not in options else 2)
        words = f"{word}:{factor}"
        by_words = tmp_path / "by-words.png"
        restored = ("restore", tiny, "-o", by_words, "-d", words, "--steps", 1)
        objective = ("--objective", report_of(out)["settings"]["objective"])
        assert sfumato(*restored, *objective).code == 0
        assert report_of(by_words)["model"] == name
        assert (read(by_words) == read(out)).all()


def test_a_dry_run_of_a_smaller_factor_speaks_of_what_was_asked_for(tmp_path, sr3):
    # Twice as large as that no WebP may be.
    wide = write(tmp_path / "wide.png", photo(16, 4500))
    words = ("upscale", wide, "-o", tmp_path / "x.webp", "-n", sr3, "-s", 2, "--dry-run")
    done = sfumato(*words)
    assert done.code == 0, done.err
    assert "9000 x 32" in done.out


def test_a_cascade_begins_with_it(tmp_path, tiny, sr3):
    out = tmp_path / "huge.png"
    done = sfumato("upscale", tiny, "-o", out, "--then", sr3, "--steps", 1, "--keep-job")
    assert done.code == 0, done.err
    assert read(out).shape[:2] == (80, 144)
    assert report_of(tmp_path / "huge.png.stages" / "1.tif")["model"] == "sr3"


def test_a_scale_that_takes_the_model_twice(tmp_path, tiny, sr3):
    out = tmp_path / "huge.png"
    words = ("upscale", tiny, "-o", out, "-n", sr3)
    done = sfumato(*words, "-s", 16, "--keep-job")
    assert done.code == 0, done.err
    assert read(out).shape[:2] == (80, 144)
    stage = tmp_path / "huge.png.stages" / "1.tif"
    assert read(stage).shape[:2] == (20, 36)
    first = report_of(stage)["seconds"]
    # The same command again leaves the stage that is done.
    out.unlink()
    again = sfumato(*words, "-s", 16)
    assert again.code == 0, again.err
    assert "done already" in again.out
    assert not stage.exists()
    assert first > 0
    less = sfumato(*words, "-s", 8)
    assert less.code == 0, less.err
    assert read(out).shape[:2] == (40, 72)
    odd = sfumato(*words, "-s", 12)
    assert (odd.code, "expected -s 8 or -s 16" in odd.err) == (2, True)


def test_what_a_cascade_cannot_do_is_refused_at_once(tmp_path, tiny, sr3):
    out = tmp_path / "out"
    out.mkdir()
    words = ("upscale", tiny, "-o", tmp_path / "x.png", "-n", sr3, "-s", 16)
    for option in (("--region", "0,0,8,8"), ("--dry-run",), ("--samples", 2)):
        done = sfumato(*words, *option)
        assert (done.code, "one model at a time" in done.err) == (2, True), option
    done = sfumato("upscale", tmp_path, "-o", out, "-n", sr3, "-s", 16)
    assert (done.code, "expected one picture" in done.err) == (2, True)
    assert not list(out.iterdir())
    assert not list(tmp_path.glob("*.stages"))
    done = sfumato("upscale", tiny, "-o", out, "-n", sr3, "--then", sr3)
    assert done.code == 0, done.err
    assert read(out / "tiny.png").shape[:2] == (80, 144)


def test_other_tasks_and_models_are_refused(tmp_path, small, sr3, prior):
    out = tmp_path / "x.png"
    done = sfumato("denoise", small, "-o", out, "-n", sr3, "--noise", 0.1)
    assert (done.code, "super-resolution by 2 or 4" in done.err) == (2, True)
    done = sfumato("upscale", small, "-o", out, "-n", prior, "--then", prior)
    assert (done.code, "expected an SR3 model" in done.err) == (2, True)
    done = sfumato("upscale", small, "-o", out, "-n", sr3, "--consistent", "--method", "ddnm")
    assert (done.code, "one of them" in done.err) == (2, True)
    assert not out.exists()


@pytest.mark.parametrize("stitch", ["whole", "joint", "mask-shift"])
def test_images_from_nothing_have_any_size(tmp_path, prior, stitch):
    out = tmp_path / "made.png"
    how = ("--stitch", stitch, "--steps", 3, "--levels", 2, "-t", 32)
    done = sfumato("generate", "--size", "83x50", "-o", out, "-n", prior, *how)
    assert done.code == 0, done.err
    assert read(out).shape == (50, 83, 3)
    assert report_of(out)["task"] == "generate"
    other = tmp_path / "other.png"
    sfumato("generate", "--size", "83x50", "-o", other, "-n", prior, *how, "--seed", 1)
    assert not np.array_equal(read(out), read(other))
    sixteen = tmp_path / "made.tif"
    done = sfumato("generate", "--size", "20x10", "-o", sixteen, "-n", prior, "--bits", 16,
                   "--steps", 2)  # fmt: skip
    assert read(sixteen).dtype == np.uint16, done.err


@pytest.mark.parametrize("size", ["12", "x", "0x5", "-3x4", "1.5x2"])
def test_sizes_that_are_none(tmp_path, prior, size):
    done = sfumato("generate", f"--size={size}", "-o", tmp_path / "x.png", "-n", prior)
    assert (done.code, "WxH" in done.err) == (2, True)


def test_a_cascade_from_noise(tmp_path, generator, sr3):
    """16 -> 64 -> 256 by one command."""
    out = tmp_path / "made.png"
    steps = ("--steps", 3)
    then = ("--then", sr3, "--then", sr3)
    done = sfumato("generate", "-n", generator, "-o", out, *then, *steps, "--label", "dog")
    assert done.code == 0, done.err
    assert "16 x 16 pixels" in done.out
    assert read(out).shape == (256, 256, 3)
    assert not (tmp_path / "made.png.stages").exists()
    alone = tmp_path / "alone.png"
    for label in ("cat", "dog"):
        sfumato("generate", "-n", generator, "-o", alone, *steps, "--label", label)
        assert report_of(alone)["model"].endswith(label)
    wrong = sfumato("generate", "-n", generator, "-o", alone, "--label", "cow")
    assert (wrong.code, "expected cat, dog" in wrong.err) == (2, True)


def test_their_checkpoint_is_converted_and_used(tmp_path, small):
    pth, options = write_checkpoint(tmp_path, TINY)
    out = tmp_path / "theirs.safetensors"
    done = sfumato("models", "convert", pth, "--json", options, "-o", out)
    assert (done.code, "give --scale" in done.err) == (2, True)
    done = sfumato("models", "convert", pth, "--json", options, "-o", out, "--scale", 4)
    assert done.code == 0, done.err
    info = sfumato("models", "info", out)
    assert re.search(r"^SR3 +4x", info.out, re.MULTILINE)
    result = tmp_path / "x.png"
    done = sfumato("upscale", small, "-o", result, "-n", out, "--steps", 2)
    assert done.code == 0, done.err
    assert report_of(result)["settings"]["sampler"] == "ddpm"
    prior = load_prior(out)
    assert len(prior.super_resolution.sigmas) == 20
    text = re.sub(r'"model":', '"datasets": {"train": {"l_resolution": 16, "r_resolution": 128}},'
                  ' "model":', options.read_text(), count=1)  # fmt: skip
    options.write_text(text)
    done = sfumato("models", "convert", pth, "--json", options, "-o", out)
    assert "8x" in done.out, done.err
    done = sfumato("models", "convert", pth, "--json", options, "-o", out, "-s", 4)
    assert (done.code, "expected 8" in done.err) == (2, True)


def test_a_pickle_that_would_run_code_is_not_converted(tmp_path):
    _, options = write_checkpoint(tmp_path, TINY)

    class Evil:
        def __reduce__(self):
            return print, ("it ran",)

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    done = sfumato("models", "convert", tmp_path / "evil.pth", "--json", options, "-o",
                   tmp_path / "x.safetensors", "-s", 4)  # fmt: skip
    assert done.code == 1
    assert "could run any code" in done.err
    assert "it ran" not in done.out
    assert not (tmp_path / "x.safetensors").exists()
