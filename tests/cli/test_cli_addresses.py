"""Measurements and projections from address to address: as here, and nothing stays here."""

import numpy as np
import pytest
from stand_in import photo, read, sfumato, write

from sfumato.io.storage import exists, fetch, put


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A bucket with a photograph, and an empty folder to work in."""
    place = f"memory://{tmp_path.name}"
    put(write(tmp_path / "aside" / "in.png", photo(24, 36)), f"{place}/in.png")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return place


def left(tmp_path):
    return sorted(p.name for p in (tmp_path / "work").rglob("*"))


def here(place, tmp_path):
    return fetch(place, tmp_path / "fetched")


def test_a_measurement_goes_from_address_to_address(tmp_path, bucket):
    done = sfumato("degrade", f"{bucket}/in.png", "-o", f"{bucket}/a/y.png", "-d", "bicubic:2")
    assert done.code == 0, done.err
    assert done.out.startswith(f"{bucket}/a/y.png: 18 x 12")
    assert left(tmp_path) == []
    assert not exists(f"{bucket}/a/y.png.json")
    alone = tmp_path / "aside" / "y.png"
    assert sfumato("degrade", tmp_path / "aside/in.png", "-o", alone, "-d", "bicubic:2").code == 0
    assert np.array_equal(read(here(f"{bucket}/a/y.png", tmp_path)), read(alone))


def test_numbers_go_to_an_address(tmp_path, bucket):
    target = f"{bucket}/y.npy"
    assert sfumato("degrade", f"{bucket}/in.png", "-o", target, "-d", "average_pool:2").code == 0
    assert np.load(here(target, tmp_path)).shape == (3, 12, 18)


def test_what_is_at_the_address_is_left(tmp_path, bucket):
    words = ("degrade", f"{bucket}/in.png", "-o", f"{bucket}/y.png", "-d", "average_pool:2")
    assert sfumato(*words).code == 0
    assert "exists, skipped" in sfumato(*words, "--skip-existing").out
    assert left(tmp_path) == []


def test_a_projection_goes_from_address_to_address(tmp_path, bucket):
    y = f"{bucket}/y.png"
    assert sfumato("degrade", f"{bucket}/in.png", "-o", y, "-d", "average_pool:2").code == 0
    theirs = write(tmp_path / "aside" / "theirs.png", photo(24, 36, seed=1))
    put(theirs, f"{bucket}/theirs.png")
    words = ("--measurement", y, "-d", "average_pool:2", "-o", f"{bucket}/x.png")
    done = sfumato("project", f"{bucket}/theirs.png", *words)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{bucket}/x.png: 36 x 24, consistency 0.")
    assert exists(f"{bucket}/x.png.json")
    assert left(tmp_path) == []
    own = tmp_path / "aside" / "own.png"
    y_here = here(y, tmp_path)
    words = ("--measurement", y_here, "-d", "average_pool:2", "-o", own)
    assert sfumato("project", theirs, *words).code == 0
    assert np.array_equal(read(here(f"{bucket}/x.png", tmp_path)), read(own))


def test_work_is_done_where_it_is_asked_for(tmp_path, bucket, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sfumato.io.staging.put", fail)
    words = ("-o", f"{bucket}/y.png", "-d", "average_pool:2", "--work", tmp_path / "scratch")
    assert sfumato("degrade", f"{bucket}/in.png", *words).code == 1
    assert left(tmp_path) == []
    assert [p.suffix for p in (tmp_path / "scratch").iterdir()] == [".work"]


@pytest.mark.parametrize("name", ["theirs.png", "in.png"])
def test_an_input_is_never_overwritten(tmp_path, bucket, name):
    put(write(tmp_path / "aside" / "theirs.png", photo(24, 36, seed=1)), f"{bucket}/theirs.png")
    words = ("--measurement", f"{bucket}/in.png", "-d", "identity", "-o", f"{bucket}/{name}")
    done = sfumato("project", f"{bucket}/theirs.png", *words)
    assert done.code == 2
    assert f"the output {bucket}/{name} is the input itself" in done.err
    assert left(tmp_path) == []


def test_what_is_missing_is_told_of_and_nothing_stays(tmp_path, bucket):
    done = sfumato("degrade", f"{bucket}/no.png", "-o", f"{bucket}/y.png", "-d", "identity")
    assert done.code == 1
    assert f"there is no file {bucket}/no.png" in done.err
    refused = sfumato(
        "degrade", f"{bucket}/in.png", "-o", f"{bucket}/y.png", "-d", "block_sensing:0.5"
    )
    assert refused.code == 1
    assert "expected a .npy file" in refused.err
    assert not exists(f"{bucket}/y.png")
    assert left(tmp_path) == []
