"""The laws, on every operator that a degradation can be made of, over sizes and seeds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.operators import (
    AveragePool,
    Grayscale,
    GrayscaleWithHints,
    Identity,
    Mask,
    Nothing,
    compose,
    parse,
    random_mask,
)
from sfumato.operators.text import WORDS
from sfumato.testing import check_operator

SIDES = st.integers(1, 9)
SEEDS = st.integers(0, 1000)
EXAMPLES = settings(max_examples=15, deadline=None)


@EXAMPLES
@given(factor=st.integers(1, 5), rows=SIDES, cols=SIDES, seed=SEEDS)
def test_pooling(factor, rows, cols, seed):
    check_operator(AveragePool((3, factor * rows, factor * cols), factor), seed=seed)


@EXAMPLES
@given(height=SIDES, width=SIDES, seed=SEEDS)
@pytest.mark.parametrize("kind", [Identity, Nothing])
def test_identity_and_nothing(kind, height, width, seed):
    check_operator(kind((3, height, width)), seed=seed)


def masks(height, width, seed, fractions):
    g = torch.Generator().manual_seed(seed)
    known = (torch.rand(1, height, width, generator=g) < 0.6).double()
    return known * (0.1 + 0.9 * torch.rand(known.shape, generator=g)) if fractions else known


@EXAMPLES
@given(height=SIDES, width=SIDES, seed=SEEDS, fractions=st.booleans())
def test_masks(height, width, seed, fractions):
    check_operator(Mask((3, height, width), masks(height, width, seed, fractions)), seed=seed)


@EXAMPLES
@given(
    height=SIDES,
    width=SIDES,
    weights=st.tuples(*[st.floats(-2, 2).filter(lambda w: abs(w) > 0.05)] * 3),
    seed=SEEDS,
)
def test_grey(height, width, weights, seed):
    check_operator(Grayscale((3, height, width), weights), seed=seed)


@EXAMPLES
@given(height=SIDES, width=SIDES, seed=SEEDS)
def test_hints(height, width, seed):
    painted = masks(height, width, seed, False)
    check_operator(GrayscaleWithHints((3, height, width), painted), seed=seed)


@EXAMPLES
@given(rows=SIDES, cols=SIDES, seed=SEEDS, order=st.permutations(["grey", "pool", "mask"]))
def test_compositions_in_every_order(rows, cols, seed, order):
    shape, parts = (3, 2 * rows, 2 * cols), []
    for word in order:
        if word == "grey":
            part = Grayscale(shape)
        elif word == "pool":
            part = AveragePool(shape, 2)
        else:
            part = random_mask(shape, 0.7, seed)
        parts.append(part)
        shape = part.out_shape
    check_operator(compose(*parts), seed=seed)


@pytest.mark.parametrize(
    "text",
    [
        "average_pool:3",
        "bicubic:2",
        "block_sensing:0.3",
        "box_mask:0.5",
        "grayscale",
        "grayscale:0.2:0.5:0.3",
        "identity",
        "nothing",
        "random_mask:0.5:3",
        "scratch_mask:2:1",
        "walsh_hadamard:0.4",
        "uniform_blur:3",
        "gaussian_blur:0.6",
        "motion_blur:5:30",
        "anisotropic_blur:1.0:0.5:20",
        "grayscale | average_pool:2",
        "random_mask:0.7:1 | average_pool:3",
        "average_pool:2 | random_mask:0.7:1",
        "average_pool:2 | grayscale | average_pool:3",
    ],
)
def test_every_word(text):
    check_operator(parse(text).operator((3, 12, 18)), tolerance=1e-7)


def test_every_word_is_tried():
    tried = {"mask", "kernel_blur", "grayscale_hints"}  # files: above, and in test_convolution
    source = test_every_word.pytestmark[0].args[1]
    tried |= {word.strip().split(":")[0] for text in source for word in text.split("|")}
    assert tried == set(WORDS)
