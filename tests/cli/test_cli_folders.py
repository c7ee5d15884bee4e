"""Folders: the tree is kept, what fails is told, what is done stays done."""

import json

import numpy as np
import pytest
from stand_in import photo, pool, read, report_of, rmse, sfumato, unit, write

BOX = ("--kernel", "box", "-s", 2, "--steps", 2, "-t", 32)


@pytest.fixture
def album(tmp_path):
    """Four pictures, one of them below, one damaged; and files that are none."""
    folder = tmp_path / "album"
    write(folder / "a.png", photo(9, 7))
    write(folder / "below" / "deeper" / "b.tif", photo(5, 6, bits=16))
    (folder / "damaged.png").write_bytes(b"no picture")
    write(folder / "z.jpg", photo(4, 4, 1))
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def upscale(source, out, prior, *options):
    return sfumato("upscale", source, "-o", out, "-n", prior, *BOX, *options)


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_the_tree_is_kept_and_failures_are_told_at_the_end(tmp_path, album, prior):
    out = tmp_path / "out.v2"
    done = upscale(album, out, prior, "--recursive", "--continue-on-error")
    assert done.code == 3
    kept = ["a.png", "below/deeper/b.tif", "z.jpg"]
    assert names(out) == sorted(kept + [f"{k}.json" for k in kept])
    lines = done.err.splitlines()
    assert len(lines) == 3
    assert lines[0].count("damaged.png") == 1
    assert "1 of 4 files failed" in lines[1]
    assert lines[2].strip() == lines[0].removeprefix("sfumato: ")
    assert "4 files: 3 restored, 1 failed" in done.out.splitlines()[-1]
    assert len([line for line in done.out.splitlines() if "consistency" in line]) == 3
    agreement = rmse(pool(unit(read(out / "a.png")), 2), unit(read(album / "a.png")))
    assert agreement < 0.5
    assert read(out / "below/deeper/b.tif").dtype == np.uint16


def test_without_recursion_what_lies_below_is_left(tmp_path, album, prior):
    (album / "damaged.png").unlink()
    done = upscale(album, tmp_path / "out", prior)
    assert done.code == 0, done.err
    assert names(tmp_path / "out") == ["a.png", "a.png.json", "z.jpg", "z.jpg.json"]


def test_the_first_failure_stops_and_how_to_resume_is_told(tmp_path, album, prior):
    done = upscale(album, tmp_path / "out", prior)
    assert done.code == 1
    assert names(tmp_path / "out") == ["a.png", "a.png.json"]
    assert "2 of 3 files left" in done.err
    assert "--skip-existing" in done.err


def test_skip_existing_does_not_touch_what_is_there(tmp_path, album, prior):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"mine")
    done = upscale(album, out, prior, "--skip-existing", "--continue-on-error")
    assert done.code == 3
    assert "a.png: exists, skipped" in done.out
    assert (out / "a.png").read_bytes() == b"mine"
    assert (out / "z.jpg").exists()


def test_skip_existing_of_one_file(tmp_path, album, prior):
    (tmp_path / "out.png").write_bytes(b"mine")
    assert upscale(album / "a.png", tmp_path / "out.png", prior, "--skip-existing").code == 0
    assert (tmp_path / "out.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("bad", "code"), [(b"no picture", 1), (None, 2)], ids=["unreadable", "onto itself"]
)
def test_where_all_fail_the_code_is_that_of_the_failure(tmp_path, prior, bad, code):
    folder = tmp_path / "album"
    for name in ("a.png", "b.png"):
        write(folder / name, photo(4, 4))
        if bad:
            (folder / name).write_bytes(bad)
    out = tmp_path / "out" if bad else folder
    done = upscale(folder, out, prior, "--continue-on-error")
    assert done.code == code
    assert "2 of 2 files failed" in done.err


def test_one_file_that_fails_keeps_its_own_code(tmp_path, album, prior):
    out = tmp_path / "out.png"
    done = upscale(album / "damaged.png", out, prior, "--continue-on-error")
    assert (done.code, done.err.count("\n")) == (1, 1)


def test_a_dry_run_writes_nothing_and_finds_what_would_fail(tmp_path, album, prior):
    done = upscale(album, tmp_path / "out", prior, "-r", "--continue-on-error", "--dry-run")
    assert done.code == 3
    assert not (tmp_path / "out").exists()
    assert "a.png -> " in done.out
    assert "1 tiles" in done.out or "1 tile" in done.out
    assert "steps 2" in done.out


def test_outputs_within_the_folder_are_no_inputs(tmp_path, album, prior):
    (album / "damaged.png").unlink()
    first = upscale(album, album / "out", prior, "-r")
    before = names(album)
    again = upscale(album, album / "below" / ".." / "out", prior, "-r")
    assert (first.code, again.code) == (0, 0)
    assert names(album) == before
    assert "3 files: 3 restored" in again.out


def test_the_list_of_failures(tmp_path, album, prior):
    there = tmp_path / "new" / "failed.json"
    upscale(album, tmp_path / "out", prior, "-r", "--continue-on-error", "--failed", there)
    (entry,) = json.loads(there.read_text())
    assert entry["file"] == str(album / "damaged.png")
    assert entry["target"] == str(tmp_path / "out" / "damaged.png")
    assert "not a picture" in entry["reason"]
    stopped = tmp_path / "stopped.json"
    assert upscale(album, tmp_path / "out", prior, "--failed", stopped).code == 1
    assert len(json.loads(stopped.read_text())) == 1
    upscale(album / "a.png", tmp_path / "a.png", prior, "--failed", there)
    assert json.loads(there.read_text()) == []


@pytest.mark.parametrize("name", ["failed.txt", "album/a.png", "album/a.png/failed.json"])
def test_a_list_of_failures_that_cannot_be(tmp_path, album, prior, name):
    done = upscale(album, tmp_path / "out", prior, "--failed", tmp_path / name)
    assert done.code in (1, 2)
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_one_file_into_a_folder_that_is_there(tmp_path, album, prior):
    out = tmp_path / "out"
    out.mkdir()
    assert upscale(album / "a.png", out, prior).code == 0
    assert names(out) == ["a.png", "a.png.json"]


def test_numbers_into_a_folder_become_a_picture(tmp_path, prior):
    np.save(tmp_path / "y.npy", np.random.default_rng(0).random((3, 8, 8)))
    (tmp_path / "out").mkdir()
    done = sfumato(
        "restore", tmp_path / "y.npy", "-d", "identity", "-o", tmp_path / "out", "-n", prior
    )
    assert done.code == 0, done.err
    assert (tmp_path / "out" / "y.png").exists()


def test_one_report_for_a_folder_is_refused(tmp_path, album, prior):
    done = upscale(album, tmp_path / "out", prior, "--report", tmp_path / "r.json")
    assert done.code == 2
    assert not (tmp_path / "out").exists()


def test_masks_by_name_with_any_ending(tmp_path, prior):
    for k, name in enumerate(("a.png", "below/b.png")):
        missing = np.zeros((8, 9 + k, 1), np.uint8)
        missing[2:4] = 255
        write(tmp_path / "in" / name, photo(8, 9 + k))
        write((tmp_path / "masks" / name).with_suffix((".png", ".tif")[k]), missing)
    done = sfumato(
        "inpaint", tmp_path / "in", "-m", tmp_path / "masks", "-o", tmp_path / "out", "-r",
        "-n", prior, "--steps", 2,
    )  # fmt: skip
    assert done.code == 0, done.err
    for name in ("a.png", "below/b.png"):
        before, after = read(tmp_path / "in" / name), read(tmp_path / "out" / name)
        assert (before[4:] == after[4:]).all()
        assert (before[2:4] != after[2:4]).any()


def test_measurements_of_a_folder(tmp_path, album):
    out = tmp_path / "out"
    done = sfumato(
        "degrade", album, "-o", out, "-d", "average_pool:2", "-r", "--continue-on-error"
    )
    assert done.code == 3
    assert names(out) == ["a.png", "below/deeper/b.tif", "z.jpg"]
    assert "cropped to 6 x 8" in done.out


def test_results_do_not_depend_on_the_company(tmp_path, album, prior):
    (album / "damaged.png").unlink()
    upscale(album, tmp_path / "all", prior)
    upscale(album / "z.jpg", tmp_path / "one.png", prior)
    upscale(album / "a.png", tmp_path / "a.png", prior)
    assert (read(tmp_path / "a.png") == read(tmp_path / "all" / "a.png")).all()
    assert (
        report_of(tmp_path / "a.png")["input_digest"]
        != report_of(tmp_path / "one.png")["input_digest"]
    )


def test_names_that_samples_would_take_twice(tmp_path, prior):
    for name in ("a.png", "a.mean.png", "b.png"):
        write(tmp_path / "in" / name, photo(6, 8))
    done = upscale(tmp_path / "in", tmp_path / "out", prior, "--samples", 2)
    assert done.code == 2
    assert "a.mean.png" in done.err
    assert "rename a.mean.png" in done.err
    assert not (tmp_path / "out").exists()
    (tmp_path / "in" / "a.mean.png").unlink()
    assert upscale(tmp_path / "in", tmp_path / "out", prior, "--samples", 2).code == 0


def test_folders_that_cannot_be_read_are_told_of(tmp_path, album, prior, monkeypatch):
    import os

    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (album / "closed").mkdir()
    done = upscale(album, tmp_path / "out", prior, "--recursive", "--continue-on-error")
    assert "sfumato: the folder" in done.err
    assert "closed cannot be read (Permission denied); what is in it is left out" in done.err
