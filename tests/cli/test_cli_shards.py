"""Shares of a folder for jobs that know nothing of each other."""

import pytest
from stand_in import photo, sfumato, write

from sfumato.cli.options import Share
from sfumato.cli.todo import todo_of

BOX = ("--kernel", "box", "-s", 2, "--steps", 1, "-t", 32)


@pytest.fixture
def album(tmp_path):
    for k in range(7):
        (tmp_path / "album" / str(k % 2)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "album" / str(k % 2) / f"{k}.png").touch()
    return tmp_path / "album"


@pytest.mark.parametrize("n", [1, 2, 3, 7, 9])
def test_each_file_is_in_one_share(album, tmp_path, n):
    files = todo_of(album, tmp_path / "out", recursive=True).files
    shares = [Share(i, n).of(files) for i in range(1, n + 1)]
    assert sorted(p for share in shares for p in share) == list(files)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_share_does_not_depend_on_how_the_folder_is_named(album, tmp_path, monkeypatch):
    by_name = {}
    monkeypatch.chdir(tmp_path)
    for folder in (album, album.relative_to(tmp_path)):
        files = Share(2, 3).of(todo_of(folder, tmp_path / "out", recursive=True).files)
        by_name[folder] = [p.relative_to(folder) for p in files]
    first, second = by_name.values()
    assert first == second


def test_nor_on_what_other_shares_have_written_into_it(album):
    before = todo_of(album, album / "out", recursive=True).files
    (album / "out" / "0").mkdir(parents=True)
    (album / "out" / "0" / "0.png").touch()
    (album / "output.png").touch()
    after = todo_of(album, album / "out", recursive=True).files
    assert after == sorted([*before, album / "output.png"])


@pytest.mark.parametrize(
    "text", ["2/1", "0/4", "x", "1", "1/", "/2", "1/2/3", "-1/2", "1/0", "²/3"]
)
def test_a_share_that_is_none(tmp_path, prior, text):
    done = sfumato("upscale", tmp_path, "-o", tmp_path / "out", "-n", prior, f"--shard={text}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert text in done.err
    assert "I/N" in done.err


def test_the_shares_together_are_the_whole(tmp_path, prior):
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / "in" / name, photo(4, 4))
    for k in (1, 2):
        done = sfumato(
            "upscale", tmp_path / "in", "-o", tmp_path / "out", "-n", prior, *BOX,
            "--shard", f"{k}/2",
        )  # fmt: skip
        assert done.code == 0, done.err
        assert len(list((tmp_path / "out").glob("*.png"))) == (2, 3)[k - 1]


def test_a_share_of_nothing_is_done_at_once(tmp_path, prior):
    write(tmp_path / "in" / "a.png", photo(4, 4))
    done = sfumato(
        "upscale", tmp_path / "in", "-o", tmp_path / "out", "-n", prior, "--shard", "2/2"
    )
    assert (done.code, done.err) == (0, "")
    assert "nothing to do" in done.out
