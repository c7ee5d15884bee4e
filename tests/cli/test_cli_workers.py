"""Who restores the tiles changes nothing but the time."""

import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from stand_in import photo, read, sfumato, write

from sfumato.cli.options import Shared
from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.tiling import InProcess, on_ray, processes

TILES = ("--kernel", "box", "-s", 2, "--steps", 2, "-t", 32, "--overlap", 8)


class Recorded(InProcess):
    """Works in this process, and remembers how it was asked for."""

    def __init__(self, *args, warned, **kwargs):
        super().__init__()
        self.args, self.kwargs, self.warned = args, kwargs, warned
        self.begun, self.left = 0, False

    def begin(self, restorer):
        super().begin(restorer)
        self.begun += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.warned("a worker died")
        self.left = True


@pytest.fixture
def crews(monkeypatch):
    """All that were asked for."""
    made = []

    def record(*args, **kwargs):
        made.append(Recorded(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(processes, "Processes", record)
    monkeypatch.setattr(on_ray, "OnRay", record)
    return made


def upscale(source, out, prior, *options):
    return sfumato("upscale", source, "-o", out, "-n", prior, *TILES, *options)


@pytest.mark.slow
def test_two_processes_give_the_same_bits_for_every_file(tmp_path, prior):
    """The processes are kept from file to file."""
    for k in range(2):
        write(tmp_path / "in" / f"{k}.png", photo(24, 30 + k))
    one = upscale(tmp_path / "in", tmp_path / "one", prior)
    two = upscale(tmp_path / "in", tmp_path / "two", prior, "--workers", 2)
    assert (one.code, two.code, two.err) == (0, 0, "")
    for k in range(2):
        assert (read(tmp_path / "one" / f"{k}.png") == read(tmp_path / "two" / f"{k}.png")).all()


def test_they_work_on_all_files_and_leave_at_the_end(tmp_path, prior, crews):
    for name in ("a.png", "b.png"):
        write(tmp_path / "in" / name, photo(24, 30))
    (tmp_path / "in" / "c.png").write_bytes(b"no picture")
    done = upscale(tmp_path / "in", tmp_path / "out", prior, "--workers", 3)
    assert done.code == 3
    (crew,) = crews
    assert (crew.args[0], crew.begun, crew.left) == (["cpu"] * 3, 2, True)


@pytest.mark.parametrize("how", ["none", "json"])
def test_their_warnings_arrive(tmp_path, prior, crews, how):
    source = write(tmp_path / "a.png", photo(4, 4))
    done = upscale(source, tmp_path / "out.png", prior, "--workers", 2, "--progress", how)
    assert done.code == 0
    line = done.err.splitlines()[-1]
    if how == "json":
        assert json.loads(line) == {"event": "warning", "reason": "a worker died"}
    else:
        assert line == "sfumato: a worker died"


@pytest.mark.parametrize(
    ("words", "args", "threads"),
    [
        (("--ray", "local"), (None, None), None),
        (("--ray", "auto"), (None, "auto"), None),
        (("--ray", "local", "--workers", 3), (3, None), 1),
    ],
)
def test_ray(tmp_path, prior, crews, words, args, threads):
    source = write(tmp_path / "a.png", photo(24, 30))
    assert upscale(source, tmp_path / "out.png", prior, *words).code == 0
    (crew,) = crews
    assert crew.args == args
    assert crew.kwargs == {"gpus_per_worker": 0.0, "threads": threads}


def shared(**options):
    return Shared(Path("out.png"), **options)


def test_gpus_are_taken_in_turn(monkeypatch, crews):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    shared(device="cuda", workers=3).executor()
    shared(device="cuda:1", workers=2).executor()
    assert [crew.args[0] for crew in crews] == [["cuda:0", "cuda:1", "cuda:0"], ["cuda:1"] * 2]
    shared(device="cuda", ray="auto").executor()
    assert crews[-1].kwargs["gpus_per_worker"] == 1


@pytest.mark.parametrize(("have", "shares"), [(6, [6, 6, 3, 1, 1]), (2, [2, 2, 2, 1, 1])])
def test_cores_are_shared_out_but_no_more_than_were_allowed(monkeypatch, have, shares):
    """Of six cores, of which OMP_NUM_THREADS may allow two."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: have)
    assert [shared(workers=n).threads() for n in (None, 1, 2, 4, 99)] == shares


@pytest.mark.parametrize("n", [None, 1])
def test_one_worker_is_this_process(n):
    assert isinstance(shared(workers=n).executor(), nullcontext)


@pytest.mark.parametrize("words", [("--workers", 0), ("--workers", "two"), ("--workers", -1)])
def test_numbers_of_workers_that_cannot_be(tmp_path, prior, words):
    done = upscale(tmp_path / "a.png", tmp_path / "out.png", prior, *words)
    assert done.code == 2
    assert "--workers" in done.err


def test_a_device_short_of_memory_is_told_of(tmp_path, prior, monkeypatch):
    picture, out = write(tmp_path / "in.png", photo(40, 40)), tmp_path / "out.png"
    forward, refused = EDMDenoiser.forward, []

    def short(self, x_t, sigma):
        if not refused:
            refused.append(1)
            raise torch.OutOfMemoryError("no room")
        return forward(self, x_t, sigma)

    monkeypatch.setattr(EDMDenoiser, "forward", short)
    words = ["--kernel", "box", "-s", 2, "--steps", 1, "--tile", 32, "--overlap", 0, "--batch", 8]
    done = sfumato(
        "upscale", picture, "-o", out, "-n", prior, *words, "--stitch", "independent"
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.err == "sfumato: cpu has no memory for 8 tiles at once: 4 at once from now on\n"
