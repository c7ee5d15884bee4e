import math
from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import ImageError, SettingsError, ShapeError
from sfumato.metrics import Border, SeamMeter, SeamReport, grid_borders, seam_report


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def metered(image, borders, phase, cuts, **options):
    """The report of the bands between ``cuts``."""
    meter = SeamMeter(*image.shape[1:], borders, phase)
    for top, stop in pairwise(sorted({0, *cuts, image.shape[1]})):
        meter.add(top, image[:, top:stop])
    return meter.report(**options)


def figures(report):
    """Score and band; −1 where there is none."""
    return [-1 if value is None else value for value in astuple(report)]


def same(report):
    return pytest.approx(figures(report), rel=1e-9, abs=0)


def sums_by_loops(x, borders, phase, n, generator):
    """Jump and beside of ``n`` shifts of the borders of one axis, as in the docstrings."""
    lines, positions = x.shape[1:]
    jump = np.zeros((lines, positions))
    jump[1:] = np.abs(np.diff(x, axis=1)).sum(axis=0)
    beside = np.zeros_like(jump)
    for i in range(lines):
        around = [i + k for k in (-6, -5, -4, -3, 3, 4, 5, 6) if 1 <= i + k < lines]
        beside[i] = jump[around].mean(axis=0) if around else 0
    first = [(b.at - 1) % phase + 1 for b in borders]
    places = [len(range(f, lines, phase)) for f in first]
    if max(places) < 2:
        return None
    shifts = torch.randint(1, max(places), (4 * n,), generator=generator).tolist()
    length = sum(b.stop - b.start for b in borders)
    for guard in (6, 0):
        away = np.ones_like(jump)
        for b in borders:
            away[max(0, b.at - guard) : b.at + guard + 1, b.start : b.stop] = 0
        found = []
        for shift in shifts:
            total = np.zeros(3)
            for b, f, m in zip(borders, first, places, strict=True):
                at = range(f, lines, phase)[((b.at - f) // phase + shift) % m]
                own = away[at, b.start : b.stop]
                total += (
                    own @ jump[at, b.start : b.stop], own @ beside[at, b.start : b.stop], own.sum()
                )  # fmt: skip
            if total[2] > length / 2:
                found.append(total[:2] * length / total[2])
        if found:
            return np.array([found[i % len(found)] for i in range(n)])
    return None


def band_by_loops(image, borders, phase, n, seed):
    """The band, read aloud."""
    generator, total = torch.Generator().manual_seed(seed), 0
    for axis, x in (("row", image), ("column", image.mT)):
        if own := [b for b in borders if b.axis == axis]:
            sums = sums_by_loops(x.numpy(), own, phase, n, generator)
            if sums is None:
                return None, None
            total = total + sums
    scores = np.sort(total[:, 0] / total[:, 1])
    return scores[math.floor(0.025 * (n - 1))], scores[math.ceil(0.975 * (n - 1))]


@st.composite
def pictures_with_borders(draw, least=1):
    height, width = draw(st.integers(least, 24)), draw(st.integers(least, 30))
    image = noise(draw(st.integers(1, 3)), height, width, seed=draw(st.integers(0, 5)))
    borders = []
    for axis, lines, positions in (("row", height, width), ("column", width, height)):
        ends = st.integers(0, positions)
        for _ in range(draw(st.integers(0, 6)) if lines > 1 else 0):
            start, stop = sorted(draw(st.tuples(ends, ends).filter(lambda e: e[0] != e[1])))
            borders.append(Border(axis, draw(st.integers(1, lines - 1)), start, stop))
    return image, borders


@settings(max_examples=200, deadline=None)
@given(
    pictures_with_borders(),
    st.integers(1, 5),
    st.sets(st.integers(1, 23)),
    st.sampled_from([torch.float64, torch.float32, torch.float16]),
)
def test_bands_of_any_height_give_the_report_of_the_whole(picture, phase, cuts, dtype):
    image, borders = picture
    image = image.to(dtype)
    cuts = {cut for cut in cuts if cut < image.shape[1]}
    whole = seam_report(image, borders, phase, n=20, seed=3)
    assert figures(metered(image, borders, phase, cuts, n=20, seed=3)) == same(whole)


@settings(max_examples=200, deadline=None)
@given(
    pictures_with_borders(),
    st.sets(st.integers(1, 23)),
    st.lists(st.sets(st.integers(1, 29)), min_size=1, max_size=3),
)
def test_bands_in_strips_give_the_report_of_the_whole(picture, cuts, across):
    image, borders = picture
    _, height, width = image.shape
    meter = SeamMeter(height, width, borders, phase=2)
    for k, (top, stop) in enumerate(
        pairwise(sorted({0, *cuts, height} - set(range(height + 1, 24))))
    ):
        ends = sorted({0, *(c for c in across[k % len(across)] if c < width), width})
        meter.add_strips(top, (image[:, top:stop, a:b] for a, b in pairwise(ends)))
    assert figures(meter.report(n=20)) == same(seam_report(image, borders, 2, n=20))


@settings(max_examples=100, deadline=None)
@given(pictures_with_borders(least=7), st.integers(1, 5), st.integers(0, 3))
def test_the_band_is_the_definition_for_any_borders(picture, phase, seed):
    image, borders = picture
    if borders:
        report = metered(image, borders, phase, [3], n=15, seed=seed)
        low, high = band_by_loops(image, borders, phase, 15, seed)
        assert figures(report) == same(SeamReport(report.score, low, high))


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(1, 39)), st.sets(st.integers(1, 49)), st.sets(st.integers(1, 39)))
def test_borders_that_touch_are_as_one(rows, columns, cuts):
    image = noise(3, 40, 50)
    borders = grid_borders(40, 50, rows=[12, 30], columns=[20])
    ends = {"row": sorted({0, *columns, 50}), "column": sorted({0, *rows, 40})}
    short = [Border(b.axis, b.at, *piece) for b in borders for piece in pairwise(ends[b.axis])]
    assert figures(metered(image, short[::-1], 2, cuts)) == same(seam_report(image, borders, 2))


def test_borders_that_overlap_count_twice():
    image, borders = noise(1, 40, 50), [Border("row", 20, 0, 30), Border("row", 20, 10, 50)]
    apart = [Border("row", 20, *ends) for ends in ((0, 10), (10, 30), (10, 30), (30, 50))]
    assert figures(seam_report(image, borders, 1)) == same(seam_report(image, apart, 1))
    assert seam_report(image, borders, 1) != seam_report(image, borders[:1], 1)


def test_the_report_can_be_asked_for_again():
    image, borders = noise(3, 40, 50), grid_borders(40, 50, rows=[20], columns=[30])
    meter = SeamMeter(40, 50, borders, phase=1)
    meter.add(0, image)
    assert meter.report(n=50, seed=1) == meter.report(n=50, seed=1)
    assert meter.report(n=50, seed=1) != meter.report(n=50, seed=2)
    assert astuple(meter.report()) == (meter.score(), *meter.band())


def test_keeps_one_sum_for_every_line_of_a_grid_of_tiles():
    """A gigapixel has thousands of tiles: their borders are a few long lines, and fit anywhere."""
    ends = list(range(0, 32769, 448))
    short = [
        Border(axis, at, *piece)
        for axis in ("row", "column")
        for at in ends[1:]
        for piece in pairwise(ends)
    ]
    meter = SeamMeter(32768, 32768, short, phase=4)
    assert sum(lines.jump.numel() for lines in meter._lines.values()) == 2 * 32768


@pytest.mark.usefixtures("unchecked")
def test_refuses_bands_that_do_not_follow():
    meter = SeamMeter(20, 30, [Border("row", 10, 0, 30)], phase=1)
    with pytest.raises(ShapeError, match=r"^0 of 20 rows; expected all"):
        meter.report()
    meter.add(0, noise(3, 8, 30))
    wrong = [
        (0, (3, 8, 30)), (9, (3, 8, 30)), (7, (3, 8, 30)), (8, (3, 13, 30)), (8, (3, 8, 29)),
        (8, (1, 8, 30)), (8, (1, 3, 8, 30)), (8, (8, 30)),
    ]  # fmt: skip
    for top, shape in wrong:
        with pytest.raises(ShapeError) as caught:
            meter.add(top, noise(*shape))
        assert str(tuple(shape)) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ShapeError, match=r"expected \(3, at most 12, 30\) at row 8$"):
        meter.add(9, noise(3, 8, 30))
    with pytest.raises(ShapeError, match=r"^8 of 20 rows"):
        meter.score()
    with pytest.raises(ImageError, match="divide 8-bit"):
        meter.add(8, torch.zeros(3, 12, 30, dtype=torch.uint8))
    for strips, said in (
        ([(3, 12, 29)], "strips of 29 columns; expected 30"),
        ([(3, 12, 29), (3, 11, 1)], r"expected \(3, 12, 1\) at row 8, column 29"),
        ([(3, 12, 29), (3, 12, 2)], r"expected \(3, 12, 1\) at row 8, column 29"),
        ([], "strips of 0 columns; expected 30"),
    ):
        with pytest.raises(ShapeError, match=said):
            meter.add_strips(8, (noise(*shape) for shape in strips))
    meter.add(8, noise(3, 12, 30))
    assert meter.report().score is not None
    with pytest.raises(SettingsError, match="n=0"):
        meter.report(n=0)
    with pytest.raises(SettingsError, match="phase=0"):
        SeamMeter(20, 30, [], phase=0)
    with pytest.raises(ShapeError, match="inside of 19 lines of 30 pixels"):
        SeamMeter(20, 30, [Border("row", 20, 0, 30)], phase=1)
