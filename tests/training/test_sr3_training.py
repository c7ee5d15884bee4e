"""Training SR3: the draws and losses are the papers', and an interrupted run has the same bits."""

import itertools

import pytest
import torch

from sfumato.diffusion import linear_alpha_bar
from sfumato.diffusion.sr3 import SR3Denoiser, upsampled
from sfumato.errors import SettingsError
from sfumato.io import load_checkpoint
from sfumato.operators import parse
from sfumato.training import (
    Finished,
    PriorSettings,
    Schedule,
    SR3Settings,
    Stopped,
    Validated,
    sr3_preset,
    sr3_preset_names,
    train_prior,
    train_sr3,
)
from sfumato.training._draws import Draws
from sfumato.training.sr3_loss import draw_gamma, draw_sigma, make_condition, sr3_loss
from sfumato.zoo import load_prior
from sfumato.zoo.prior import load_denoiser, load_sr3

SIZES = {"channels": (4, 8), "blocks": 1, "embedding": 8}
FORM = {"form": "unet", **SIZES}
TINY = SR3Settings(
    network=FORM,
    steps=9,
    warmup_steps=3,
    crop_cycle=(16, 8),
    batch_pixels=512,
    halvings=1,
    learning_rate=0.01,
    seed=5,
    regression_share=0.3,
    blur_share=0.5,
    pooled_share=0.3,
)


def variant(**changes):
    return SR3Settings.of(TINY.model_dump() | changes)


def weights(path):
    return load_checkpoint(path)[0]


def crops(n=64, side=16):
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, side, side, generator=g) * 1.6 - 0.8


def test_gamma_is_piecewise_uniform():
    """P(γ ≤ γ_t) = 1 − t/T exactly at the times, and linear in between."""
    n_times, betas = 20, (1e-3, 0.3)
    gamma = draw_gamma(n_times, betas, Draws(0, 0, 0, 100_000))
    grid = torch.cat([torch.ones(1, dtype=torch.float64), linear_alpha_bar(n_times, *betas)])
    for t in range(n_times):
        inside = (gamma <= grid[t]) & (gamma > grid[t + 1])
        assert float(inside.double().mean()) == pytest.approx(1 / n_times, abs=0.004)
        place = (gamma[inside] - grid[t + 1]) / (grid[t] - grid[t + 1])
        assert float(place.mean()) == pytest.approx(0.5, abs=0.02)
        assert float(place.var()) == pytest.approx(1 / 12, abs=0.008)


def test_each_example_has_its_own_noise_level():
    sigma = draw_sigma(variant(noise="gamma"), Draws(0, 0, 0, 64))
    assert len(set(sigma.tolist())) == 64


def test_the_condition_is_the_small_picture_made_large():
    x_0 = crops()
    y = parse("bicubic:4").operator((3, 16, 16))(x_0)
    y = ((y.clamp(-1, 1) + 1) / 2 * 255).round() / 255 * 2 - 1
    torch.testing.assert_close(make_condition(TINY, x_0), upsampled(y, 4))


def test_a_share_of_the_conditions_is_blurred():
    x_0, draws, settings = crops(400), Draws(0, 0, 0, 400), variant(pooled_share=0.0)
    plain = make_condition(settings, x_0)
    difference = (make_condition(settings, x_0, draws) - plain).abs().amax((1, 2, 3))
    assert float((difference > 1e-3).double().mean()) == pytest.approx(0.5, abs=0.1)
    flat = torch.full((4, 3, 16, 16), 0.3)
    torch.testing.assert_close(
        make_condition(settings, flat, Draws(0, 0, 0, 4)), make_condition(settings, flat)
    )


def test_a_share_of_the_conditions_are_blocks_of_means():
    x_0, draws = crops(400), Draws(0, 0, 0, 400)
    settings = variant(blur_share=0.0)
    c, plain = make_condition(settings, x_0, draws), make_condition(settings, x_0)
    means = x_0.unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).mean((3, 5))
    shown = (means.repeat_interleave(4, 2).repeat_interleave(4, 3) - c).abs().amax((1, 2, 3))
    pooled = shown <= 1 / 255 + 1e-6  # rounding to 8 bits
    assert float(pooled.double().mean()) == pytest.approx(0.3, abs=0.07)
    torch.testing.assert_close(c[~pooled], plain[~pooled])


def test_a_share_of_means_among_means_is_refused():
    with pytest.raises(SettingsError, match="pooled_share where all pictures"):
        variant(kernel="average_pool")


class Zero(torch.nn.Module):
    def forward(self, x, level, condition):
        return 0 * x


def test_the_loss_of_the_noise_is_the_papers():
    """With f = 0 it is ``E |ε|^p``: 1 for p = 2 and ``√(2/π)`` for p = 1."""
    plain = {"regression_share": 0.0, "prediction": "eps", "noise": "gamma"}
    for loss, expected in (("l2", 1.0), ("l1", (2 / torch.pi) ** 0.5)):
        D = SR3Denoiser(Zero(), "eps", stride=1)
        got = sr3_loss(D, variant(loss=loss, **plain), crops(), Draws(0, 0, 0, 64))
        assert float(got) == pytest.approx(expected, abs=0.02)


def test_the_regression_is_mean_square_error_without_an_image():
    x_0 = crops()
    D = SR3Denoiser(Zero(), "x_0", stride=1)
    settings = variant(
        regression_share=1.0, prediction="x_0", blur_share=0.0, pooled_share=0.0, loss="l1"
    )
    expected = (x_0 - make_condition(settings, x_0)).square().mean()
    got = sr3_loss(D, settings, x_0, Draws(0, 0, 0, 64))
    assert float(got) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("prediction", ["eps", "v", "x_0", "edm"])
def test_min_snr_weighs_the_error_of_the_image(prediction):
    """``w (F − target)² = min(1/σ², k) (D − x_0)²``, whatever the network is asked for."""
    x_0, draws = crops(), Draws(3, 0, 0, 64)
    settings = variant(
        prediction=prediction,
        min_snr=5.0,
        regression_share=0.0,
        blur_share=0.0,
        pooled_share=0.0,
        noise="gamma",
    )
    D = SR3Denoiser(Zero(), prediction, stride=1, sigma_data=settings.sigma_data)
    sigma = draw_sigma(settings, draws)
    from sfumato.training.loss import draw_noise

    x_t = x_0 + sigma[:, None, None, None] * draw_noise(draws, x_0)
    error = (D(x_t, sigma, make_condition(settings, x_0)) - x_0).square().mean((1, 2, 3))
    s = 0.1 if prediction == "edm" else 1.0
    expected = ((s / sigma).square().clamp(max=5) * error / s**2).mean()
    assert float(sr3_loss(D, settings, x_0, draws)) == pytest.approx(float(expected), rel=1e-3)


def test_dream_shows_the_network_its_own_errors():
    """With f = 0 it adds ``λ ε`` to the noise: the loss is ``E (1 + λ)²``, ``λ² = 1 − γ``."""
    settings = variant(
        dream=1.0, prediction="eps", regression_share=0.0, noise="gamma", blur_share=0.0
    )
    D, draws = SR3Denoiser(Zero(), "eps", stride=1), Draws(0, 0, 0, 400)
    sigma = draw_sigma(settings, draws)
    lam = (sigma**2 / (1 + sigma**2)).sqrt()
    got = float(sr3_loss(D, settings, crops(400), draws))
    assert got == pytest.approx(float((1 + lam).square().mean()), rel=0.02)


@pytest.fixture(scope="module")
def finished(photographs, tmp_path_factory):
    out = tmp_path_factory.mktemp("sr3")
    return out, list(train_sr3(TINY, photographs, out, holdout=photographs))


def test_a_run_ends_with_a_model(finished):
    out, events = finished
    assert events[-1] == Finished(9, out / "sr3.safetensors")
    figures = next(e for e in events if isinstance(e, Validated)).figures
    assert {"dB of the regression", "dB of the regression of means"} <= figures.keys()
    prior = load_prior(out / "sr3.safetensors")
    model = prior.super_resolution
    assert (model.scale, model.kernel, prior.stride) == (4, "bicubic", 4)
    c = torch.zeros(1, 3, 9, 11)
    assert model.regression(c).shape == c.shape
    assert prior.denoiser.given(c)(c, 0.5).shape == c.shape


@pytest.mark.parametrize("stops", [[1], [4, 3]])
def test_an_interrupted_run_ends_with_the_same_bits(finished, photographs, tmp_path, stops):
    for n in stops:
        asked = itertools.count(1)
        schedule = Schedule(stop=lambda n=n, asked=asked: next(asked) >= n)
        last = list(train_sr3(TINY, photographs, tmp_path, schedule=schedule))[-1]
        assert isinstance(last, Stopped)
    list(train_sr3(TINY, photographs, tmp_path))
    for name in ("state.safetensors", "sr3.safetensors"):
        a, b = weights(tmp_path / name), weights(finished[0] / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a), name


def test_parts_of_a_batch_add_up(photographs, tmp_path):
    for n in (1, 3):
        settings = variant(accumulate=n, precision="fp32", steps=2)
        list(train_sr3(settings, photographs, tmp_path / str(n)))
    a, b = (weights(tmp_path / n / "state.safetensors") for n in "13")
    for name in a:
        if name.startswith("exp_avg."):
            torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=1e-4)


def test_the_loss_falls(photographs, tmp_path):
    one_level = {"log_sigma_mean": -0.7, "log_sigma_std": 0.1, "regression_share": 0.0}
    settings = variant(steps=60, precision="fp32", prediction="eps", **one_level)
    events = list(train_sr3(settings, photographs, tmp_path))
    losses = [e.loss for e in events if hasattr(e, "loss")]
    assert losses[-1] < 0.95 * losses[0]


def test_a_run_starts_from_a_prior(photographs, tmp_path):
    """At little noise the new network says what the prior says, for what the condition lacks."""
    prior_settings = PriorSettings(
        **SIZES, steps=2, crop_cycle=(16,), batch_pixels=512, halvings=1, learning_rate=0.1
    )
    list(train_prior(prior_settings, photographs, tmp_path / "prior"))
    init = str(tmp_path / "prior" / "prior.safetensors")
    settings = variant(init=init, steps=1, learning_rate=1e-12, precision="fp32", weight_decay=0)
    list(train_sr3(settings, photographs, tmp_path / "sr3"))
    prior, _ = load_denoiser(init)
    D, _ = load_sr3(tmp_path / "sr3" / "sr3.safetensors")
    g = torch.Generator().manual_seed(0)
    c = crops(2)
    x_0 = c + 0.1 * torch.randn(c.shape, generator=g)
    sigma = 1e-3
    x_t = x_0 + sigma * torch.randn(c.shape, generator=g)
    ours, theirs = ((d - x_t) / sigma for d in (D(x_t, sigma, c), prior(x_t, sigma)))
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.02)
    other = variant(init=init, network={**FORM, "channels": (4, 16)})
    with pytest.raises(SettingsError, match="is a prior with the network"):
        next(train_sr3(other, photographs, tmp_path / "b"))


@pytest.mark.parametrize("of", ["prior", "sr3"])
def test_a_run_starts_with_a_linear_path_beside_the_network(finished, photographs, tmp_path, of):
    still = {"steps": 1, "learning_rate": 1e-12, "precision": "fp32", "weight_decay": 0}
    init = str(finished[0] / "sr3.safetensors")
    if of == "prior":
        prior = PriorSettings(**SIZES, steps=1, crop_cycle=(16,), batch_pixels=512, halvings=1)
        list(train_prior(prior, photographs, tmp_path / "prior"))
        init = str(tmp_path / "prior" / "prior.safetensors")
    found = []
    for linear in (0, 4):
        settings = variant(init=init, network={**FORM, "linear": linear}, **still)
        list(train_sr3(settings, photographs, tmp_path / str(linear)))
        D, config = load_sr3(tmp_path / str(linear) / "sr3.safetensors")
        assert config.network.linear == linear
        found.append(D(crops(2), 0.3, crops(2)))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("of", ["prior", "sr3"])
def test_a_network_keeps_the_linear_path_it_begins_with(finished, photographs, tmp_path, of):
    init = tmp_path / "first" / f"{of}.safetensors"
    if of == "prior":
        first = {"steps": 1, "crop_cycle": (16,), "batch_pixels": 512, "halvings": 1}
        prior = PriorSettings(**SIZES, **first, linear=4)
        list(train_prior(prior, photographs, init.parent))
    else:
        grown = variant(steps=1, network={**FORM, "linear": 4})
        list(train_sr3(grown, photographs, init.parent))
    list(train_sr3(variant(init=str(init), steps=1), photographs, tmp_path / "next"))
    D, config = load_sr3(tmp_path / "next" / "sr3.safetensors")
    assert config.network.linear == D.net.config.linear == 4


def test_a_run_starts_from_another_run(finished, photographs, tmp_path):
    init = str(finished[0] / "sr3.safetensors")
    settings = variant(init=init, steps=1, learning_rate=1e-12, precision="fp32", weight_decay=0)
    list(train_sr3(settings, photographs, tmp_path))
    a, b = weights(tmp_path / "sr3.safetensors"), weights(init)
    assert all(torch.allclose(a[k].float(), b[k].float(), atol=1e-6) for k in a)
    with pytest.raises(SettingsError, match="expected"):
        next(train_sr3(variant(init=init, prediction="v"), photographs, tmp_path / "b"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dream": 1.0, "regression_share": 1.0}, "a regression, which sees no noise"),
        ({"crop_cycle": (18,)}, "crops of 18 pixels; expected multiples of the scale, 4"),
        ({"scale": 1}, "scale = 1"),
        ({"betas_range": (0.1, 0.01)}, "not below"),
        ({"betas_range": (0.1, 1.5)}, "below 1"),
        ({"network": {"form": "vit"}}, "network"),
        ({"network": {**FORM, "channels": ()}}, "channels"),
        ({"los": "l1"}, "did you mean loss"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        variant(**changes)


def test_defaults_fit_the_scale_and_the_prediction():
    assert SR3Settings.of({"scale": 3}).crop_cycle == (129, 96, 63)
    assert SR3Settings.of({"prediction": "v"}).noise == "gamma"
    assert SR3Settings.of({"prediction": "v"}).schedule[0] == pytest.approx(151, rel=0.01)
    odd = SR3Settings.of({"prediction": "eps", "betas_range": (1e-4, 2e-2), "n_times": 1000})
    gamma_T = float(linear_alpha_bar(1000, 1e-4, 2e-2)[-1])
    assert 1 / (1 + odd.schedule[0] ** 2) == pytest.approx(gamma_T, rel=1e-4)
    ours = SR3Settings()
    assert ours.schedule[0] == pytest.approx(4.0)
    assert ours.schedule[0] < ours.sigma_max < 5
    less = SR3Settings(log_sigma_mean=-3)
    assert less.schedule[0] == pytest.approx(less.sigma_max)
    assert [SR3Settings.of({"prediction": p}).eta for p in ("edm", "v")] == [0.3, None]


def test_dropout_is_a_function_of_seed_and_step(photographs, tmp_path):
    form = {"form": "sr3", "channels": (8, 8), "blocks": 1, "embedding": 8, "head_width": 8}
    settings = variant(network=form | {"dropout": 0.5}, steps=4, precision="fp32")
    list(train_sr3(settings, photographs, tmp_path / "a"))
    torch.manual_seed(99)
    asked = itertools.count(1)
    stopped = Schedule(stop=lambda: next(asked) >= 2)
    list(train_sr3(settings, photographs, tmp_path / "b", schedule=stopped))
    list(train_sr3(settings, photographs, tmp_path / "b"))
    a, b = weights(tmp_path / "a" / "sr3.safetensors"), weights(tmp_path / "b" / "sr3.safetensors")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_regression_makes_no_samples(photographs, tmp_path):
    *_, last = train_sr3(variant(regression_share=1.0, steps=1), photographs, tmp_path)
    assert not load_prior(last.path).super_resolution.samples


@pytest.mark.parametrize("name", sr3_preset_names())
def test_presets_are_possible(name):
    settings = SR3Settings.of(sr3_preset(name))
    assert settings.network.config.stride <= settings.crop_cycle[0]
    low, _, high = name.partition("-")
    if low.isdigit():
        assert (settings.scale, settings.crop(0)) == (int(high) // int(low), (int(high), 256))
        assert (settings.prediction, settings.loss, settings.rate(999_999)) == ("eps", "l1", 1e-4)


def test_an_unknown_preset_is_refused():
    with pytest.raises(SettingsError, match="expected one of cpu, gpu-small"):
        sr3_preset("huge")


@pytest.mark.parametrize("entrance", ["concatenation", "film"])
def test_the_papers_network_is_trained(photographs, tmp_path, entrance):
    form = {"form": "sr3", "channels": (8, 8), "blocks": 1, "attention": (2,), "embedding": 8}
    form |= {"entrance": entrance, "head_width": 8}
    settings = variant(
        network=form,
        steps=2,
        checkpointing=True,
        prediction="eps",
        noise="gamma",
        regression_share=0.0,
    )
    *_, last = train_sr3(settings, photographs, tmp_path)
    model = load_prior(last.path)
    assert model.super_resolution.regression is None
    assert len(model.super_resolution.sigmas) == 100
    c = torch.zeros(1, 3, 9, 11)
    assert model.denoiser.given(c)(c, 0.5).shape == c.shape
