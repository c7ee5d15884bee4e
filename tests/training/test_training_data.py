"""Photographs and the random numbers that cut them."""

import math

import numpy as np
import pytest
import pyvips
import torch
from made_up_photographs import draw, write

from sfumato.errors import SettingsError
from sfumato.training import load_photographs
from sfumato.training._draws import Draws, Purpose
from sfumato.training.pictures import copies


def test_numbers_depend_on_seed_step_purpose_and_example_only():
    whole = Draws(3, 7, 0, 8).normal(Purpose.NOISE, 100)
    parts = [Draws(3, 7, k, 4).normal(Purpose.NOISE, 100) for k in (0, 4)]
    assert torch.equal(whole, torch.cat(parts))
    others = [
        Draws(3, 8, 0, 8).normal(Purpose.NOISE, 100),
        Draws(4, 7, 0, 8).normal(Purpose.NOISE, 100),
        Draws(3 + 2**40, 7, 0, 8).normal(Purpose.NOISE, 100),
        Draws(3, 7, 0, 8).normal(Purpose.SIGMA, 100),
        Draws(3, 7, 8, 8).normal(Purpose.NOISE, 100),
    ]
    for other in others:
        correlation = torch.corrcoef(torch.stack([whole.flatten(), other.flatten()]))[0, 1]
        assert abs(correlation) < 5 / math.sqrt(whole.numel())


def test_numbers_have_their_distributions():
    n = 100_000
    u = Draws(0, 0, 0, 2).uniform(Purpose.CROP, n).double()
    z = Draws(0, 0, 0, 2).normal(Purpose.NOISE, n).double()
    assert u.min() >= 0
    assert u.max() < 1
    for sample, cdf in ((u, lambda v: v), (z, lambda v: torch.special.ndtr(v))):
        for row in sample:
            steps = torch.arange(1, n + 1) / n
            distance = (cdf(row.sort().values) - steps).abs().max()
            assert distance < 1.95 / math.sqrt(n)  # Kolmogorov and Smirnov at 0.1 %


def test_copies_are_means_of_boxes():
    picture = draw(12, 20, 0)
    full, half, quarter = copies(picture, 2)
    assert full is picture
    boxes = picture.reshape(6, 2, 10, 2, 3).mean((1, 3))
    assert np.abs(half - boxes).max() <= 0.5
    assert quarter.shape == (3, 5, 3)
    assert abs(quarter.mean() - picture.mean()) < 1


def test_crops_are_parts_of_pictures_in_all_eight_positions(tmp_path):
    rows, cols = np.mgrid[:40, :56]
    picture = np.stack([rows, cols, 0 * rows], axis=-1).astype(np.uint8)
    write(tmp_path / "a.png", picture)
    held = load_photographs(tmp_path, min_side=8, halvings=0)
    crops = held.crops(Draws(0, 0, 0, 400), 8)
    assert crops.shape == (400, 3, 8, 8)
    stored = ((crops + 1) * 127.5).round().long()
    seen = set()
    for row, col, _ in stored:
        steps = (p[i] - p[0, 0] for p in (row, col) for i in ((0, 1), (1, 0)))
        seen.add(tuple(map(int, steps)))
        assert len(row.unique()) == len(col.unique()) == 8
        assert row.max() - row.min() == col.max() - col.min() == 7
        assert row.max() < 40
        assert col.max() < 56
    assert len(seen) == 8
    corners = stored.amin((2, 3))
    assert corners[:, 0].unique().tolist() == list(range(33))
    assert corners[:, 1].unique().tolist() == list(range(49))


def test_formats_and_what_is_left_out(tmp_path):
    picture = draw(40, 50, 1)
    for suffix in ("png", "jpg", "webp", "tif"):
        write(tmp_path / f"a.{suffix}", picture)
    write(tmp_path / "deep.png", picture.astype(np.uint16) * 257)
    alpha = np.full((40, 50, 1), 255, np.uint8)
    (tmp_path / "below").mkdir()
    write(tmp_path / "below" / "alpha.png", np.concatenate([picture, alpha], axis=-1))
    write(tmp_path / "grey.png", picture[..., :1])
    write(tmp_path / "small.png", picture[:20])
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").write_text("nothing to say about this")
    held = load_photographs(tmp_path, min_side=32, halvings=1)
    assert held.n_photographs == 6
    reasons = {s.path.name: s.reason for s in held.skipped}
    assert set(reasons) == {"grey.png", "small.png", "cut.png", "notes.txt"}
    assert "too small, 50 x 20" in reasons["small.png"]
    assert "grey" in reasons["grey.png"]
    assert "unreadable" in reasons["cut.png"]
    n = 40 * 50
    names = ["a.jpg", "a.png", "a.tif", "a.webp", "below/alpha.png", "deep.png"]
    for name in ("a.png", "a.tif", "below/alpha.png", "deep.png"):
        first = names.index(name) * n
        stored = held.pixels[first : first + n].reshape(40, 50, 3).numpy()
        assert np.array_equal(stored, picture), name


def test_names_are_no_options_of_the_reader(tmp_path):
    write(tmp_path / "a.png", draw(40, 50, 1))
    (tmp_path / "a.png").rename(tmp_path / "a[1].png")
    assert load_photographs(tmp_path, min_side=32).n_photographs == 1


def test_pictures_are_turned_upright(tmp_path):
    image = pyvips.Image.new_from_array(draw(40, 52, 0)).copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    image.write_to_file(str(tmp_path / "a.jpg"))
    held = load_photographs(tmp_path, min_side=8, halvings=0)
    assert (int(held.height[0]), int(held.width[0])) == (52, 40)


def test_the_digest_names_the_pixels(photographs, tmp_path):
    for path in photographs.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    a, b = (load_photographs(f, min_side=16).digest for f in (photographs, tmp_path))
    assert a == b
    write(tmp_path / "0.png", draw(40, 52, 9))
    assert load_photographs(tmp_path, min_side=16).digest != a


def test_clear_answers_where_nothing_can_be_used(tmp_path):
    with pytest.raises(SettingsError, match="no folder"):
        load_photographs(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="it is empty"):
        load_photographs(tmp_path)
    write(tmp_path / "a.png", draw(40, 50, 1))
    with pytest.raises(SettingsError, match=r"too small, 50 x 40.*128 x 128.*hundreds"):
        load_photographs(tmp_path)
