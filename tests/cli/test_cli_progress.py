"""What is told while files are restored: to people, and to other programs."""

import errno
import json
import os
import signal
import time
import tracemalloc
from pathlib import Path

import pytest
from stand_in import photo, sfumato, write

from sfumato.cli import commands
from sfumato.cli import screen as screens
from sfumato.cli.running import run_over
from sfumato.cli.screen import Screen, spoken
from sfumato.cli.todo import Todo
from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.errors import ImageError

BOX = ("--kernel", "box", "-s", 2, "--steps", 2, "-t", 32)


@pytest.fixture
def album(tmp_path):
    write(tmp_path / "in" / "a.png", photo(12, 20))
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    write(tmp_path / "in" / "c.png", photo(4, 4))
    return tmp_path / "in"


def events(done):
    """Every line is an object."""
    return [json.loads(line) for line in done.err.splitlines()]


def upscale(source, out, prior, *options):
    return sfumato("upscale", source, "-o", out, "-n", prior, *BOX, *options)


def test_events_of_a_folder(tmp_path, album, prior):
    out = tmp_path / "out"
    done = upscale(album, out, prior, "--progress", "json", "--continue-on-error")
    assert done.code == 3
    told = events(done)
    kinds = [e["event"] for e in told if e["event"] != "progress"]
    assert kinds == ["started", "finished", "failed", "started", "finished", "summary"]
    for e in told[:-1]:
        assert Path(e["target"]) == out / Path(e["file"]).name
    first, failed = told[0], next(e for e in told if e["event"] == "failed")
    assert (first["number"], first["files"], first["task"]) == (1, 3, "upscale")
    assert first["total"] == first["tiles"] * 2
    assert "not a picture" in failed["reason"]
    assert failed["exit_code"] == 1
    assert next(e for e in told if e["event"] == "finished")["consistency_rmse_255"] < 0.5
    summary = told[-1]
    assert {k: summary[k] for k in ("files", "done", "skipped", "failed", "left")} == {
        "files": 3, "done": 2, "skipped": 0, "failed": 1, "left": 0,
    }  # fmt: skip
    assert done.out.count("consistency") == 2, "standard output stays for people"


def test_events_of_a_second_run_and_of_one_that_stops(tmp_path, album, prior):
    out = tmp_path / "out"
    done = upscale(album, out, prior, "--progress", "json")
    assert done.code == 1
    assert events(done)[-1]["left"] == 1
    done = upscale(album, out, prior, "--progress", "json", "--resume", "--continue-on-error")
    skipped, failed = events(done)[:2]
    assert (skipped["event"], skipped["reason"]) == ("skipped", "done already")
    assert failed["event"] == "failed"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("upscale", "none.png"), 1),
        (("upscale", "a.png", "--shard", "2/1"), 2),
        (("upscale", "bad.png"), 1),
        (("upscale", "a.png", "-n", "nowhere"), 1),
        (("restore", "a.png", "-d", "nonsense"), 2),
    ],
)
def test_failures_of_one_file_are_events_too(album, prior, monkeypatch, words, code):
    monkeypatch.chdir(album)
    model = () if "-n" in words else ("-n", prior)
    done = sfumato(*words, "-o", "out.png", *model, "--progress", "json")
    assert done.code == code
    failed = next(e for e in events(done) if e["event"] == "failed")
    assert failed["exit_code"] == code
    assert failed["reason"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_an_event(tmp_path, album, prior, monkeypatch, number):
    """Ctrl-C, and what a cluster sends before it kills."""
    forward, before = EDMDenoiser.forward, signal.getsignal(signal.SIGTERM)

    def stopped(self, x_t, sigma):
        if (tmp_path / "out" / "a.png").exists():
            os.kill(os.getpid(), number)
        return forward(self, x_t, sigma)

    monkeypatch.setattr(EDMDenoiser, "forward", stopped)
    (album / "bad.png").unlink()
    done = upscale(album, tmp_path / "out", prior, "--progress", "json")
    assert done.code == 130
    summary, last = events(done)[-2:]
    assert (summary["event"], summary["done"], summary["left"]) == ("summary", 1, 1)
    assert last["event"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "a.png.json"]


def test_a_name_of_any_bytes_fails_alone(tmp_path, album, prior):
    odd = album / os.fsdecode(b"caf\xe9.png")
    odd.write_bytes((album / "c.png").read_bytes())
    write(album / "日本 é.png", photo(4, 4))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "c.png").touch()
    words = ("--continue-on-error", "--skip-existing")
    done = upscale(album, tmp_path / "out", prior, "--progress", "json", *words)
    assert done.code == 3
    failed = [e for e in events(done) if e["event"] == "failed"]
    assert [e["file"] for e in failed] == [str(album / "bad.png"), str(odd)]
    assert "UTF-8" in failed[1]["reason"]
    assert "日本 é.png: 8 x 8" in done.out
    (tmp_path / "out" / odd.name).touch()
    done = upscale(odd, tmp_path / "out", prior, "--skip-existing")
    assert (done.code, done.err) == (0, "")
    assert "exists" in done.out


def test_where_nobody_reads_the_run_ends(tmp_path, album, prior, monkeypatch):
    """``sfumato ... | head -1``: no file has failed."""

    def closed(line):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(screens, "say", closed)
    there = tmp_path / "failed.json"
    done = upscale(album, tmp_path / "out", prior, "--continue-on-error", "--failed", there)
    assert (done.code, done.err) == (1, "")
    assert json.loads(there.read_text()) == []
    assert not (tmp_path / "out" / "c.png").exists()


def test_a_mistake_of_ours_says_which_file_it_was():
    def one(file, target):
        raise ZeroDivisionError

    todo = Todo([Path("in/a.png")], Path("out"), Path("in"))
    with Screen("none", todo) as screen, pytest.raises(ZeroDivisionError) as raised:
        run_over(todo, one, screen, skip=lambda file, target: "", continue_on_error=True)
    assert raised.value.__notes__ == ["while at in/a.png"]


@pytest.mark.parametrize("how", ["auto", "none"])
def test_without_a_terminal_there_is_no_bar(tmp_path, album, prior, how):
    done = upscale(album / "a.png", tmp_path / "out.png", prior, "--progress", how)
    assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)


def test_a_bar_that_is_asked_for(tmp_path, album, prior, monkeypatch):
    monkeypatch.setattr(screens, "_PAUSE", 0.0)
    (album / "bad.png").unlink()
    done = upscale(album, tmp_path / "out", prior, "--progress", "bar")
    assert done.code == 0
    assert "evaluations" in done.err
    assert "1/2 files" in done.err
    assert done.out.count("consistency") == 2
    assert "\x1b" not in done.out


def test_names_are_no_markup(tmp_path, prior):
    source = write(tmp_path / "[bold]a.png", photo(4, 4))
    done = upscale(source, tmp_path / "[/x]out.png", prior, "--progress", "bar")
    assert done.code == 0, done.err
    assert "[/x]out.png" in done.err + done.out


def test_progress_comes_a_few_times_a_second(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Screen("json", Todo([Path("a.png")], Path("out.png"))) as screen:
        screen.begin(0, Path("a.png"), Path("out.png"))
        for k in range(1000):
            now[0] += 0.01
            screen.advance(k + 1, 1000, "level 1 of 1")
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert 30 <= len(told) <= 41
    assert told[0]["seconds_left"] is None
    for e in told[1:]:
        assert e["seconds_left"] == pytest.approx(10 - e["done"] / 100, abs=0.2)


def test_fifty_thousand_files_start_at_once(tmp_path, prior, monkeypatch):
    folder, asked = tmp_path / "in", []
    files = [folder / f"{k // 1000:02}" / f"{k:05}.png" for k in range(50_000)]
    folder.mkdir()
    monkeypatch.setattr("sfumato.io.find_pictures", lambda folder, **options: files)

    def first(self, source, target):
        asked.append(source)
        raise ImageError("that will do")

    monkeypatch.setattr(commands._Job, "restore", first)
    began = time.process_time()
    done = upscale(folder, tmp_path / "out", prior, "-r", "--progress", "bar")
    assert time.process_time() - began < 2
    assert done.code == 1
    assert asked == files[:1]
    assert "50000 of 50000 files left" in done.err


def test_memory_does_not_grow_with_the_files(monkeypatch):
    n, told = 100_000, []  # a byte a file: whatever else goes on is small beside it
    todo = Todo([Path(f"in/{k}.png") for k in range(n)], Path("out"), Path("in"))
    monkeypatch.setattr(screens, "say", lambda line: told.append(0) if not told else None)
    with Screen("none", todo) as screen:
        tracemalloc.start()
        run_over(
            todo,
            lambda file, target: None,
            screen,
            skip=lambda file, target: "done already" if "7" in file.name else "",
            continue_on_error=True,
        )
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (screen.n_done + screen.n_skipped, len(told)) == (n, 1)
    assert peak < n


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "1 s"), (59.4, "59 s"), (3500, "58 min"), (3590, "1 h 00 min"), (1e6, "11 d 13 h")],
)
def test_times_in_words(seconds, words):
    assert spoken(seconds) == words
