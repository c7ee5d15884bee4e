"""The coarse problem is A A_sr⁺ in least squares: dense algebra says so for small operators."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import engine, one_by_one, pointwise, result

from sfumato.diffusion import NoiseField
from sfumato.errors import SettingsError
from sfumato.guidance import Measurement
from sfumato.operators import (
    AveragePool,
    Bicubic,
    Convolution,
    Grayscale,
    GrayscaleWithHints,
    Identity,
    Mask,
    Window,
    compose,
    gaussian_kernel,
    parse,
)
from sfumato.tiling import Level, TilePlan, coarse_operator, coarsen, level_ratios


def mask_of(shape, seed, *, shares=False, per_channel=False):
    g = torch.Generator().manual_seed(seed)
    known = torch.rand((shape[0] if per_channel else 1, *shape[1:]), generator=g)
    return Mask(shape, known * (known > 0.4) if shares else (known > 0.6).float())


def masked_pool(h, w, seed, s=4):
    return compose(mask_of((3, h, w), seed), AveragePool((3, h, w), s))


#: For an image of h x w pixels, multiples of 8.
MAKERS = {
    "identity": lambda h, w, seed: Identity((3, h, w)),
    "grey": lambda h, w, seed: Grayscale((3, h, w)),
    "pool 2": lambda h, w, seed: AveragePool((3, h, w), 2),
    "pool 8": lambda h, w, seed: AveragePool((3, h, w), 8),
    "mask": lambda h, w, seed: mask_of((3, h, w), seed),
    "mask of shares": lambda h, w, seed: mask_of((3, h, w), seed, shares=True),
    "mask of channels": lambda h, w, seed: mask_of((3, h, w), seed, per_channel=True),
    "mask, then pool 4": masked_pool,
    "mask of shares, then pool 4": lambda h, w, seed: compose(
        mask_of((3, h, w), seed, shares=True), AveragePool((3, h, w), 4)
    ),
    "mask, grey, pool 4": lambda h, w, seed: compose(
        mask_of((3, h, w), seed), Grayscale((3, h, w)), AveragePool((1, h, w), 4)
    ),
    "grey, mask": lambda h, w, seed: compose(Grayscale((3, h, w)), mask_of((1, h, w), seed)),
    "grey, pool 2": lambda h, w, seed: compose(Grayscale((3, h, w)), AveragePool((1, h, w), 2)),
    "pool 2, grey": lambda h, w, seed: compose(
        AveragePool((3, h, w), 2), Grayscale((3, h // 2, w // 2))
    ),
    "pool 2, mask": lambda h, w, seed: compose(
        AveragePool((3, h, w), 2), mask_of((3, h // 2, w // 2), seed)
    ),
    "pool 2, grey, mask": lambda h, w, seed: compose(
        AveragePool((3, h, w), 2),
        Grayscale((3, h // 2, w // 2)),
        mask_of((1, h // 2, w // 2), seed),
    ),
    "mask, pool 4, mask": lambda h, w, seed: compose(
        masked_pool(h, w, seed), mask_of((3, h // 4, w // 4), seed + 1)
    ),
    "pool 2, mask, pool 2": lambda h, w, seed: compose(
        AveragePool((3, h, w), 2),
        mask_of((3, h // 2, w // 2), seed),
        AveragePool((3, h // 2, w // 2), 2),
    ),
    "strokes": lambda h, w, seed: GrayscaleWithHints((3, h, w), mask_of((3, h, w), seed).known),
    "pool 2, strokes": lambda h, w, seed: compose(
        AveragePool((3, h, w), 2),
        GrayscaleWithHints((3, h // 2, w // 2), mask_of((3, h // 2, w // 2), seed).known),
    ),
}


def dense(f, shape):
    n = shape[0] * shape[1] * shape[2]
    return f(torch.eye(n, dtype=torch.float64).reshape(n, *shape)).reshape(n, -1).T


def replicate(x, r):
    return x.repeat_interleave(r, 2).repeat_interleave(r, 3)


def check_coarse(m, ratio):
    """The least-squares solutions of A_c x_c = y_c are those of M x_c = y with M = A A_sr⁺."""
    coarse = coarsen(m, ratio)
    shape = (3, *(n // ratio for n in m.A.in_shape[1:]))
    assert coarse.A.in_shape == shape
    M = dense(lambda x: m.A(replicate(x, ratio)), shape)
    M_c = dense(coarse.A, shape)
    x_c = torch.linalg.pinv(M, rtol=1e-7) @ m.y.flatten()
    left_over = M_c.T @ (M_c @ x_c - coarse.y.flatten())
    torch.testing.assert_close(left_over, torch.zeros_like(left_over), rtol=0, atol=1e-5)
    # The same directions are free: both null spaces have one projection.
    rows, rows_c = (torch.linalg.pinv(B, rtol=1e-6) @ B for B in (M, M_c))
    torch.testing.assert_close(rows_c, rows, rtol=0, atol=1e-5)
    return coarse


def measured(A, seed):
    """Return a measurement that no image need agree with."""
    g = torch.Generator().manual_seed(seed)
    return Measurement(A, torch.randn((1, *A.out_shape), generator=g, dtype=torch.float64), 0.1)


@pytest.mark.parametrize("name", MAKERS)
@given(seed=st.integers(0, 1000), ratio=st.sampled_from([1, 2, 4]), rows=st.integers(1, 2))
@settings(max_examples=4)
def test_the_coarse_problem_is_the_least_squares_one(name, seed, ratio, rows):
    A = MAKERS[name](8 * rows, 8, seed)
    check_coarse(measured(A, seed), ratio)


@given(st.integers(2, 11), st.integers(2, 11), st.sampled_from([2, 3]), st.integers(0, 99))
@settings(max_examples=20)
def test_rows_and_columns_beyond_the_last_cell_are_left_out(h, w, ratio, seed):
    h, w = max(h, ratio), max(w, ratio)
    inside = Window(0, 0, h - h % ratio, w - w % ratio)
    for A in (mask_of((3, h, w), seed), Grayscale((3, h, w)), Identity((3, h, w))):
        m = measured(A, seed)
        cut = m.crop(inside)
        got, expected = coarsen(m, ratio), check_coarse(cut, ratio)
        assert torch.equal(got.y, expected.y)


def test_a_coarse_level_of_a_coarse_level_is_the_next_one():
    A = masked_pool(16, 16, 3, s=8)
    m = measured(A, 0)
    twice, once = coarsen(coarsen(m, 2), 2), coarsen(m, 4)
    torch.testing.assert_close(twice.y, once.y)
    torch.testing.assert_close(dense(twice.A, (3, 4, 4)), dense(once.A, (3, 4, 4)))


@pytest.mark.parametrize("name", MAKERS)
def test_the_coarse_noise_is_not_understated(name):
    """The standard deviation of each value of y_c is at most what the coarse problem says."""
    A = MAKERS[name](8, 8, 5)
    zero = torch.zeros((1, *A.out_shape), dtype=torch.float64)
    columns = []
    for k in range(zero.numel()):
        zero.flatten()[k] = 1.0
        unit = zero.clone()
        columns.append(coarsen(Measurement(A, unit, 1.0), 2).y.flatten())
        zero.flatten()[k] = 0.0
    actual = torch.stack(columns).square().sum(0).sqrt()
    stated = coarsen(Measurement(A, zero, 1.0), 2).sigma_y
    assert float(actual.max()) <= stated + 1e-6
    if "strokes" not in name:
        assert float(actual[actual > 0].min()) == pytest.approx(stated)


REFUSED = [
    (AveragePool((3, 12, 12), 3), 2),
    (AveragePool((3, 12, 12), 6), 4),
    (Convolution((3, 8, 8), gaussian_kernel(1.0)), 2),
    (Convolution((3, 9, 9), gaussian_kernel(1.0)), 2),
    (compose(mask_of((3, 8, 8), 0), Grayscale((3, 8, 8))), 2),
    (compose(mask_of((3, 8, 8), 0), Bicubic((3, 8, 8), 2)), 2),
    # The mean of a product of masks is not the product of their means.
    (compose(mask_of((3, 8, 8), 0), mask_of((3, 8, 8), 1), AveragePool((3, 8, 8), 4)), 2),
    (Identity((3, 8, 1)), 2),
]


@pytest.mark.parametrize(("A", "ratio"), REFUSED, ids=lambda v: str(v))
def test_what_has_no_coarse_form_is_refused(A, ratio):
    with pytest.raises(SettingsError, match="coarser by"):
        coarsen(measured(A, 0), ratio)


def test_level_ratios():
    assert level_ratios(1) == [1]
    assert level_ratios(4) == [8, 4, 2, 1]
    assert level_ratios(3, 3) == [9, 3, 1]
    with pytest.raises(SettingsError):
        level_ratios(0)


@pytest.mark.parametrize("stitch", ["mask-shift", "joint", "whole"])
@given(
    h=st.integers(2, 34), w=st.integers(2, 34), r=st.sampled_from([2, 3]), seed=st.integers(0, 9)
)
@settings(max_examples=6)
def test_a_guide_that_never_lets_go_is_kept_on_the_whole_image(stitch, h, w, r, seed):
    h, w = max(h, r), max(w, r)
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, 3, h // r, w // r), generator=g)
    level = Level((3, h, w), NoiseField(seed), guide=(coarse, r))
    tile = 15 if stitch != "whole" else 45
    plan = TilePlan(h, w, tile, 4, stride=r)
    x, _ = result(engine(n_steps=2, guide_until=0.0).restore(level, plan, stitch))
    A_sr = AveragePool((3, h // r * r, w // r * r), r)
    got = A_sr(x[..., : h // r * r, : w // r * r])
    torch.testing.assert_close(got, coarse, rtol=0, atol=2e-5)


def test_a_guide_leads_the_low_frequencies_and_leaves_the_measurement_its_way():
    """Guide first, measurement second: where both speak, the data win."""
    A = Mask((3, 32, 32), (torch.arange(32) < 16).float().expand(1, 32, 32))
    y = torch.full((1, 3, 32, 32), 0.8) * A.known
    coarse = torch.full((1, 3, 16, 16), -0.5)
    level = Level((3, 32, 32), NoiseField(0), Measurement(A, y), guide=(coarse, 2))
    plan = TilePlan(32, 32, 16, 4, stride=2)
    e = engine(guide_until=0.0, denoiser=pointwise)
    x, _ = result(e.restore(level, plan, "mask-shift"))
    torch.testing.assert_close(A(x), y)
    right = AveragePool((3, 32, 16), 2)(x[..., 16:])
    torch.testing.assert_close(right, coarse[..., 8:], rtol=0, atol=1e-5)
    assert torch.equal(x, one_by_one(e, level, plan))


def test_a_guide_lets_go_below_its_level():
    """Above the walk's last level it is as if there were none below."""
    level = Level((1, 8, 8), NoiseField(0), guide=(torch.full((1, 1, 4, 4), 9.0), 2))
    free = Level((1, 8, 8), NoiseField(0))
    plan = TilePlan(8, 8, 8, 0)
    never = engine(guide_until=100.0).restore(level, plan, "whole")
    assert torch.equal(result(never)[0], result(engine().restore(free, plan, "whole"))[0])
    seen = []

    def note(x, sigma):
        seen.append((sigma, x))
        return torch.zeros_like(x)

    e = engine(denoiser=note, guide_until=0.5, n_steps=6, travel=(1, 1))
    x, _ = result(e.restore(level, plan, "whole"))
    assert float(x.abs().max()) == 0
    means = {round(s, 3): float(v.mean()) for s, v in seen}
    above = [m for s, m in means.items() if s < 5 and s > 0.5]
    assert above
    assert all(m > 5 for m in above)


@pytest.mark.parametrize("words", ["bicubic:8", "average_pool:8", "grayscale | average_pool:4"])
@pytest.mark.parametrize("ratio", [2, 4])
def test_a_coarse_operator_is_that_of_the_coarse_measurement(words, ratio):
    A = parse(words).operator((3, 64, 48))
    y = torch.rand((1, *A.out_shape), generator=torch.Generator().manual_seed(0))
    m, A_c = coarsen(Measurement(A, y), ratio), coarse_operator(A, ratio)
    assert torch.equal(m.y, y)
    assert (str(A_c), A_c.in_shape, A_c.out_shape) == (str(m.A), m.A.in_shape, m.A.out_shape)
    x = torch.rand((1, *A_c.in_shape), generator=torch.Generator().manual_seed(1))
    assert torch.equal(A_c(x), m.A(x))


def test_a_coarse_operator_leaves_the_measurement_as_it_is():
    for words, ratio in (("identity", 2), ("average_pool:2", 4), ("bicubic:3", 2)):
        with pytest.raises(SettingsError, match=f"coarser by {ratio}"):
            coarse_operator(parse(words).operator((3, 48, 48)), ratio)
