"""Training a prior: the loss is the right one, and an interrupted run ends with the same bits."""

import itertools
import math

import pytest
import torch

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.errors import ModelError, SettingsError
from sfumato.io import load_checkpoint, save_checkpoint
from sfumato.nn import UNetConfig, seeded_unet
from sfumato.training import (
    Finished,
    PriorSettings,
    Saved,
    Schedule,
    Started,
    Stepped,
    Stopped,
    Validated,
    denoising_psnr,
    load_holdout,
    train_prior,
)
from sfumato.training._draws import Draws
from sfumato.training.loss import draw_sigma, edm_loss
from sfumato.zoo import load_prior

TINY = PriorSettings(
    channels=(4, 8),
    blocks=1,
    embedding=8,
    steps=12,
    warmup_steps=3,
    crop_cycle=(16, 8),
    batch_pixels=512,
    halvings=1,
    learning_rate=0.01,
    seed=5,
)


def variant(**changes):
    return PriorSettings.of(TINY.model_dump() | changes)


def after(n):
    """A question that is answered with yes from the ``n``-th time on."""
    asked = itertools.count(1)
    return lambda: next(asked) >= n


def weights(path):
    return load_checkpoint(path)[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def finished(photographs, tmp_path_factory):
    """The folder and the events of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("run")
    return out, list(train_prior(TINY, photographs, out, holdout=photographs))


@pytest.mark.parametrize("sigma", [0.01, 0.5, 50.0])
def test_the_loss_of_the_best_answer_to_gaussian_data_is_one(sigma):
    """With F = 0, D is Wiener's filter, whose weighted error λ(σ) s²σ²/(s² + σ²) is 1."""
    silent = EDMDenoiser(seeded_unet(UNetConfig((4,), 1, 2, 8), 0))
    g = torch.Generator().manual_seed(0)
    x_0, eps = (torch.randn(16, 3, 32, 32, generator=g) for _ in range(2))
    loss = edm_loss(silent, 0.5 * x_0, torch.full((16,), sigma), eps, 0.5)
    assert loss.item() == pytest.approx(1, abs=0.03)


def test_noise_levels_are_drawn_as_described():
    narrow = draw_sigma(variant(wide_share=0.0), Draws(0, 0, 0, 50_000)).log()
    assert float(narrow.mean()) == pytest.approx(-1.5, abs=0.03)
    assert float(narrow.std()) == pytest.approx(1.5, abs=0.03)
    wide = draw_sigma(variant(wide_share=1.0), Draws(0, 0, 0, 50_000)).log()
    low, high = math.log(0.005), math.log(80)
    assert low <= float(wide.min()) < float(wide.max()) <= high + 1e-5
    assert float(wide.std()) == pytest.approx((high - low) / math.sqrt(12), rel=0.02)
    mixed = draw_sigma(TINY, Draws(0, 0, 0, 50_000)).log()
    assert float(mixed.mean()) == pytest.approx(0.88 * -1.5 + 0.12 * (low + high) / 2, abs=0.04)


def test_a_run_tells_what_it_does_and_exports_a_prior(finished):
    out, events = finished
    assert isinstance(events[0], Started)
    assert (events[0].step, events[0].n_steps, events[0].n_photographs) == (0, 12, 3)
    assert [e.step for e in events if isinstance(e, Stepped)] == [10, 12]
    assert [e.step for e in events if isinstance(e, Saved)] == [12]
    figures = next(e for e in events if isinstance(e, Validated)).figures
    assert list(figures) == [
        f"dB at noise {sigma}" for sigma in ("0.05", "0.1", "0.2", "0.5", "1")
    ]
    assert events[-1] == Finished(12, out / "prior.safetensors")
    prior = load_prior(out / "prior.safetensors")
    assert (prior.stride, prior.sigma_max) == (4, 80.0)
    assert '"photographs": 3' in prior.card
    stored = weights(out / "prior.safetensors")
    assert stored["net.head.weight"].dtype == torch.bfloat16
    assert stored["net.freq"].dtype == torch.float32


def test_training_lowers_the_loss(photographs, tmp_path):
    one_level = {"wide_share": 0.0, "log_sigma_mean": -0.7, "log_sigma_std": 0.1}
    settings = variant(steps=50, crop_cycle=(16,), precision="fp32", **one_level)
    losses = [e.loss for e in train_prior(settings, photographs, tmp_path) if type(e) is Stepped]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("stops", [[5], [1, 4, 2]])
def test_an_interrupted_run_ends_with_the_same_bits(finished, photographs, tmp_path, stops):
    for n in stops:
        last = list(train_prior(TINY, photographs, tmp_path, schedule=Schedule(stop=after(n))))[-1]
        assert isinstance(last, Stopped)
    events = list(train_prior(TINY, photographs, tmp_path))
    assert events[0].step == sum(stops)
    for name in ("state.safetensors", "prior.safetensors"):
        assert same(weights(tmp_path / name), weights(finished[0] / name)), name


def test_a_killed_run_goes_on_from_the_last_saved_state(finished, photographs, tmp_path):
    run = train_prior(TINY, photographs, tmp_path, schedule=Schedule(save_minutes=0))
    for event in run:
        if isinstance(event, Stepped) and event.step == 4:
            break  # after the 4th step, before it is saved
    run.close()
    events = list(train_prior(TINY, photographs, tmp_path))
    assert events[0].step == 3
    assert same(
        weights(tmp_path / "prior.safetensors"), weights(finished[0] / "prior.safetensors")
    )


def test_the_seed_decides(finished, photographs, tmp_path):
    list(train_prior(variant(seed=6), photographs, tmp_path))
    a, b = weights(tmp_path / "prior.safetensors"), weights(finished[0] / "prior.safetensors")
    assert not same(a, b)


def test_parts_of_a_batch_add_up_to_the_batch(photographs, tmp_path):
    settings = {"precision": "fp32", "steps": 3}
    for n in (1, 3):
        list(train_prior(variant(accumulate=n, **settings), photographs, tmp_path / str(n)))
    a, b = (weights(tmp_path / n / "state.safetensors") for n in "13")
    for name in a:
        if name.startswith("exp_avg."):
            torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=1e-4)


def test_time_is_a_reason_to_stop(photographs, tmp_path):
    events = list(train_prior(TINY, photographs, tmp_path, schedule=Schedule(stop_minutes=0)))
    assert events[-1] == Stopped(1)


def test_a_finished_run_is_not_run_again(finished):
    out, _ = finished
    assert list(train_prior(TINY, "nowhere", out)) == [Finished(12, out / "prior.safetensors")]


def test_other_settings_and_photographs_are_refused(photographs, tmp_path):
    list(train_prior(TINY, photographs, tmp_path, schedule=Schedule(stop=after(1))))
    with pytest.raises(SettingsError, match=r"learning_rate 0.01 -> 0.5"):
        next(train_prior(variant(learning_rate=0.5), photographs, tmp_path))
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    (fewer / "0.png").write_bytes((photographs / "0.png").read_bytes())
    with pytest.raises(SettingsError, match="other photographs"):
        next(train_prior(TINY, fewer, tmp_path))


def test_a_run_from_before_a_setting_goes_on_with_its_default(finished, photographs, tmp_path):
    list(train_prior(TINY, photographs, tmp_path, schedule=Schedule(stop=after(5))))
    state, new = tmp_path / "state.safetensors", ("prepare", "orientations")
    tensors, record = load_checkpoint(state)
    record["settings"] = {k: v for k, v in record["settings"].items() if k not in new}
    save_checkpoint(state, tensors, record)
    with pytest.raises(SettingsError, match="orientations 'all' -> 'none'"):
        next(train_prior(variant(orientations="none"), photographs, tmp_path))
    list(train_prior(TINY, photographs, tmp_path))
    a, b = weights(tmp_path / "prior.safetensors"), weights(finished[0] / "prior.safetensors")
    assert same(a, b)


def test_a_run_starts_from_given_weights(finished, photographs, tmp_path):
    init = str(finished[0] / "prior.safetensors")
    settings = variant(init=init, steps=1, learning_rate=1e-9, precision="fp32", weight_decay=0)
    list(train_prior(settings, photographs, tmp_path))
    a, b = weights(tmp_path / "prior.safetensors"), weights(init)
    assert all(torch.allclose(a[k].float(), b[k].float(), atol=1e-6) for k in a)
    with pytest.raises(SettingsError, match=r"another network: embedding 8"):
        next(train_prior(variant(init=init, embedding=16), photographs, tmp_path / "b"))
    with pytest.raises(SettingsError, match="none narrower"):
        next(train_prior(variant(init=init, channels=(4, 4)), photographs, tmp_path / "b"))
    with pytest.raises(ModelError, match="no prior"):
        next(train_prior(variant(init="nothing"), photographs, tmp_path / "c"))


def test_a_run_goes_on_with_a_wider_network(finished, photographs, tmp_path):
    narrow = finished[0] / "prior.safetensors"
    settings = variant(
        init=str(narrow), channels=(8, 16), steps=1, learning_rate=1e-9, weight_decay=0
    )
    list(train_prior(settings, photographs, tmp_path))
    wide = load_prior(tmp_path / "prior.safetensors", precision="fp32")
    before = load_prior(narrow, precision="fp32")
    assert wide.n_parameters > 2 * before.n_parameters
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(wide.denoiser(x, 0.5), before.denoiser(x, 0.5), rtol=0, atol=0.02)


def test_a_run_goes_on_with_a_linear_path(finished, photographs, tmp_path):
    init = str(finished[0] / "prior.safetensors")
    settings = variant(init=init, linear=4, steps=1, learning_rate=1e-12, weight_decay=0)
    list(train_prior(settings, photographs, tmp_path))
    grown = tmp_path / "prior.safetensors"
    assert load_checkpoint(grown)[1]["linear"] == 4
    ours, theirs = (load_prior(path, precision="fp32").denoiser for path in (grown, init))
    x = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x, 0.3), theirs(x, 0.3), atol=0.01, rtol=0)
    list(train_prior(variant(init=str(grown), steps=1), photographs, tmp_path / "b"))
    assert load_prior(tmp_path / "b" / "prior.safetensors").denoiser.net.config.linear == 4
    with pytest.raises(SettingsError, match="8 channels for a network that has one of 4"):
        next(train_prior(variant(init=str(grown), linear=8), photographs, tmp_path / "c"))


def test_another_checkpoint_is_no_state(finished, photographs, tmp_path):
    (tmp_path / "state.safetensors").write_bytes((finished[0] / "prior.safetensors").read_bytes())
    with pytest.raises(ModelError, match="expected a training run"):
        next(train_prior(TINY, photographs, tmp_path))


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(photographs, tmp_path):
    settings = variant(learning_rate=1e30, warmup_steps=1)
    with pytest.raises(ModelError, match="lower learning_rate"):
        list(train_prior(settings, photographs, tmp_path))
    assert not list(tmp_path.iterdir())


def test_validation_measures_in_decibels(photographs):
    pictures = load_holdout(photographs, side=32)
    assert {tuple(p.shape) for p in pictures} == {(3, 32, 32)}
    psnr = denoising_psnr(lambda x, sigma: x, [torch.zeros(3, 64, 64)] * 4, [0.2, 0.02])
    assert psnr[0.2] == pytest.approx(20.0, abs=0.1)
    assert psnr[0.02] == pytest.approx(40.0, abs=0.1)


def test_a_holdout_without_pictures_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="no colour picture"):
        load_holdout(tmp_path)
