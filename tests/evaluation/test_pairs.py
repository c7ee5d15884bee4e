"""What belongs together is found by name, and what does not is told."""

import re

import numpy as np
import pytest
import torch

from sfumato.errors import ImageError, SettingsError
from sfumato.evaluation.pairs import PictureFiles, pair_up
from sfumato.io import Picture, write_picture


@pytest.fixture
def folder(tmp_path):
    def make(name, *pictures):
        place = tmp_path / name
        for picture in pictures:
            write_picture(Picture(torch.rand(3, 8, 8)), place / picture)
        return place

    return make


def test_names_pair_and_endings_do_not_matter(folder):
    pairs = pair_up(
        folder("res", "b.png", "a.tif"),
        folder("ref", "a.png", "b.webp"),
        measurements=folder("lr", "a.png", "b.png"),
    )
    assert [(p.key, p.result.name, p.reference.name, p.measurement.name) for p in pairs] == [
        ("a", "a.tif", "a.png", "a.png"),
        ("b", "b.png", "b.webp", "b.png"),
    ]


def test_two_files_belong_together_whatever_their_names(folder):
    (pair,) = pair_up(folder("res", "x.png") / "x.png", folder("ref", "y.png") / "y.png")
    assert (pair.key, pair.reference.name) == ("x", "y.png")


def test_folders_below_pair_by_their_paths(folder):
    res, ref = folder("res", "1/a.png", "2/a.png"), folder("ref", "1/a.png", "2/a.png")
    assert [p.key for p in pair_up(res, ref, recursive=True)] == ["1/a", "2/a"]
    with pytest.raises(ImageError, match=r"holds no pictures .*try --recursive"):
        pair_up(res, ref)


def test_what_lacks_a_counterpart_is_listed_on_either_side(folder):
    res, ref = folder("res", "a.png", "b.png", "c.png"), folder("ref", "b.png", "d.png")
    said = (
        "2 results without a reference (a, c) and 1 references without a result (d); expected "
        "files of the same names, endings aside; rename them, or leave them out with "
        "--allow-missing"
    )
    with pytest.raises(SettingsError, match=re.escape(said)):
        pair_up(res, ref)
    assert [p.key for p in pair_up(res, ref, allow_missing=True)] == ["b"]
    with pytest.raises(SettingsError, match="no name in common"):
        pair_up(res, folder("other", "z.png"), allow_missing=True)


def test_samples_belong_to_their_result(folder):
    res = folder("res", "a.png", "a.sample-2.png", "a.sample-3.png", "a.mean.png", "b.mean.png")
    ref = folder("ref", "a.png", "b.mean.png")
    one, other = pair_up(res, ref, samples=True)
    assert (one.key, [p.name for p in one.samples]) == ("a", ["a.sample-2.png", "a.sample-3.png"])
    assert (other.key, other.samples) == ("b.mean", ())
    assert pair_up(res, ref)[0].samples == ()
    assert pair_up(res / "a.png", ref / "a.png", samples=True)[0].samples == one.samples


def test_what_is_not_there_or_twice_is_refused(folder, tmp_path):
    res = folder("res", "a.png")
    with pytest.raises(ImageError, match=r"there is no .*nowhere"):
        pair_up(res, tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="of one name; expected one file of each"):
        pair_up(res, folder("twice", "a.png", "a.tif"))


def test_files_are_read_when_they_are_asked_for(folder, tmp_path):
    res = folder("res", "a.png")
    np.save(res / "b.npy", np.full((3, 4, 4), 0.25, np.float32))
    files = PictureFiles([res / "a.png", res / "b.npy", res / "gone.png"])
    assert (len(files), files[1].mean().item(), files[1:2][0].shape) == (3, 0.25, (3, 4, 4))
    with pytest.raises(ImageError, match=r"gone\.png"):
        files[2]
