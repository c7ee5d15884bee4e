"""DDNM keeps its promise: the result agrees with the measurement."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion import Step, karras
from sfumato.guidance import DDNM, Guide, Measurement, Paste
from sfumato.operators import (
    AveragePool,
    Bicubic,
    Grayscale,
    GrayscaleWithHints,
    Identity,
    Mask,
    compose,
    random_mask,
)
from sfumato.samplers import DDIM, DDPM, DPMSolverPP2M, Rounds, sample, walk

SHAPE = (3, 24, 36)
KNOWN = random_mask(SHAPE, 0.5).known
OPERATORS = [
    AveragePool(SHAPE, 3),
    Bicubic(SHAPE, 4),
    Grayscale(SHAPE),
    GrayscaleWithHints(SHAPE, random_mask(SHAPE, 0.1).known),
    Mask(SHAPE, KNOWN),
    compose(Mask(SHAPE, KNOWN), Grayscale(SHAPE), AveragePool((1, 24, 36), 4)),
    compose(AveragePool(SHAPE, 2), Grayscale((3, 12, 18)), random_mask((1, 12, 18), 0.7)),
    compose(random_mask(SHAPE, 0.8), Bicubic(SHAPE, 2)),
]
SAMPLERS = [DDPM(), DDIM(0.0), DDIM(0.85), DPMSolverPP2M(), Rounds()]
STEP = Step(1, 1.0, 0.5, 0.0)


def normal(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("A", OPERATORS, ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_the_result_is_consistent(A, sampler):
    y = A(normal(1, *SHAPE))
    moves = walk(sampler, karras(6, 10.0), travel_length=2, travel_repeats=2)
    *_, (_, x) = sample(
        lambda x, sigma: torch.tanh(x / (1 + sigma)),
        sampler,
        [DDNM(Measurement(A, y))],
        moves,
        x_T=10 * normal(1, *SHAPE, seed=1),
        noise=lambda draw: normal(1, *SHAPE, seed=1 + draw),
    )
    torch.testing.assert_close(A(x), y, rtol=0, atol=1e-7)


@pytest.mark.parametrize("A", OPERATORS, ids=str)
def test_it_moves_in_the_range_only_and_only_once(A):
    x, y = normal(1, *SHAPE), A(normal(1, *SHAPE, seed=1))
    guidance = DDNM(Measurement(A, y))
    corrected = guidance.correct(x, STEP)
    change = corrected - x
    torch.testing.assert_close(A.pinv(A(change)), change, rtol=0, atol=1e-7)
    torch.testing.assert_close(guidance.correct(corrected, STEP), corrected, rtol=0, atol=1e-7)


def test_paste_has_the_last_word_and_leaves_noise_of_frozen_pixels_alone():
    class Shaped(DDNM.__mro__[1]):
        needs_noise = shapes_noise = True

        def correct(self, x_0, step):
            return x_0 + 5

        def mix(self, noise, z, step):
            return z

    frozen = torch.zeros((1, 4, 4), dtype=torch.bool)
    frozen[:, :2] = True
    x, z, done = (torch.full((1, 3, 4, 4), v) for v in (1.0, 2.0, 3.0))
    paste = Paste(Shaped(), done, frozen)
    assert paste.needs_noise
    assert paste.shapes_noise
    assert paste.correct(x, STEP)[0, :, :2].unique().tolist() == [3.0]
    assert paste.correct(x, STEP)[0, :, 2:].unique().tolist() == [6.0]
    assert paste.mix(x, z, STEP)[0, :, :2].unique().tolist() == [1.0]
    assert paste.mix(x, z, STEP)[0, :, 2:].unique().tolist() == [2.0]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(0, 4))
@settings(deadline=None)
def test_a_guide_sets_the_means_of_cells_above_its_level_and_lets_go_below(rows, cols, r, rest):
    rest = min(rest, r - 1)
    h, w = rows * r + rest, cols * r + rest
    coarse, x = normal(1, 3, rows, cols), normal(1, 3, h, w, seed=1)
    guide = Guide(coarse, r, until=0.3)
    for sigma in (0.3, 5.0):
        got = guide.correct(x, Step(1, sigma, 0.0, 0.0))
        inside = got[..., : rows * r, : cols * r]
        torch.testing.assert_close(AveragePool((3, rows * r, cols * r), r)(inside), coarse)
        change = (got - x)[..., : rows * r, : cols * r]
        flat = AveragePool((3, rows * r, cols * r), r)
        torch.testing.assert_close(flat.pinv(flat(change)), change)
        assert torch.equal(got[..., rows * r :, :], x[..., rows * r :, :])
        assert torch.equal(got[..., cols * r :], x[..., cols * r :])
    assert torch.equal(guide.correct(x, Step(1, 0.29, 0.0, 0.0)), x)


def test_identity_without_noise_is_the_measurement():
    y = normal(1, *SHAPE)
    assert torch.equal(DDNM(Measurement(Identity(SHAPE), y)).correct(0 * y, STEP), y)


@given(st.sampled_from([2, 3, 4]), st.integers(0, 99))
@settings(max_examples=20)
def test_a_correction_that_is_spread_is_as_consistent_and_smoother(s, seed):
    spread = 0.3 * s
    A = AveragePool((3, 8 * s, 6 * s), s)
    g = torch.Generator().manual_seed(seed)
    y = torch.rand((1, *A.out_shape), generator=g)
    step = Step(1, 1.0, 0.5, 0.0)
    x_0 = torch.zeros((1, *A.in_shape))
    plain = DDNM(Measurement(A, y)).correct(x_0, step)
    smooth = DDNM(Measurement(A, y), spread).correct(x_0, step)
    torch.testing.assert_close(A(smooth), y, rtol=0, atol=1e-5)
    inner = slice(s, -s)
    jumps = [float(x[..., inner].diff(dim=-1).square().mean()) for x in (plain, smooth)]
    assert jumps[1] < jumps[0]
    kept = DDNM(Measurement(A, A(smooth)), spread).correct(smooth, step)
    torch.testing.assert_close(kept, smooth, rtol=0, atol=1e-5)
