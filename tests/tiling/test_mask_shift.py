"""Mask-shift: the same bits in any order of computing, and A x = y on the whole image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import engine, level_of, one_by_one, plan_of, plus, result

from sfumato.diffusion import NoiseField
from sfumato.guidance import DDNM
from sfumato.operators import AveragePool, Grayscale, Identity, Mask, compose, random_mask
from sfumato.samplers import DDIM, DDPM, DPMSolverPP2M
from sfumato.tiling import Level, TilePlan

ORDERS = ["raster", "reverse", "centre", "known-first"]
#: Of the measurement of pooled images, and of the others themselves.
SIDES = st.sampled_from([1, 2, 3, 5, 7, 11, 13])


def pool_of_mask(h, w, s=2):
    known = random_mask((3, s * h, s * w), 0.6)
    return compose(known, Grayscale((3, s * h, s * w)), AveragePool((1, s * h, s * w), s))


def mask_of_pool(h, w, s=3):
    return compose(
        AveragePool((3, s * h, s * w), s),
        Grayscale((3, h, w)),
        random_mask((1, h, w), 0.7),
    )


MAKERS = {
    "pool 2": lambda h, w: AveragePool((3, 2 * h, 2 * w), 2),
    "pool 3": lambda h, w: AveragePool((3, 3 * h, 3 * w), 3),
    "mask": lambda h, w: random_mask((3, 3 * h - 2, 2 * w + 1), 0.5),
    "grey": lambda h, w: Grayscale((3, 2 * h - 1, 3 * w - 2)),
    "pool of mask": pool_of_mask,
    "mask of pool": mask_of_pool,
}


def known_of(A):
    """Share of what is known, for the order that begins there."""
    g = torch.Generator().manual_seed(1)
    known = torch.rand(A.in_shape[1:], generator=g)
    return lambda window: float(window.of(known).mean())


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
@given(h=SIDES, w=SIDES, order=st.sampled_from(ORDERS), overlap=st.integers(0, 7))
@settings(max_examples=6)
def test_the_whole_image_is_consistent(make, h, w, order, overlap):
    A = make(h, w)
    level, plan = level_of(A), plan_of(A, 16, overlap, order, known_of(A))
    x, _ = result(engine(batch=4, n_steps=2).restore(level, plan, "mask-shift"))
    torch.testing.assert_close(A(x), level.measurement.y, rtol=0, atol=2e-5)


def test_a_scale_that_does_not_divide_the_tile():
    A = AveragePool((3, 150, 135), 3)
    level, plan = level_of(A), plan_of(A, 64, 16)
    assert {t.window.height for t in plan.tiles} == {63}
    x, _ = result(engine(n_steps=2, travel=(1, 1)).restore(level, plan, "mask-shift"))
    torch.testing.assert_close(A(x), level.measurement.y, rtol=0, atol=2e-5)


@given(
    st.sampled_from(sorted(MAKERS)),
    SIDES,
    SIDES,
    st.sampled_from(ORDERS),
    st.sampled_from([DDPM(), DDIM(0.85), DPMSolverPP2M()]),
)
@settings(max_examples=8)
def test_waves_and_batches_have_the_bits_of_one_tile_after_the_other(name, h, w, order, sampler):
    A = MAKERS[name](h, w)
    level, plan = level_of(A), plan_of(A, 13, 5, order, known_of(A))
    expected = one_by_one(engine(sampler=sampler, n_steps=3), level, plan)
    for batch in (1, 2, 7):
        e = engine(sampler=sampler, n_steps=3, batch=batch)
        x, _ = result(e.restore(level, plan, "mask-shift"))
        assert torch.equal(x, expected)


@pytest.mark.parametrize("order", ORDERS)
def test_with_noise_guide_and_start_it_is_the_same(order):
    A = AveragePool((3, 26, 38), 2)
    guide = torch.rand((1, 3, 6, 9), generator=torch.Generator().manual_seed(0)), 4
    start = torch.full((1, 3, 26, 38), 0.25)
    level = level_of(A, sigma_y=0.2, guide=guide, start=start)
    plan = TilePlan(26, 38, 16, 8, stride=4, order=order, known=known_of(A), margin=4)
    expected = one_by_one(engine(method=plus), level, plan)
    for batch in (1, 2, 7):
        x, _ = result(engine(method=plus, batch=batch).restore(level, plan, "mask-shift"))
        assert torch.equal(x, expected)


def test_a_tile_depends_on_its_place_and_seed_only():
    """The first tile of a large image is that of a small one."""
    small, large = (
        result(
            engine().restore(Level((3, n, n), NoiseField(5)), TilePlan(n, n, 16, 0), "mask-shift")
        )[0]
        for n in (16, 48)
    )
    assert torch.equal(large[..., :16, :16], small)
    other = engine().restore(Level((3, 16, 16), NoiseField(6)), TilePlan(16, 16, 16, 0), "joint")
    assert not torch.equal(result(other)[0], small)


def test_seams_are_bound_and_without_paste_they_are_not():
    """Tiles see their neighbours' pixels: those beside a border agree better than without."""

    def jump(stitch):
        level, plan = Level((3, 32, 32), NoiseField(1)), TilePlan(32, 32, 16, 8)
        x, _ = result(engine(n_steps=6).restore(level, plan, stitch))
        lines = [b.at for b in plan.borders() if b.axis == "column"]
        return float((x[..., lines] - x[..., [n - 1 for n in lines]]).abs().mean())

    assert jump("mask-shift") < 0.9 * jump("independent")


def test_independent_is_mask_shift_without_paste():
    A = AveragePool((3, 32, 40), 2)
    level, plan = level_of(A), plan_of(A, 16, 6)
    x, _ = result(engine(batch=3).restore(level, plan, "independent"))
    for t in plan.tiles:
        alone = Level(
            (3, t.window.height, t.window.width),
            Moved(level.field, t.window),
            level.measurement.crop(t.window),
        )
        single = TilePlan(t.window.height, t.window.width, 16, 6, 2)
        expected, _ = result(engine().restore(alone, single, "independent"))
        for part in t.free:
            assert torch.equal(part.of(x), part.within(t.window).of(expected))
    torch.testing.assert_close(A(x), level.measurement.y, rtol=0, atol=2e-5)
    # Where no tiles overlap there is nothing to paste.
    apart = plan_of(AveragePool((3, 48, 32), 2), 16, 0)
    level = level_of(AveragePool((3, 48, 32), 2))
    a, b = (result(engine().restore(level, apart, s))[0] for s in ("mask-shift", "independent"))
    assert torch.equal(a, b)


class Moved(NoiseField):
    """A field seen from a window of it."""

    def __init__(self, field, window):
        super().__init__(field.seed, field.sample, field.level)
        object.__setattr__(self, "window", window)

    def __call__(self, *, draw, top, left, shape, device="cpu"):
        top, left = top + self.window.top, left + self.window.left
        return super().__call__(draw=draw, top=top, left=left, shape=shape, device=device)


@pytest.mark.parametrize("sampler", [DDPM(), DDIM(0.0), DDIM(0.85)], ids=["ddpm", "ddim", "eta"])
def test_every_tile_begins_with_noise_of_its_own(sampler):
    """With an oracle the noise is nominal in tile 2 as well, at every step (in the public code
    it starts from the finished tile 1, with half the variance)."""
    A = AveragePool((3, 144, 144), 4)
    g = torch.Generator().manual_seed(2)
    x_0 = torch.randn((1, 3, 144, 144), generator=g)
    level, plan = level_of(A), plan_of(A, 96, 48)
    y = A(x_0) + 0.2 * torch.randn(A.out_shape, generator=g)
    measurement = type(level.measurement)(A, y, 0.2)
    level = Level(level.shape, level.field, measurement, start=x_0)
    e = engine(sampler=sampler, method=plus)
    windows = [t.window for t in plan.tiles for _ in range(e.n_steps)]
    sizes = []

    def oracle(x_t, sigma):
        truth = windows[len(sizes)].of(x_0)
        sizes.append(float((x_t - truth).std()) / sigma)
        return truth

    object.__setattr__(e.restorer, "denoiser", oracle)
    x, _ = result(e.restore(level, plan, "mask-shift"))
    assert len(sizes) == len(windows) == 4 * e.n_steps
    assert all(abs(s - 1) < 0.02 for s in sizes), sizes
    torch.testing.assert_close(x, x_0, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stitch", ["mask-shift", "independent", "joint"])
def test_progress_counts_the_evaluations(stitch):
    level, plan = level_of(Identity((3, 40, 30))), TilePlan(40, 30, 16, 4)
    seen = []

    def denoiser(x, sigma):
        seen.append(len(x))
        return x

    e = engine(denoiser=denoiser, batch=2)
    _, progress = result(e.restore(level, plan, stitch))
    done = [p.done for p in progress]
    assert done == sorted(done)
    assert sum(seen) == done[-1] == e.n_steps * len(plan.tiles)
    assert {p.total for p in progress} == {done[-1]}
    assert set(seen) == {1}


def test_a_mask_without_any_known_pixel_in_a_tile():
    known = torch.zeros(1, 40, 40)
    known[:, :9, :9] = 1.0
    A = Mask((3, 40, 40), known)
    level, plan = level_of(A), plan_of(A)
    x, _ = result(engine(method=DDNM).restore(level, plan, "mask-shift"))
    torch.testing.assert_close(A(x), level.measurement.y)
    assert bool(torch.isfinite(x).all())
