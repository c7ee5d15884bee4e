"""Published classifiers: their numbers, their gradients, and the classes that priors go to."""

import json

import pytest
import torch

from adm_reference import Reference
from sfumato.diffusion.schedule import linear_alpha_bar, sigma_of
from sfumato.errors import ModelError, SettingsError
from sfumato.testing import adm_state_dict
from sfumato.zoo import load_classifier, load_prior

FORM = {"width": 32, "mult": (1, 2, 2), "blocks": 2, "attention": (2, 4)}
SIDE = 16


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def written(tmp_path, options=None, name="classifier.pt", **form):
    path = tmp_path / name
    torch.save(adm_state_dict(**FORM | {"n_classes": 5, "classifier_cells": 4} | form), path)
    said = {"num_head_channels": 16} | (options or {})
    path.with_suffix(".json").write_text(json.dumps(said))
    return path


def prior_of(tmp_path, **form):
    path = tmp_path / "prior.pt"
    torch.save(adm_state_dict(width=32, mult=(1, 2), attention=(2,), **form), path)
    path.with_suffix(".json").write_text('{"num_heads": 2}')
    return load_prior(path, precision="fp32")


def reference(path):
    state = torch.load(path, weights_only=True)
    return Reference(
        state,
        mult=FORM["mult"],
        blocks=FORM["blocks"],
        attention=FORM["attention"],
        heads=lambda c: c // 16,
    )


@pytest.mark.parametrize("scale_shift", [True, False])
def test_logits_and_gradients_are_the_published_networks(tmp_path, scale_shift):
    path = written(tmp_path, scale_shift=scale_shift)
    network = load_classifier(path, precision="fp32").network
    t = 420
    sigma = float(sigma_of(linear_alpha_bar())[t])
    a = (1 + sigma**2) ** -0.5
    x_t = draws(2, 3, SIDE, SIDE, seed=3).mul(sigma).requires_grad_()
    log_p = reference(path).classify(a * x_t, torch.full((2,), float(t))).log_softmax(1)
    (gradient,) = torch.autograd.grad(log_p[:, 3].sum(), x_t)
    assert log_p.std() > 0.1
    torch.testing.assert_close(network(x_t, sigma), log_p, atol=1e-4, rtol=1e-4)
    mine = network.gradient(x_t, sigma, 3)
    assert gradient.abs().max() > 1e-3
    torch.testing.assert_close(mine, gradient, atol=1e-4 * float(gradient.abs().max()), rtol=1e-4)


def test_gradients_in_bf16_are_nearly_those_in_float32(tmp_path):
    path = written(tmp_path)
    x_t = draws(1, 3, SIDE, SIDE)
    exact, rounded = (
        load_classifier(path, precision=p).network.gradient(x_t, 1.0, 2) for p in ("fp32", "bf16")
    )
    assert 0 < (rounded - exact).norm() < 0.05 * exact.norm()


def test_no_gradient_reaches_weights(tmp_path):
    network = load_classifier(written(tmp_path)).network
    network.gradient(draws(1, 3, SIDE, SIDE), 1.0, 0)
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("out.2.c_proj.weight"), r"1 missing: out.2.c_proj.weight \(5, 64, 1\)"),
        (lambda s: s.pop("out.2.c_proj.bias"), "out.2.c_proj.bias is missing"),
        (lambda s: s.update(other=torch.zeros(2)), r"1 unexpected: other \(2,\)"),
    ],
)
def test_damaged_classifiers_are_refused_by_name(tmp_path, change, told):
    path = written(tmp_path)
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(ModelError, match=told):
        load_classifier(path)


def test_what_is_no_classifier_is_refused(tmp_path):
    with pytest.raises(ModelError, match="there is no classifier"):
        load_classifier(tmp_path / "nothing.pt")
    with pytest.raises(ModelError, match="give it as --model"):
        load_classifier(prior_of(tmp_path).source)
    with pytest.raises(ModelError, match="expected one of guided-diffusion"):
        load_classifier(load_prior().source)


def test_a_prior_without_classes_is_led_to_one(tmp_path):
    prior = prior_of(tmp_path)
    classifier = load_classifier(
        written(tmp_path, {"classes": ["ant", "bee", "cat", "dog", "elk"]}), precision="fp32"
    )
    led = prior.of_class("cat", 3.0, classifier=classifier)
    x_t = draws(1, 3, SIDE, SIDE)
    with torch.no_grad():
        step = led.denoiser(x_t, 2.0) - prior.denoiser(x_t, 2.0)
    expected = 3.0 * 4.0 * classifier.network.gradient(x_t, 2.0, 2)
    torch.testing.assert_close(step, expected, atol=1e-4, rtol=1e-4)
    assert led.name.endswith(", cat")
    others = [
        prior,
        prior.of_class("2", 1.0, classifier=classifier),
        prior.of_class("dog", 3.0, classifier=classifier),
    ]
    assert led.digest not in {other.digest for other in others}


def test_a_prior_of_classes_is_told_the_same_class(tmp_path):
    prior = prior_of(tmp_path, n_classes=5)
    classifier = load_classifier(written(tmp_path))
    assert prior.needs_class
    led = prior.of_class("4", 2.0, classifier=classifier)
    assert not led.needs_class
    x_t = draws(1, 3, SIDE, SIDE)
    with torch.no_grad():
        own = prior.denoiser(x_t, 1.0, torch.tensor([4]))
        step = 2.0 * classifier.network.gradient(x_t, 1.0, 4)
        torch.testing.assert_close(led.denoiser(x_t, 1.0), own + step)
        torch.testing.assert_close(prior.of_class("4").denoiser(x_t, 1.0), own)


def test_classes_that_are_not_there_are_refused(tmp_path):
    classifier = load_classifier(written(tmp_path))
    with pytest.raises(SettingsError, match="the class '5'; expected 0, 1, 2, 3, 4"):
        prior_of(tmp_path).of_class("5", classifier=classifier)
    with pytest.raises(SettingsError, match="a classifier of 5 classes for a model of 7"):
        prior_of(tmp_path, n_classes=7).of_class("1", classifier=classifier)
    with pytest.raises(SettingsError, match="always has a class; expected 1, or a classifier"):
        prior_of(tmp_path, n_classes=7).of_class("1", 2.0)
    with pytest.raises(SettingsError, match="the model knows no classes"):
        prior_of(tmp_path).of_class("1")
