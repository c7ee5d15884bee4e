"""Outputs appear whole or not at all."""

import errno
import os
import resource
import stat

import pytest
import torch

from sfumato.errors import OutputError
from sfumato.io import Picture, atomic_path, check_output, read_picture, write_picture

SUFFIXES = [".png", ".jpg", ".webp", ".tif"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def picture():
    return Picture(torch.rand(3, 13, 17))


def write_half(path, error):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error


def test_nothing_is_left_of_a_failure(tmp_path):
    path = tmp_path / "new" / "a.json"
    for error in (RuntimeError(), KeyboardInterrupt(), FileNotFoundError(2, "gone", "elsewhere")):
        with pytest.raises(type(error)):
            write_half(path, error)
        assert names(path.parent) == []
    path.write_text("before")
    with pytest.raises(RuntimeError):
        write_half(path, RuntimeError())
    assert path.read_text() == "before"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".json"
        temporary.write_text("after")
    assert path.read_text() == "after"
    assert names(path.parent) == ["a.json"]


def test_a_file_that_cannot_grow_is_an_output_error(tmp_path):
    """As a full disk: each write beyond 1000 bytes fails."""
    write_picture(Picture(torch.zeros(1, 1, 1)), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    caught = []
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        for suffix in SUFFIXES:
            try:
                write_picture(Picture(torch.rand(3, 99, 99)), tmp_path / f"a{suffix}")
            except OutputError as error:
                caught.append(str(error))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(caught) == 4
    assert all("cannot be written" in text for text in caught)
    assert names(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_disk_that_is_found_full_on_flushing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device; free some space") as caught:
        write_picture(picture(), tmp_path / "a.png")
    assert isinstance(caught.value, OSError)
    assert names(tmp_path) == []


def test_no_permission(tmp_path, monkeypatch):
    def denied(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(OutputError, match="Permission denied; choose a folder"):
        write_picture(picture(), tmp_path / "a.png")
    monkeypatch.undo()
    monkeypatch.setattr(os, "access", lambda _, mode: mode == os.F_OK)
    with pytest.raises(OutputError, match="is not writable"):
        check_output(tmp_path / "a.png")


def test_places_where_no_file_can_be(tmp_path):
    with pytest.raises(OutputError, match="is a folder"), atomic_path(tmp_path):
        pass
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_picture(picture(), tmp_path / "folder.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OutputError, match="a device or a pipe"):
        write_picture(picture(), tmp_path / "pipe.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        check_output(tmp_path / "file" / "deep" / "a.png")
    stands = pytest.raises(OutputError, match="a file stands in the way")
    with stands, atomic_path(tmp_path / "file" / "a.png"):
        pass
    with pytest.raises(OutputError, match="choose a shorter name"):
        write_picture(picture(), tmp_path / f"{'a' * 300}.png")


def test_links_are_followed_and_permissions_kept(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "real" / "a.png")
    write_picture(picture(), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    target = tmp_path / "real" / "a.png"
    umask = os.umask(0o022)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
    target.chmod(0o604)
    write_picture(picture(), tmp_path / "link.png")
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


def test_outputs_are_checked_beforehand(tmp_path):
    assert check_output(tmp_path / "deep" / "er" / "a.JPeG") == "jpeg"
    assert names(tmp_path) == []
    with pytest.raises(OutputError, match=r"expected \.png, \.jpg, .*\.tiff"):
        check_output("a.gif")
    with pytest.raises(OutputError, match="known"):
        check_output("a")
    with pytest.raises(OutputError, match="no transparency"):
        write_picture(Picture(torch.rand(3, 4, 4), torch.zeros(1, 4, 4)), tmp_path / "a.jpg")
    with pytest.raises(OutputError, match="at most 16383"):
        check_output("a.webp", size=(16_384, 5))
    write_picture(Picture(torch.rand(3, 4, 4), torch.ones(1, 4, 4)), tmp_path / "a.jpg")
    assert read_picture(tmp_path / "a.jpg").alpha is None
