"""Guidance by a classifier: its gradient is that of its logarithm, at the image as it is."""

import pytest
import torch
from torch import nn

from sfumato.diffusion.classifier import ClassifierGuided, NoisyClassifier, places
from sfumato.diffusion.schedule import linear_alpha_bar, sigma_of

SIDE = 8


class Bilinear(nn.Module):
    """Logits that are linear in the image, with another slope at each time."""

    def __init__(self, n_classes=3):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w = torch.randn(n_classes, 3 * SIDE * SIDE, generator=generator) / SIDE

    def forward(self, x, t):
        return x.flatten(1) @ self.w.T * (1 + t[:, None] / 1000)


def classifier():
    return NoisyClassifier(Bilinear(), linear_alpha_bar(), side=SIDE)


def draws(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_gradient_is_that_of_log_p_by_finite_differences():
    c, x_t, sigma = classifier(), draws(1, 3, SIDE, SIDE).double(), 0.7
    g = c.gradient(x_t, sigma, 1)
    for seed in range(3):
        step = 1e-2 * draws(*x_t.shape, seed=seed).double()
        rise = c(x_t + step, sigma)[0, 1] - c(x_t - step, sigma)[0, 1]
        assert float((g * 2 * step).sum()) == pytest.approx(float(rise), rel=1e-3, abs=1e-5)


def test_guidance_is_that_of_the_paper_in_the_other_form():
    """ε − √(1 − ᾱ) w ∇_z log p(c | z), with z = a x_t: algorithm 2 of arXiv 2105.05233."""
    c, t, w = classifier(), 400, 2.5
    alpha_bar = linear_alpha_bar()[t]
    a, sigma = float(alpha_bar.sqrt()), float(sigma_of(alpha_bar))
    x_t, eps = draws(1, 3, SIDE, SIDE), draws(1, 3, SIDE, SIDE, seed=2)
    z = (a * x_t).requires_grad_()
    log_p = c.net(z, torch.tensor([float(t)])).log_softmax(1)[0, 2]
    (gradient,) = torch.autograd.grad(log_p, z)
    guided = eps - (1 - float(alpha_bar)) ** 0.5 * w * gradient
    expected = (z.detach() - (1 - float(alpha_bar)) ** 0.5 * guided) / a
    D = ClassifierGuided(lambda x, s: x - s * eps, c, 2, w)
    torch.testing.assert_close(D(x_t, sigma), expected, atol=1e-4, rtol=1e-4)


def test_larger_images_are_seen_in_crops_and_smaller_ones_mirrored():
    c, sigma = classifier(), 0.5
    x = draws(1, 3, SIDE, 2 * SIDE)
    g = c.gradient(x, sigma, 0)
    for half in (slice(0, SIDE), slice(SIDE, None)):
        torch.testing.assert_close(g[..., half], c.gradient(x[..., half], sigma, 0))
    wide = draws(1, 3, SIDE, SIDE + 2)
    first, last = (c.gradient(wide[..., k : k + SIDE], sigma, 0) for k in (0, 2))
    g = c.gradient(wide, sigma, 0)
    torch.testing.assert_close(g[..., :2], first[..., :2])
    torch.testing.assert_close(g[..., 2:SIDE], (first[..., 2:] + last[..., :-2]) / 2)
    small = draws(1, 3, 5, 3)
    assert c.gradient(small, sigma, 0).shape == small.shape
    assert c.gradient(small, sigma, 0).abs().min() > 0


def test_each_image_of_a_batch_has_its_own_gradient():
    c, x = classifier(), draws(2, 3, SIDE, SIDE)
    both = c.gradient(x, torch.tensor([0.3, 3.0]), 1)
    torch.testing.assert_close(both[:1], c.gradient(x[:1], 0.3, 1))
    torch.testing.assert_close(both[1:], c.gradient(x[1:], 3.0, 1))


def test_no_scale_is_no_guidance_and_half_images_stay_half():
    x_t = draws(1, 3, SIDE, SIDE)
    assert ClassifierGuided(lambda x, _: x, classifier(), 0, 0.0)(x_t, 1.0) is x_t
    assert ClassifierGuided(lambda x, _: x, classifier(), 0)(x_t.half(), 1.0).dtype == torch.half


def test_gradients_do_not_need_the_callers_autograd():
    c, x_t = classifier(), draws(1, 3, SIDE, SIDE)
    with torch.no_grad():
        assert not c.gradient(x_t, 0.5, 0).requires_grad
    torch.testing.assert_close(
        c.gradient(x_t.requires_grad_(), 0.5, 0).norm() > 0, torch.tensor(True)
    )


def test_a_vote_is_the_mean_of_log_probabilities():
    c = classifier()
    crops = [draws(1, 3, SIDE, SIDE, seed=k) for k in range(3)]
    expected = torch.cat([c(crop, 0.0) for crop in crops]).mean(0)
    torch.testing.assert_close(c.vote(crops), expected)


@pytest.mark.parametrize("n", range(1, 70))
def test_crops_cover_an_axis(n):
    starts = places(n, SIDE)
    covered = {i for s in starts for i in range(s, min(s + SIDE, n))}
    assert covered == set(range(n))
    assert starts[0] == 0 or n > SIDE
    assert len(places(n, SIDE, most=3)) <= 3
