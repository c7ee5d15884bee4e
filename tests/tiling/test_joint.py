"""Joint restoration: a tiled denoiser is a denoiser of the whole image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import engine, level_of, pointwise, result, shrink

from sfumato.guidance import DDNM
from sfumato.operators import (
    AveragePool,
    Bicubic,
    Grayscale,
    WalshHadamard,
    compose,
    random_mask,
)
from sfumato.samplers import DDPM, DPMSolverPP2M
from sfumato.tiling import TiledDenoiser, TilePlan
from sfumato.tiling.fused import ramp

PLANS = st.builds(
    lambda h, w, tile, overlap, stride, order: TilePlan(
        h, w, tile + overlap + stride, overlap, stride, order
    ),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(8, 30),
    st.integers(0, 20),
    st.sampled_from([1, 2, 3]),
    st.sampled_from(["raster", "reverse", "centre"]),
)


@given(PLANS, st.integers(1, 5))
@settings(max_examples=60)
def test_a_pointwise_denoiser_is_the_same_in_tiles(plan, batch):
    g = torch.Generator().manual_seed(plan.height)
    x = torch.randn((1, 3, plan.height, plan.width), generator=g)
    tiled = TiledDenoiser(pointwise, plan, batch=batch)
    torch.testing.assert_close(tiled(x, 0.7), pointwise(x, 0.7), rtol=1e-5, atol=1e-6)


@given(PLANS)
@settings(max_examples=40)
def test_batches_do_not_change_bits(plan):
    g = torch.Generator().manual_seed(plan.width)
    x = torch.randn((1, 3, plan.height, plan.width), generator=g)

    def local(x, sigma):
        return x - x.mean((2, 3), keepdim=True)

    one, two, seven = (TiledDenoiser(local, plan, batch=b)(x, 0.7) for b in (1, 2, 7))
    assert torch.equal(one, two)
    assert torch.equal(one, seven)


@given(PLANS, st.integers(1, 3))
@settings(max_examples=40)
def test_going_back_tile_by_tile_is_going_back_through_the_whole(plan, batch):
    g = torch.Generator().manual_seed(plan.height)
    x, v = torch.randn((2, 1, 3, plan.height, plan.width), generator=g, dtype=torch.float64)
    tiled = TiledDenoiser(shrink, plan, batch=batch)
    x_0, pull = tiled.linearised(x, 0.7)
    x.requires_grad_()
    whole = tiled(x, 0.7)
    (expected,) = torch.autograd.grad(whole, x, v)
    assert torch.equal(x_0, whole.detach())
    torch.testing.assert_close(pull(v), expected)


@pytest.mark.parametrize("overlap", [8, 16, 24])
def test_estimates_pass_into_each_other_without_a_line(overlap):
    """Let each tile say a number of its own: the answer changes slowly from pixel to pixel."""
    plan = TilePlan(100, 133, 48, overlap)
    numbers = iter(torch.rand(1000, generator=torch.Generator().manual_seed(0)).tolist())

    def own_number(x, sigma):
        return torch.stack([torch.full_like(one, next(numbers)) for one in x])

    fused = TiledDenoiser(own_number, plan)(torch.zeros(1, 1, 100, 133), 1.0)
    assert 0 < float(fused.min()) < float(fused.max()) < 1
    for axis in (2, 3):
        # The steepest place of sin² over the overlap.
        assert float(fused.diff(dim=axis).abs().max()) < 1.1 * torch.pi / 2 / overlap


@given(st.integers(1, 60), st.integers(0, 40))
@settings(max_examples=60)
def test_weights_of_two_neighbours_add_up_to_one(overlap, rest):
    length = 2 * overlap + rest
    size = 2 * length - overlap
    a, b = ramp(length, 0, size, overlap), ramp(length, length - overlap, size, overlap)
    total = torch.zeros(size)
    total[:length] += a
    total[length - overlap :] += b
    torch.testing.assert_close(total, torch.ones(size))
    assert float(a.min()) > 0
    assert float(a[0]) == float(b[-1]) == 1


JOINT = [
    Bicubic((3, 36, 52), 4),
    AveragePool((3, 36, 51), 3),
    compose(random_mask((3, 36, 52), 0.7), Grayscale((3, 36, 52))),
    WalshHadamard((3, 37, 53), 0.3),
]


@pytest.mark.parametrize("A", JOINT, ids=str)
@pytest.mark.parametrize("sampler", [DDPM(), DPMSolverPP2M()], ids=lambda s: type(s).__name__)
def test_any_operator_is_exact_and_batches_do_not_count(A, sampler):
    level = level_of(A)
    _, h, w = A.in_shape
    plan = TilePlan(h, w, 16, 4)
    results = [
        result(engine(sampler=sampler, batch=b).restore(level, plan, "joint"))[0]
        for b in (1, 2, 7)
    ]
    torch.testing.assert_close(A(results[0]), level.measurement.y, rtol=0, atol=3e-5)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_with_a_pointwise_denoiser_joint_is_the_whole_image_at_once():
    A = Bicubic((3, 36, 52), 4)
    level = level_of(A)
    whole, joint = (
        result(engine(denoiser=pointwise).restore(level, TilePlan(36, 52, tile, 4), stitch))[0]
        for tile, stitch in ((52, "whole"), (16, "joint"))
    )
    torch.testing.assert_close(joint, whole, rtol=0, atol=1e-4)


def test_one_tile_is_the_denoiser_itself():
    x, counted = torch.randn(1, 3, 9, 9), []
    tiled = TiledDenoiser(pointwise, TilePlan(9, 9, 16, 4), counted=counted.append)
    assert torch.equal(tiled(x, 0.5), pointwise(x, 0.5))
    assert counted == [1]


def test_ddnm_sees_one_whole_image():
    shapes = []

    def method(m):
        shapes.append(m.A.in_shape)
        return DDNM(m)

    A = Grayscale((3, 30, 44))
    result(engine(method=method).restore(level_of(A), TilePlan(30, 44, 16, 4), "joint"))
    assert shapes == [(3, 30, 44)]
