"""Geometry of tiles: each pixel is owned once, and nobody reads what is not yet written."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import SettingsError
from sfumato.operators import Window
from sfumato.tiling import TilePlan, batches, positions

ORDERS = ["raster", "reverse", "centre", "known-first"]
ordered = pytest.mark.parametrize("order", ORDERS)


@st.composite
def axes(draw, largest=700):
    """Draw (size, tile, overlap, stride) that fit together."""
    stride = draw(st.sampled_from([1, 1, 2, 3, 4, 8, 6]))
    tile = draw(st.integers(stride, 300))
    overlap = draw(st.integers(0, max(0, tile - tile % stride - stride)))
    return draw(st.integers(1, largest)), tile, overlap, stride


@given(axes())
@settings(max_examples=500)
def test_positions(axis):
    size, tile, overlap, stride = axis
    tiles = positions(*axis)
    starts = [s for s, _ in tiles]
    assert starts[0] == 0
    assert sum(tiles[-1]) == size
    assert all(s % stride == 0 for s in starts)
    assert all(n == tile - tile % stride for _, n in tiles[:-1])
    assert tiles[-1][1] < tile + stride or len(tiles) == 1
    assert max(n for _, n in tiles) <= max(tile, tile - tile % stride + stride - 1)
    steps = [b - a for a, b in pairwise(starts)]
    assert all(0 < s <= tile - tile % stride - overlap for s in steps)
    if steps:
        # Evenly spread: steps differ by one cell at most, and one tile less would not do.
        assert max(steps) - min(steps) <= stride
        largest_step = (tile - tile % stride - overlap) // stride * stride
        reach = (len(steps) - 1) * largest_step + tile - tile % stride
        assert reach < size - size % stride or reach + stride > size > reach


@pytest.mark.parametrize(
    ("axis", "starts"),
    [
        ((1, 256, 64), [0]),
        ((256, 256, 255), [0]),
        ((257, 256, 64), [0, 1]),
        ((512, 256, 128), [0, 128, 256]),
        ((65, 64, 16, 2), [0]),
        ((67, 64, 16, 2), [0, 2]),
    ],
)
def test_some_positions(axis, starts):
    assert [s for s, _ in positions(*axis)] == starts


@pytest.mark.parametrize("axis", [(100, 50, 50), (100, 50, -1), (100, 2, 0, 3), (100, 50, 45, 8)])
def test_impossible_tiles_are_refused(axis):
    with pytest.raises(SettingsError, match="overlap"):
        positions(*axis)


@st.composite
def plans(draw, largest=700):
    height, tile, overlap, stride = draw(axes(largest))
    # Enough tiles to be interesting, few enough to be quick.
    tile = max(tile, -(-largest // 12) // stride * stride + overlap + stride)
    width = draw(st.integers(1, largest))
    order = draw(st.sampled_from(ORDERS))
    known = None
    if order == "known-first":
        g = torch.Generator().manual_seed(draw(st.integers(0, 99)))
        coarse = torch.rand((-(-height // 50), -(-width // 50)), generator=g)
        fine = coarse.repeat_interleave(50, 0).repeat_interleave(50, 1)[:height, :width]

        def known(w):
            return float(w.of(fine).mean())

    margin = draw(st.integers(0, overlap // 2 // stride)) * stride
    return TilePlan(height, width, tile, overlap, stride, order, known, margin)


def painted(plan):
    """Return the number of the tile that owns each pixel, painted pixel by pixel."""
    owner = torch.full((plan.height, plan.width), -1)
    for t in plan.tiles:
        for part in t.free:
            assert bool((part.of(owner) == -1).all()), "a pixel is owned twice"
            part.of(owner).fill_(t.number)
    assert bool((owner >= 0).all()), "a pixel is owned by none"
    return owner


@given(plans())
@settings(max_examples=200)
def test_every_pixel_is_owned_once_and_dependencies_are_respected(plan):
    owner = painted(plan)
    wave = {t.number: t.wave for t in plan.tiles}
    for t in plan.tiles:
        inside = t.window.of(owner)
        frozen = t.frozen()[0]
        # Free are just the pixels it owns; those in its reach that it does not own are bound.
        reach = torch.zeros_like(frozen)
        for part in (*t.free, *t.bound):
            part.within(t.window).of(reach).fill_(True)
        assert torch.equal(frozen, reach & (inside != t.number))
        assert bool((reach | (inside != t.number)).all())
        read = inside[frozen].unique().tolist()
        assert all(wave[k] < t.wave for k in read)
        # It waits for none that it does not read.
        assert t.wave == 1 + max((wave[k] for k in read), default=-1)
        assert (t.window.top % plan.stride, t.window.left % plan.stride) == (0, 0)
        for part in t.free:
            bottom, right = part.top + part.height, part.left + part.width
            assert part.top % plan.stride == part.left % plan.stride == 0
            assert bottom % plan.stride == 0 or bottom == plan.height
            assert right % plan.stride == 0 or right == plan.width
    assert [t.number for w in plan.waves for t in w] == sorted(
        (t.number for t in plan.tiles), key=lambda k: (wave[k], k)
    )
    assert {t.wave for t in plan.tiles} == set(range(len(plan.waves)))


@given(plans())
@settings(max_examples=60)
def test_the_first_tile_that_covers_a_pixel_owns_it(plan):
    plan = replace(plan, margin=0)
    owner = painted(plan)
    first = torch.full_like(owner, 10**6)
    for k, w in enumerate(plan._ranked):
        w.of(first).clamp_(max=k)
    assert torch.equal(owner, first)


@given(plans())
@settings(max_examples=100)
def test_in_raster_order_margins_are_at_the_right_and_the_bottom(plan):
    plan = replace(plan, order="raster")
    owner, m = painted(plan), plan.margin
    for t in plan.tiles:
        w, own = t.window, t.window.of(owner) == t.number
        if m and w.left + w.width < plan.width:
            assert not bool(own[:, -m:].any())
        if m and w.top + w.height < plan.height:
            assert not bool(own[-m:].any())


@given(axes(), st.integers(1, 700))
@settings(max_examples=60)
def test_with_corners_waves_are_those_of_2_i_plus_j(axis, width):
    height, tile, overlap, stride = axis
    tile = max(tile, 60 // stride * stride + overlap + stride, 2 * overlap + 2 * stride)
    margin = overlap // 2 // stride * stride
    plan = TilePlan(height, width, tile, overlap, stride, margin=margin, corners=True)
    owner = painted(plan)
    rows = [s for s, _ in positions(height, tile, overlap, stride)]
    cols = [s for s, _ in positions(width, tile, overlap, stride)]
    wave = {t.number: t.wave for t in plan.tiles}
    for t in plan.tiles:
        i, j = rows.index(t.window.top), cols.index(t.window.left)
        assert t.wave <= 2 * i + j
        if margin:
            assert t.wave == 2 * i + j or len(cols) == 1
        inside, frozen = t.window.of(owner), t.frozen()[0]
        # All that is finished in its window binds it, and nothing else.
        assert torch.equal(frozen, inside < t.number)
        assert all(wave[k] < t.wave for k in inside[frozen].unique().tolist())
        movable = torch.zeros_like(frozen)
        for part in t.movable:
            part.of(movable).fill_(True)
        assert torch.equal(movable, ~frozen)
        last = t.movable[-1].of(inside)
        assert int((last == t.number).sum()) == int((inside == t.number).sum())


def test_corners_need_raster_order():
    with pytest.raises(SettingsError, match="raster"):
        TilePlan(100, 100, 40, 16, order="centre", corners=True)


@pytest.mark.parametrize("margin", [-4, 3, 12])
def test_impossible_margins_are_refused(margin):
    with pytest.raises(SettingsError, match="margin"):
        TilePlan(100, 100, 40, 16, 4, margin=margin)


@given(axes(), st.integers(1, 700))
@settings(max_examples=60)
def test_raster_waves_are_anti_diagonals(axis, width):
    height, tile, overlap, stride = axis
    overlap = max(overlap, 1)
    tile = max(tile, 60 // stride * stride + overlap + stride)
    margin = overlap // 2 // stride * stride
    plan = TilePlan(height, width, tile, overlap, stride, margin=margin)
    rows = [s for s, _ in positions(height, tile, overlap, stride)]
    cols = [s for s, _ in positions(width, tile, overlap, stride)]
    for t in plan.tiles:
        assert t.wave == rows.index(t.window.top) + cols.index(t.window.left)
    assert len(plan.waves) == len(rows) + len(cols) - 1


@pytest.mark.parametrize(
    ("side", "tiles", "waves"), [(512, 9, 5), (1024, 49, 13), (2048, 225, 29), (4096, 961, 61)]
)
def test_the_papers_grids(side, tiles, waves):
    plan = TilePlan(side, side, tile=256, overlap=128)
    assert (len(plan.tiles), len(plan.waves)) == (tiles, waves)
    # Pixel work against the image: 2.25, 3.06, 3.52 ...
    work = sum(t.window.height * t.window.width for t in plan.tiles) / side**2
    assert work == tiles * 256**2 / side**2


def test_without_overlap_all_tiles_run_together():
    plan = TilePlan(96, 64, tile=32, overlap=0)
    assert len(plan.waves) == 1
    assert all(not bool(t.frozen().any()) for t in plan.tiles)


@ordered
def test_orders_begin_where_they_say(order):
    known = torch.zeros(300, 300)
    known[100:200, 200:] = 1.0
    plan = TilePlan(300, 300, 100, 20, order=order, known=lambda w: float(w.of(known).mean()))
    first = plan.tiles[0].window
    middle = (first.top + first.height / 2, first.left + first.width / 2)
    if order == "raster":
        assert (first.top, first.left) == (0, 0)
    if order == "reverse":
        assert (first.top + first.height, first.left + first.width) == (300, 300)
    if order == "centre":
        assert math.dist(middle, (150, 150)) <= 100
    if order == "known-first":
        shares = [float(w.of(known).mean()) for w in plan.windows]
        assert float(first.of(known).mean()) == max(shares) > 0


@given(plans(300))
@settings(max_examples=60)
def test_borders_are_where_ownership_changes(plan):
    owner = painted(plan)
    rows = torch.zeros_like(owner, dtype=torch.bool)
    cols = torch.zeros_like(rows)
    for b in plan.borders():
        if b.axis == "row":
            rows[b.at, b.start : b.stop] = True
        else:
            cols[b.start : b.stop, b.at] = True
    assert torch.equal(rows[1:], owner[1:] != owner[:-1])
    assert torch.equal(cols[:, 1:], owner[:, 1:] != owner[:, :-1])
    assert not rows[0].any()
    assert not cols[:, 0].any()


@given(plans(), st.integers(1, 9))
@settings(max_examples=60)
def test_batches_hold_windows_of_one_size(plan, size):
    for wave in plan.waves:
        groups = batches(wave, size)
        assert sorted(t.number for g in groups for t in g) == [t.number for t in wave]
        sizes = [{(t.window.height, t.window.width) for t in g} for g in groups]
        assert all(len(s) == 1 for s in sizes)
        assert all(1 <= len(g) <= size for g in groups)
        # None is cut short but the last one of its size.
        for a, b in pairwise(range(len(groups))):
            assert len(groups[a]) == size or sizes[a] != sizes[b]


def test_a_window_of_the_whole_is_the_image():
    plan = TilePlan(5, 700, tile=700, overlap=0)
    assert [t.window for t in plan.tiles] == [Window(0, 0, 5, 700)]
