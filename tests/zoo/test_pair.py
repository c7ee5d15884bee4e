"""Pairs: a prior and an SR3 model as one prior, named by one file."""

import shutil

import pytest
import torch

import sfumato
from sfumato.errors import ModelError
from sfumato.io import read_picture, save_checkpoint
from sfumato.io.checkpoints import load_checkpoint
from sfumato.metrics import psnr
from sfumato.training.validation import denoising_psnr
from sfumato.zoo import card, load_prior
from sfumato.zoo.mean import mean_of
from sfumato.zoo.names import NAMES
from sfumato.zoo.pair import save_pair

PRIOR, PAIR = NAMES["embedded"], NAMES["pair"]


@pytest.fixture(scope="module")
def photograph():
    pixels = read_picture("examples/photos/chelsea.png").pixels
    return 2 * pixels[:, 40:168, 60:188] - 1


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.2, 0.5, 1.0])
def test_two_looks_come_closer_than_one(photograph, sigma):
    one, both = (
        denoising_psnr(load_prior(name, precision="fp32").denoiser, [photograph], [sigma])[sigma]
        for name in ("embedded", "pair")
    )
    assert both > one + 0.03


def test_they_come_closer_in_as_many_evaluations(photograph):
    g = torch.Generator().manual_seed(0)
    x = (photograph + 1) / 2
    y = ((x + 0.1 * torch.randn(x.shape, generator=g)).clamp(0, 1) * 255).round() / 255
    settings = sfumato.Settings(objective="distortion")
    done = [
        sfumato.restore(y, "noise:0.1", prior=load_prior(name), settings=settings)
        for name in ("embedded", "pair")
    ]
    assert [result.report.evaluations_per_tile for result in done] == [10, 10]
    one, both = (float(psnr(result.image, x)) for result in done)
    assert both > one + 0.03


def test_the_embedded_pair_says_what_it_is():
    pair, parts = load_prior("pair"), [load_prior(name) for name in ("embedded", "sr3")]
    assert pair.n_parameters == sum(part.n_parameters for part in parts)
    assert (pair.name, pair.stride, pair.tile) == ("pair", 16, 512)
    assert pair.card == card("pair")
    assert pair.super_resolution is None
    assert pair.digest not in [part.digest for part in parts]
    assert not any(p.requires_grad for p in pair.denoiser.parameters())


def test_a_pair_of_files_is_the_same_model(tmp_path):
    shutil.copy(PRIOR, tmp_path / "my-prior.safetensors")
    save_pair(tmp_path / "own.safetensors", "my-prior.safetensors", "sr3")
    own = load_prior(tmp_path / "own.safetensors", precision="fp32")
    ours, x = load_prior("pair", precision="fp32"), torch.rand(1, 3, 37, 50)
    assert own.digest == ours.digest
    assert torch.equal(own.denoiser(x, 0.3), ours.denoiser(x, 0.3))


def test_a_pair_of_weights_that_changed_is_refused(tmp_path):
    tensors, config = load_checkpoint(PRIOR)
    save_checkpoint(tmp_path / "a.safetensors", tensors, config)
    save_pair(tmp_path / "own.safetensors", "a.safetensors", "sr3")
    tensors["net.head.bias"] += 1
    save_checkpoint(tmp_path / "a.safetensors", tensors, config)
    with pytest.raises(ModelError, match="SHA-256"):
        load_prior(tmp_path / "own.safetensors")


@pytest.mark.parametrize(
    ("prior", "refiner"),
    [
        ("sr3", "sr3"),
        ("embedded", "embedded"),
        ("pair", "sr3"),
        ("embedded", "pair"),
    ],
)
def test_what_is_no_pair_is_refused(tmp_path, prior, refiner):
    with pytest.raises(ModelError, match=r"in a pair; expected (a prior|an SR3 model) of sfumato"):
        save_pair(tmp_path / "own.safetensors", prior, refiner)
    assert not (tmp_path / "own.safetensors").exists()


@pytest.mark.parametrize(
    "change", [{"samples": False}, {"kernel": "average_pool"}, {"prediction": "eps"}]
)
def test_sr3_models_that_have_learnt_something_else_are_refused(tmp_path, change):
    tensors, config = load_checkpoint(NAMES["sr3"])
    save_checkpoint(tmp_path / "sr3.safetensors", tensors, {**config, **change})
    with pytest.raises(ModelError, match="expected an SR3 model for the bicubic kernel"):
        save_pair(tmp_path / "own.safetensors", "embedded", "sr3.safetensors")


def test_a_pair_of_which_one_has_gone_is_refused(tmp_path):
    shutil.copy(PRIOR, tmp_path / "a.safetensors")
    save_pair(tmp_path / "own.safetensors", "a.safetensors", "sr3")
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(ModelError, match=r"there is no .*a\.safetensors, named in a pair"):
        load_prior(tmp_path / "own.safetensors")


def test_pairs_have_no_mean():
    with pytest.raises(ModelError, match="holds no weights"):
        mean_of([PAIR, PAIR])


@pytest.mark.parametrize("change", [{"prior": 3}, {"weights": "x"}, {"refiner_sha256": "no"}])
def test_a_damaged_header_is_refused(tmp_path, change):
    _, config = load_checkpoint(PAIR)
    save_checkpoint(tmp_path / "own.safetensors", {}, {**config, **change})
    with pytest.raises(ModelError, match="describes an impossible model"):
        load_prior(tmp_path / "own.safetensors")
