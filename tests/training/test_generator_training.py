"""Training a generator: classes are the folders, some are dropped; runs resume exactly."""

import itertools

import numpy as np
import pytest
import torch
from made_up_photographs import write

from sfumato.errors import SettingsError
from sfumato.io import load_checkpoint
from sfumato.training import Finished, GeneratorSettings, Schedule, train_generator
from sfumato.training._draws import Draws
from sfumato.training.generator import GeneratorLesson
from sfumato.zoo import load_prior

TINY = GeneratorSettings(
    prepare=16,
    channels=(8, 8),
    blocks=1,
    attention=(2,),
    embedding=8,
    head_width=8,
    dropout=0.0,
    classes=True,
    steps=4,
    warmup_steps=2,
    batch_pixels=8 * 256,
    learning_rate=0.01,
)


def variant(**changes):
    return GeneratorSettings.of(TINY.model_dump() | changes)


@pytest.fixture(scope="module")
def classed(tmp_path_factory):
    """Dark pictures in one folder, bright ones in another."""
    folder = tmp_path_factory.mktemp("classed")
    rng = np.random.default_rng(0)
    for name, value in (("bright", 220), ("dark", 30)):
        (folder / name).mkdir()
        for k in range(3):
            picture = np.clip(value + rng.normal(0, 10, (20, 24, 3)), 0, 255).astype(np.uint8)
            write(folder / name / f"{k}.png", picture)
    return folder


def weights(path):
    return load_checkpoint(path)[0]


def test_labels_are_the_folders_and_some_are_dropped(classed):
    lesson = GeneratorLesson(variant(drop_label=0.2), classed, None, "cpu")
    draws = Draws(0, 3, 0, 2000)
    labels, x_0 = lesson.labels(draws), lesson.source.crops(draws, 16)
    assert set(labels.tolist()) == {0, 1, 2}
    assert float((labels == 2).double().mean()) == pytest.approx(0.2, abs=0.03)
    bright = x_0.mean((1, 2, 3)) > 0
    kept = labels < 2
    assert bool((bright[kept] == (labels[kept] == 0)).all())


def test_a_run_ends_with_a_model_that_knows_its_classes(classed, tmp_path):
    *_, last = train_generator(TINY, classed, tmp_path, holdout=classed)
    assert last == Finished(4, tmp_path / "generator.safetensors")
    prior = load_prior(last.path)
    assert prior.classes == ("bright", "dark")
    assert (prior.tile, prior.stride) == (16, 2)
    x = torch.zeros(2, 3, 16, 16)
    plain, dark = prior.denoiser(x, 1.0), prior.of_class("dark").denoiser(x, 1.0)
    assert not torch.equal(plain, dark)
    assert torch.equal(dark, prior.of_class("1").denoiser(x, 1.0))
    more = prior.of_class("dark", 3.0).denoiser(x, 1.0)
    torch.testing.assert_close(more, plain + 3 * (dark - plain))
    assert prior.of_class("dark").digest != prior.digest
    with pytest.raises(SettingsError, match="expected bright, dark"):
        prior.of_class("grey")


def test_it_learns_what_a_class_looks_like(classed, tmp_path):
    settings = variant(steps=150, precision="fp32", batch_pixels=16 * 256, drop_label=0.1)
    *_, last = train_generator(settings, classed, tmp_path)
    prior = load_prior(last.path, precision="fp32")
    g = torch.Generator().manual_seed(0)
    noise = 20 * torch.randn(4, 3, 16, 16, generator=g)
    bright, dark = (float(prior.of_class(c).denoiser(noise, 20.0).mean()) for c in prior.classes)
    assert bright - dark > 0.3


@pytest.mark.parametrize("stops", [[1], [2, 1]])
def test_an_interrupted_run_ends_with_the_same_bits(classed, tmp_path, stops):
    list(train_generator(TINY, classed, tmp_path / "a"))
    for n in stops:
        asked = itertools.count(1)
        schedule = Schedule(stop=lambda n=n, asked=asked: next(asked) >= n)
        list(train_generator(TINY, classed, tmp_path / "b", schedule=schedule))
    list(train_generator(TINY, classed, tmp_path / "b"))
    for name in ("state.safetensors", "generator.safetensors"):
        a, b = weights(tmp_path / "a" / name), weights(tmp_path / "b" / name)
        assert all(torch.equal(a[k], b[k]) for k in a | b)


def test_a_folder_without_classes_is_refused(photographs, tmp_path):
    with pytest.raises(SettingsError, match="a folder of pictures for each class"):
        next(train_generator(TINY, photographs, tmp_path))
    *_, last = train_generator(variant(classes=False, steps=1), photographs, tmp_path)
    assert load_prior(last.path).classes == ()
