"""Collaborative filtering: groups of what is alike, their linear filter, where it counts."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion import collaborative as module
from sfumato.diffusion.collaborative import (
    Collaborative,
    alike,
    collaborative,
    share,
    working_bytes,
)
from sfumato.pipeline.trial import LiveTensors


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def texture(height=48, width=60):
    """Stripes that cross, of a period that no step of the patches has."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = torch.sin(2 * math.pi * x / 7) * torch.sin(2 * math.pi * y / 11)
    return torch.stack([0.6 * waves, 0.4 * waves, -0.2 * waves])[None]


@given(st.integers(5, 23), st.integers(5, 29), st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_groups_hold_the_nearest_patches_within_reach(height, width, seed):
    guide, side = noise(height, width, seed=seed), 5
    patches = guide.unfold(0, side, 1).unfold(1, side, 1).flatten(2)
    rows, columns = patches.shape[:2]
    groups = torch.cat(list(alike(guide, side, 3)))
    firsts = [(r, c) for r in range(0, rows, 3) for c in range(0, columns, 3)]
    assert len(groups) == len(firsts)
    for (r, c), group in zip(firsts, groups, strict=True):
        top, left = max(0, r - 16), max(0, c - 16)
        around = patches[top : r + 17, left : c + 17]
        distances = (around - patches[r, c]).square().mean(2)
        nearest = distances.flatten().sort().values[: groups.shape[1]]
        found = patches[group // width, group % width]
        found = (found - patches[r, c]).square().mean(1)
        torch.testing.assert_close(found.sort().values, nearest, atol=1e-5, rtol=1e-4)
        assert len(set(group.tolist())) == len(group)
    assert groups.shape[1] == min(16, min(17, rows) * min(17, columns))


def test_the_filter_is_linear_in_what_it_filters():
    p, a, b = texture(), noise(1, 3, 48, 60, seed=1), noise(1, 3, 48, 60, seed=2)
    both = collaborative(2 * a - b, p, 0.2)
    apart = 2 * collaborative(a, p, 0.2) - collaborative(b, p, 0.2)
    torch.testing.assert_close(both, apart, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(48, 60), (5, 5), (3, 17), (1, 1), (1, 60), (7, 8)])
def test_without_noise_nothing_is_filtered_at_any_size(size):
    y, p = noise(2, 3, *size, seed=1), noise(2, 3, *size, seed=2)
    assert (collaborative(y, p, 2e-6) - y).abs().mean() < 1e-4
    assert torch.equal(collaborative(y, p, 0.0), y)


def test_a_texture_comes_nearer_than_the_noisy_image_and_than_a_poor_estimate():
    """Of an estimate that has lost a third of it, the rest is found again in the noisy image."""
    x, sigma = texture(), 0.2
    y, p = x + sigma * noise(*x.shape), x * 2 / 3
    answer = Collaborative(lambda x_t, _: p)(y, sigma)
    error = (answer - x).square().mean()
    assert error < 0.25 * (p - x).square().mean()
    assert error < 0.25 * sigma**2


def test_alike_patches_are_better_than_each_alone(monkeypatch):
    x, sigma = texture(), 0.2
    y = x + sigma * noise(*x.shape)
    together = (collaborative(y, x, sigma) - x).square().mean()
    monkeypatch.setattr(module, "_ALIKE", 1)
    alone = (collaborative(y, x, sigma) - x).square().mean()
    assert together < 0.7 * alone


def test_where_the_estimate_is_flat_it_stands():
    p = torch.full((1, 3, 30, 64), 0.3)
    p[..., 32:] += texture(30, 32)
    y = p + 0.2 * noise(*p.shape)
    answer = Collaborative(lambda x_t, _: p)(y, 0.2)
    moved = (answer - p).abs()
    assert moved[..., :27].max() < 1e-3
    assert moved[..., 32:].mean() > 0.01


def test_the_share_is_that_of_the_formula():
    p = 0.8 * texture(60, 77)
    a, s = share(p, 0.3)[0, 0], p.mean(1)[0, 20:29, 31:40].std(correction=0)
    torch.testing.assert_close(a[24, 35], 1.4 * s / (s + 0.4 * 0.3))


def test_the_answer_depends_on_what_is_near_only():
    y, p = noise(1, 3, 20, 120, seed=1), texture(20, 120)
    far_y, far_p = y.clone(), p.clone()
    far_y[..., 100:] += 1
    far_p[..., 100:] -= 0.5
    answers = [Collaborative(lambda _, __, p=p: p)(y, 0.2) for y, p in ((y, p), (far_y, far_p))]
    here, there = (answer[..., : 100 - 36] for answer in answers)
    assert torch.equal(here, there)
    assert not torch.equal(*(answer[..., 80:99] for answer in answers))


@pytest.mark.parametrize("size", [(1, 60), (60, 1), (2, 100), (3, 31), (4, 4)])
@pytest.mark.parametrize("p", ["flat", "one odd column", "random"])
def test_every_pixel_has_an_answer(size, p):
    made = {"flat": torch.full((1, 3, *size), 0.2), "random": noise(1, 3, *size)}
    made["one odd column"] = made["flat"].clone()
    made["one odd column"][..., size[1] // 2] = -0.9
    y = made[p] + 0.1 * noise(1, 3, *size, seed=1)
    assert collaborative(y, made[p], 0.1).isfinite().all()
    assert Collaborative(lambda x_t, _: made[p])(y, 0.0).isfinite().all()


@given(st.sampled_from([1, 40, 300, 10**6]))
@settings(deadline=None)
def test_how_many_are_filtered_at_a_time_does_not_matter(n):
    y, p = texture() + 0.2 * noise(1, 3, 48, 60), texture()
    expected = collaborative(y, p, 0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AT_ONCE", n)
        torch.testing.assert_close(collaborative(y, p, 0.2), expected, atol=1e-5, rtol=1e-5)


def test_images_of_a_batch_are_filtered_each_alone_and_keep_their_kind():
    x = torch.cat([texture(), texture().flip(3)])
    y = x + 0.2 * noise(*x.shape)
    D = Collaborative(lambda x_t, _: 0.9 * x_t)
    both = D(y, 0.2)
    assert torch.equal(both, torch.cat([D(y[:1], 0.2), D(y[1:], 0.2)]))
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        answer = D(y.to(dtype), 0.2)
        assert answer.dtype == dtype
        assert (answer.float() - both).abs().mean() < 0.02


def test_memory_is_about_what_is_told():
    for size in ((64, 64), (256, 256), (16, 9000)):
        with LiveTensors() as live:
            collaborative(noise(1, 3, *size), noise(1, 3, *size, seed=1), 0.1)
        assert 0.6 < live.peak_bytes / working_bytes(*size) < 1.2
