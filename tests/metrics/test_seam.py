import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from sfumato.errors import ImageError, SettingsError, ShapeError
from sfumato.metrics import (
    Border,
    SeamReport,
    grid_borders,
    seam_band,
    seam_report,
    seam_score,
)

HOLDOUT = Path(__file__).parents[3] / "shared" / "data" / "holdout"


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def soft(*shape, seed=0):
    """Noise with the soft slopes of a photograph: jumps of about 2/255 from pixel to pixel."""
    smooth = torch.from_numpy(gaussian_filter(noise(*shape, seed=seed).numpy(), (0, 6, 6)))
    return 0.5 + 0.07 * (smooth - 0.5) / smooth.std() + 0.01 * (noise(*shape, seed=seed + 1) - 0.5)


def tiles_apart(image, rows, columns, offset):
    """Add ``offset`` to every other tile, as on a chess board."""
    i = torch.bucketize(torch.arange(image.shape[-2]), torch.tensor(rows), right=True)
    j = torch.bucketize(torch.arange(image.shape[-1]), torch.tensor(columns), right=True)
    return image + offset * ((i[:, None] + j) % 2)


def score_by_loops(image, borders):
    """The definition, read aloud."""
    jump = beside = 0.0
    for b in borders:
        x = image if b.axis == "row" else image.transpose(-1, -2)

        def line(i, x=x, b=b):
            return float(
                (x[..., i, b.start : b.stop] - x[..., i - 1, b.start : b.stop]).abs().sum()
            )

        around = [b.at + k for k in (-6, -5, -4, -3, 3, 4, 5, 6)]
        values = [line(i) for i in around if 1 <= i < x.shape[-2]]
        jump += line(b.at)
        beside += sum(values) / len(values)
    return jump / beside


@st.composite
def borders_in(draw, height, width):
    axis = draw(st.sampled_from(["row", "column"]))
    lines, positions = (height, width) if axis == "row" else (width, height)
    start = draw(st.integers(0, positions - 1))
    return Border(
        axis, draw(st.integers(1, lines - 1)), start, draw(st.integers(start + 1, positions))
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(borders_in(20, 31), min_size=1, max_size=8), st.integers(0, 3))
def test_is_the_definition_for_any_borders(borders, seed):
    image = noise(3, 20, 31, seed=seed)
    assert seam_score(image, borders) == pytest.approx(score_by_loops(image, borders))


def test_large_pictures_are_summed_in_blocks():
    image = noise(2, 40, 8000)
    borders = [Border("row", 8, 3, 7999), Border("column", 4000, 5, 33)]
    assert seam_score(image, borders) == pytest.approx(score_by_loops(image, borders))


def test_a_jump_of_known_height():
    ramp = torch.arange(64.0).expand(1, 64, 64) / 64
    borders = grid_borders(64, 64, rows=[], columns=[20, 40])
    image = tiles_apart(ramp, [], [20, 40], 2 / 64)
    assert seam_score(ramp, borders) == pytest.approx(1)
    assert seam_score(image, borders) == pytest.approx((3 + 1) / 2)


def test_does_not_depend_on_scale_offset_or_channel_copies():
    image, borders = noise(1, 40, 40), grid_borders(40, 40, rows=[16], columns=[24])
    score = seam_score(image, borders)
    assert seam_score(3 * image - 1, borders) == pytest.approx(score)
    assert seam_score(image.expand(3, 40, 40), borders) == pytest.approx(score)
    assert seam_score(image[None], borders) == pytest.approx(score)
    assert seam_score(image.float(), borders) == pytest.approx(score, rel=1e-5)


def test_turning_the_image_turns_the_borders():
    image = noise(3, 40, 56)
    rows = [Border("row", 16, 0, 32), Border("row", 20, 32, 56)]
    columns = [Border("column", b.at, b.start, b.stop) for b in rows]
    assert seam_report(image, rows, 4) == seam_report(image.mT, columns, 4)


def test_borders_near_the_edge_use_the_side_that_is_there():
    image = noise(1, 12, 20)
    for at in (1, 2, 11):
        borders = [Border("row", at, 0, 20)]
        assert seam_score(image, borders) == pytest.approx(score_by_loops(image, borders))


def test_without_borders_there_is_nothing_to_see():
    report = seam_report(noise(3, 20, 20), [], phase=4)
    assert report == SeamReport(None, None, None)
    assert report.inside is True
    assert seam_band(noise(3, 20, 20), [], phase=4) is None
    assert seam_score(noise(3, 4, 4), grid_borders(4, 4, rows=[2], columns=[])) is None


def test_flat_images():
    flat, borders = torch.full((3, 64, 64), 0.5), grid_borders(64, 64, rows=[32], columns=[])
    assert seam_report(flat, borders, phase=4) == SeamReport(1.0, 1.0, 1.0)
    torn = seam_report(tiles_apart(flat, [32], [64], 1 / 255), borders, phase=4)
    assert torn.score == math.inf
    assert torn.inside is False


def test_the_band_holds_19_of_20_grids():
    inside = 0
    for seed in range(60):
        image = noise(1, 96, 96, seed=seed)
        borders = grid_borders(96, 96, rows=[32, 64], columns=[32, 64])
        inside += seam_report(image, borders, phase=1, seed=seed).inside
    assert inside >= 53


def test_an_offset_of_two_steps_between_tiles_is_seen():
    lines = [64, 128, 192]
    borders = grid_borders(256, 256, rows=lines, columns=lines)
    for seed in range(5):
        image = soft(3, 256, 256, seed=10 * seed)
        torn = seam_report(tiles_apart(image, lines, lines, 2 / 255), borders, phase=4)
        assert torn.score > torn.high


def test_the_band_is_not_widened_by_the_seams_themselves():
    lines = [32, 64, 96]
    borders = grid_borders(128, 128, rows=lines, columns=lines)
    image = soft(3, 128, 128)
    torn = tiles_apart(image, lines, lines, 0.5)
    assert seam_band(torn, borders, phase=4) == pytest.approx(seam_band(image, borders, phase=4))


def test_a_pattern_of_the_scale_is_matched_by_phase():
    """Every fourth line jumps, as in replicated blocks: no seam, if tiles begin at such lines."""
    blocks = noise(1, 40, 40).repeat_interleave(4, -1).repeat_interleave(4, -2)
    image = blocks + 0.1 * noise(1, 160, 160)
    borders = grid_borders(160, 160, rows=[48, 96], columns=[48, 96])
    report = seam_report(image, borders, phase=4)
    assert report.inside
    assert report.low > 1
    assert seam_band(image, borders, phase=1)[0] < 1


def test_the_band_is_a_function_of_the_seed():
    image, borders = noise(1, 64, 64), grid_borders(64, 64, rows=[32], columns=[32])
    assert seam_band(image, borders, phase=1, seed=3) == seam_band(image, borders, phase=1, seed=3)
    assert seam_band(image, borders, phase=1, seed=3) != seam_band(image, borders, phase=1, seed=4)


def test_small_tiles_fall_back_to_all_lines_but_their_own():
    image, lines = noise(1, 64, 64), list(range(8, 64, 8))
    low, high = seam_band(image, grid_borders(64, 64, rows=lines, columns=lines), phase=1)
    assert 0.8 < low < 1 < high < 1.2


def test_where_no_other_line_has_the_phase_there_is_no_band():
    report = seam_report(noise(1, 40, 40), grid_borders(40, 40, rows=[20], columns=[]), phase=32)
    assert report.score is not None
    assert (report.low, report.high, report.inside) == (None, None, None)


def test_steps_between_rows_of_tiles_are_allowed():
    """Mask-shift: the line changes from tile to tile, and both are borders."""
    image = soft(3, 128, 128)
    image[:, 40:, :64] += 0.1
    image[:, 48:, 64:] += 0.1
    borders = [Border("row", 40, 0, 64), Border("row", 48, 64, 128)]
    report = seam_report(image, borders, phase=4)
    assert report.score > report.high
    assert report.high < 2


@pytest.mark.usefixtures("unchecked")
def test_refuses_borders_that_are_none():
    image = noise(1, 16, 16)
    for wrong in (("row", 0, 0, 4), ("row", 4, 4, 4), ("row", 4, -1, 4), ("diagonal", 4, 0, 4)):
        with pytest.raises(SettingsError, match="0 <= start < stop"):
            Border(*wrong)
    for outside in (Border("row", 16, 0, 4), Border("column", 4, 0, 17)):
        with pytest.raises(ShapeError, match="inside of 15 lines of 16 pixels"):
            seam_score(image, [outside])
    with pytest.raises(SettingsError, match="inside of 16 x 16"):
        grid_borders(16, 16, rows=[16], columns=[])
    with pytest.raises(SettingsError, match="phase=0"):
        seam_band(image, [Border("row", 8, 0, 4)], phase=0)
    with pytest.raises(ImageError, match="divide 8-bit"):
        seam_score(image.to(torch.uint8), [Border("row", 8, 0, 4)])


def test_a_photograph_is_seamless_until_its_tiles_are_moved_apart():
    images = pytest.importorskip("PIL.Image")
    path = HOLDOUT / "libjxl-0346_flower.webp"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    photo = torch.from_numpy(np.array(images.open(path).convert("RGB"))).permute(2, 0, 1) / 255
    height, width = photo.shape[1:]
    rows, columns = list(range(192, height, 192)), list(range(192, width, 192))
    borders = grid_borders(height, width, rows=rows, columns=columns)
    assert seam_report(photo, borders, phase=4).inside
    torn = seam_report(tiles_apart(photo, rows, columns, 2 / 255), borders, phase=4)
    assert torn.score > torn.high
