"""The mean of the weights of models."""

from pathlib import Path

import pytest
import torch

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.errors import ModelError, SettingsError
from sfumato.io import save_checkpoint
from sfumato.io.checkpoints import load_checkpoint
from sfumato.nn import UNetConfig, seeded_unet
from sfumato.zoo import load_prior
from sfumato.zoo.config import PriorConfig
from sfumato.zoo.mean import mean_of


def a_prior(path: Path, seed: int, channels=(4, 8), dtype=torch.bfloat16):
    net = seeded_unet(UNetConfig(channels, 1, 2, 8), seed)
    D = EDMDenoiser(net, 0.5)
    config = PriorConfig(
        channels=channels, blocks=1, unshuffle=2, embedding=8, tile=64, training={"seed": seed}
    )
    tensors = {name: t.to(dtype) for name, t in D.state_dict().items()}
    save_checkpoint(path, tensors, config.model_dump(mode="json"))
    return path


@pytest.fixture
def models(tmp_path):
    return [a_prior(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2, 3)]


def test_it_is_the_weighted_mean(models):
    mean, _ = mean_of(models, [1, 2, 5])
    parts = [load_checkpoint(path)[0] for path in models]
    for name, t in mean.items():
        expected = sum(w * p[name].double() for w, p in zip((1, 2, 5), parts, strict=True)) / 8
        assert t.dtype == torch.bfloat16
        torch.testing.assert_close(t.double(), expected, rtol=2**-8, atol=1e-9)


def test_of_the_same_model_it_is_that_model(models):
    mean, _ = mean_of([models[0]] * 3)
    for name, t in load_checkpoint(models[0])[0].items():
        assert torch.equal(mean[name], t)


def test_it_is_a_prior_that_tells_of_all(tmp_path, models):
    mean, header = mean_of(models[:2], [3, 1])
    save_checkpoint(tmp_path / "mean.safetensors", mean, header)
    assert load_prior(tmp_path / "mean.safetensors").stride == 4
    seeds = [(m["weight"], m["training"]["seed"]) for m in header["training"]["mean"]]
    assert seeds == [(0.75, 1), (0.25, 2)]


def test_what_cannot_be_averaged_is_refused(tmp_path, models):
    other = a_prior(tmp_path / "other.safetensors", 1, channels=(4, 12))
    with pytest.raises(ModelError, match=r"other.safetensors.*models of one form"):
        mean_of([models[0], other])
    with pytest.raises(SettingsError, match="at least two models"):
        mean_of(models[:1])
    with pytest.raises(SettingsError, match="a weight above 0 for each"):
        mean_of(models, [1, 2])
    with pytest.raises(SettingsError, match="a weight above 0 for each"):
        mean_of(models, [1, 0, 2])
