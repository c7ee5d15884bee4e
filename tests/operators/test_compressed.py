"""Compressed sensing: orthonormal at every size, the same in a window as in the whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

from sfumato.errors import DegradationError, ShapeError
from sfumato.operators.base import GLOBAL, Locality, Window
from sfumato.operators.compressed import BlockSensing, WalshHadamard
from sfumato.testing import check_operator

KINDS = [WalshHadamard, BlockSensing]
SIDES = st.integers(1, 40)
RATIOS = st.sampled_from([0.001, 0.1, 0.25, 0.5, 1.0])
BLOCKS = st.sampled_from([1, 4, 8, 16])
SEEDS = st.integers(0, 2**31)


def normal(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@given(height=SIDES, width=SIDES, ratio=RATIOS, block=BLOCKS, seed=SEEDS)
@settings(deadline=None)
def test_obeys_all_laws(kind, height, width, ratio, block, seed):
    A = kind((2, height, width), ratio, block=block, seed=seed)
    check_operator(A, tolerance=1e-12)
    y = A(normal(seed, 1, 2, height, width))
    torch.testing.assert_close(A(A.adjoint(y)), y, rtol=0, atol=1e-12)
    assert A.svd().s.unique().tolist() in ([0.0, 1.0], [1.0])
    assert A.gram_scale == (1.0 if A.svd().s.all() else None)


@given(height=SIDES, width=SIDES, ratio=RATIOS)
@settings(deadline=None)
def test_the_whole_picture_as_one_block(height, width, ratio):
    A = WalshHadamard((1, height, width), ratio, block=0)
    check_operator(A, tolerance=1e-12)
    assert A.locality == GLOBAL


@pytest.mark.parametrize("n", [1, 2, 32, 64, 128, 1024])
def test_the_transform_is_hadamards(n):
    A = WalshHadamard((1, n, 2), 1.0, block=0)
    x = normal(0, 1, 1, n, 2)
    H = torch.from_numpy(hadamard(n) / n**0.5)
    H2 = torch.from_numpy(hadamard(2) / 2**0.5)
    torch.testing.assert_close(A(x)[0, 0], H @ x[0, 0] @ H2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [0.01, 0.25, 0.6])
def test_each_block_keeps_its_share_and_its_mean(kind, ratio):
    A = kind((1, 64, 32), ratio, block=16)
    blocks = A.svd().s.unflatten(-1, (-1, 16)).unflatten(-3, (-1, 16))
    counts = blocks.sum((-1, -3))
    assert (counts == max(1, round(256 * ratio))).all()
    y = A(torch.full((1, 1, 64, 32), 0.5))
    means = y[..., ::16, ::16]
    torch.testing.assert_close(means, torch.full_like(means, 0.5 * 16))
    assert float(y.norm()) == pytest.approx(float(means.norm()))


@pytest.mark.parametrize("kind", KINDS)
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.data(),
)
@settings(deadline=None)
def test_a_window_measures_what_the_whole_does(kind, size, data):
    block = 8
    A = kind((2, *size), 0.3, block=block, seed=5)
    x = normal(1, 1, 2, *size)
    spans = []
    for length in size:
        top = data.draw(st.integers(0, (length - 1) // block)) * block
        end = data.draw(st.integers(top // block + 1, -(-length // block))) * block
        spans.append((top, min(end, length) - top))
    (top, height), (left, width) = spans
    window = Window(top, left, height, width)
    part = A.crop(window)
    assert A.measured(window) == window
    expected = window.of(A(x))
    torch.testing.assert_close(part(window.of(x)), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(part.pinv(expected), window.of(A.pinv(A(x))), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_windows_that_cut_cells(kind):
    A = kind((1, 30, 30), 0.5, block=8)
    assert A.locality == Locality(8)
    for window in (Window(4, 0, 8, 8), Window(0, 0, 8, 12), Window(0, 8, 30, 16 + 4)):
        with pytest.raises(ShapeError, match="whole cells of 8"):
            A.crop(window)
    with pytest.raises(ShapeError, match="the whole image"):
        WalshHadamard((1, 8, 8), 0.5, block=0).crop(Window(0, 0, 8, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind):
    x = normal(0, 1, 1, 32, 32)
    y = [kind((1, 32, 32), 0.3, seed=seed)(x) for seed in (0, 0, 1)]
    assert torch.equal(y[0], y[1])
    assert not torch.allclose(y[0], y[2])


def test_draws_are_the_same_for_ever():
    kept = WalshHadamard((1, 4, 4), 0.3, block=4, seed=7).svd().s[0]
    assert kept.nonzero().tolist() == [[0, 0], [0, 2], [1, 1], [2, 2], [3, 3]]
    row = BlockSensing((1, 1, 3), 0.67, block=3, seed=7)(torch.eye(3)[:, None, None])
    torch.testing.assert_close(
        row[:, 0, 0, 1], torch.tensor([-0.643489, 0.756993, -0.113505]), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision(kind):
    A = kind((3, 50, 70), 0.25)
    x = normal(0, 2, 3, 50, 70)
    y = A(x.float())
    assert y.dtype == A.pinv(y).dtype == torch.float32
    torch.testing.assert_close(y.double(), A(x), rtol=0, atol=1e-5)
    check_operator(A, tolerance=1e-5, dtype=torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_misuse(kind):
    for ratio in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(DegradationError, match="ratio"):
            kind((1, 8, 8), ratio)
    with pytest.raises(DegradationError, match="blocks of"):
        kind((1, 8, 8), 0.5, block=-4)
    with pytest.raises(DegradationError, match="power of two"):
        WalshHadamard((1, 8, 8), 0.5, block=12)
    with pytest.raises(DegradationError, match="walsh_hadamard"):
        BlockSensing((1, 8, 8), 0.5, block=100)


def test_names():
    assert str(WalshHadamard((1, 8, 8), 0.25)) == "walsh_hadamard:0.25"
    assert str(WalshHadamard((1, 8, 8), 0.25, block=0)) == "walsh_hadamard:0.25:0"
    assert str(BlockSensing((1, 8, 8), 0.25, seed=3)) == "block_sensing:0.25:32:3"
