"""Work between addresses leaves its results there, and nothing here."""

from pathlib import Path

import numpy as np
import pytest

from sfumato.errors import ImageError, OutputError
from sfumato.io import Canvas
from sfumato.io.staging import Staged
from sfumato.io.storage import exists, fetch, put


@pytest.fixture
def bucket(tmp_path):
    put(__file__, f"memory://{tmp_path.name}/in.png")
    return f"memory://{tmp_path.name}"


def work_on(staged):
    staged.target.write_text(f"of {staged.source.stat().st_size} bytes")
    staged.report.write_text("{}")


@pytest.mark.parametrize("kind", [str, Path])
def test_from_address_to_address(tmp_path, bucket, kind):
    staged = Staged.open(kind(f"{bucket}/in.png"), kind(f"{bucket}/a/out.png"), work=tmp_path)
    assert staged.source.read_bytes() == Path(__file__).read_bytes()
    assert (staged.target.name, staged.report.name) == ("out.png", "out.png.json")
    assert not staged.waits
    work_on(staged)
    staged.target.with_name("out.sample-2.png").write_text("another")
    assert not exists(f"{bucket}/a/out.png")
    staged.finish()
    assert list(tmp_path.iterdir()) == []
    for name in ("out.png", "out.png.json", "out.sample-2.png"):
        assert exists(f"{bucket}/a/{name}")
    assert fetch(f"{bucket}/a/out.png", tmp_path).read_text().startswith("of ")


def test_the_next_run_finds_what_the_last_one_left(tmp_path, bucket, monkeypatch):
    place = f"{bucket}/in.png", f"{bucket}/out.png"
    staged = Staged.open(*place, work=tmp_path)
    (staged.folder / "out.png.job").mkdir()
    work_on(staged)

    def fail(*_):
        raise OutputError("gone")

    with monkeypatch.context() as patch:
        patch.setattr("sfumato.io.staging.put", fail)
        with pytest.raises(OutputError):
            staged.finish()
    again = Staged.open(*place, work=tmp_path)
    assert again == staged
    assert again.waits
    again.finish()
    assert exists(f"{bucket}/out.png.json")
    assert [p.name for p in again.folder.iterdir()] == ["out.png.job"]
    assert Staged.open(place[0], f"{bucket}/a/out.png", work=tmp_path).folder != staged.folder


def test_giving_up_leaves_what_the_next_run_goes_on_with(tmp_path, bucket):
    for name in ("", "out.png.job", "out.png"):
        staged = Staged.open(f"{bucket}/in.png", f"{bucket}/out.png", work=tmp_path)
        if name:
            (staged.folder / name).mkdir()
        staged.give_up()
        assert staged.folder.exists() == bool(name)
    Staged.open(tmp_path / "a.png", tmp_path / "b.png").give_up()


def test_paths_stay(tmp_path, bucket):
    here = Staged.open(tmp_path / "in.png", tmp_path / "out.png", work=tmp_path)
    assert (here.source, here.target) == (tmp_path / "in.png", tmp_path / "out.png")
    assert here.report == tmp_path / "out.png.json"
    assert list(tmp_path.iterdir()) == []
    mixed = Staged.open(f"{bucket}/in.png", tmp_path / "out.png")
    assert mixed.folder.parent == tmp_path
    work_on(mixed)
    assert not mixed.waits
    mixed.finish()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.png", "out.png.json"]


def test_a_report_of_its_own_place(tmp_path, bucket):
    staged = Staged.open(
        f"{bucket}/in.png", f"{bucket}/out.png", tmp_path / "proof.json", work=tmp_path
    )
    work_on(staged)
    staged.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["proof.json"]
    staged = Staged.open(__file__, tmp_path / "out.png", f"{bucket}/b/proof.json", work=tmp_path)
    work_on(staged)
    staged.finish()
    assert exists(f"{bucket}/b/proof.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.png", "proof.json"]


def test_a_folder_of_zarr(tmp_path, bucket):
    staged = Staged.open(f"{bucket}/in.png", f"{bucket}/out.zarr", work=tmp_path)
    canvas = Canvas.create(staged.target, (5, 7, 3), 8, (4, 4))
    canvas.write(0, 0, np.ones((5, 7, 3), "u1"))
    canvas.sync()
    staged.report.write_text("{}")
    staged.finish()
    assert Canvas.open(f"{bucket}/out.zarr").read(0, 0, 5, 7).min() == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_leaves_nothing(tmp_path, bucket):
    with pytest.raises(OutputError, match="can only be read"):
        Staged.open(f"{bucket}/in.png", "https://example.org/out.png", work=tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ImageError, match="there is no file"):
        Staged.open(f"{bucket}/none.png", tmp_path / "out.png", work=tmp_path)
    assert list(tmp_path.iterdir()) == []
