"""A job at an address goes on after any stop too, for one process at a time."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import sfumato
from sfumato.errors import JobError
from sfumato.io import _job_bucket
from sfumato.io._files import Files
from sfumato.io.job import Job

PLAN = {"settings": {"seed": 3}, "model": "a" * 64}

#: Another process takes the module alone: ``import sfumato`` would bring torch with it.
ALONE = f"""
import sys, time, types
for name, path in (("sfumato", {sfumato.__path__[0]!r}), ("sfumato.io", {sfumato.__path__[0]!r} + "/io")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from sfumato.io import _job_bucket
from sfumato.io.job import Job
"""  # noqa: E501


@pytest.fixture(params=["memory", "local"])
def url(request, tmp_path):
    """Where files are objects, and where they are files; both by fsspec alone."""
    place = f"{tmp_path.name}" if request.param == "memory" else f"{tmp_path}/store"
    return f"{request.param}://{place}/a/photo.job"


@pytest.fixture
def local(tmp_path):
    return f"local://{tmp_path}/store/photo.job"


@pytest.fixture
def quick(monkeypatch):
    """Let holders be heard of often, and let nobody see which processes live."""
    monkeypatch.setattr(_job_bucket, "_BEAT", 0.02)
    monkeypatch.setattr(_job_bucket, "_SILENCE", 0.4)
    monkeypatch.setattr(_job_bucket, "_LOOK", 0.01)
    monkeypatch.setattr(_job_bucket, "_machine", lambda: "")


def left(url):
    """All files that are there, by their names."""
    files, found = Files(url), {}

    def look(folder):
        for name in files.names(folder):
            path = f"{folder}/{name}".strip("/")
            if inner := files.names(path) - {name}:
                assert inner
                look(path)
            elif files._store.isfile(files._at(path)):
                found[path] = files.read(path)

    look("")
    return found


def test_it_goes_on_where_it_was(url):
    with Job.open(url, PLAN) as job:
        assert job.folder == url
        job.record("level 0", 1, {"n": 2})
        job.record_all("level 0", [3, 4])
        job.note("kept", {"name": "x"})
        with pytest.raises(ValueError, match="recorded already"):
            job.record_all("level 0", [5, 3])
    assert Job.plan_in(url) == PLAN
    with Job.open(url, PLAN) as job:
        assert job.done("level 0") == {1: {"n": 2}, 3: {}, 4: {}}
        assert job.notes("kept") == [{"name": "x"}]
        job.record("level 0", 5)
    with Job.open(url, PLAN) as job:
        assert list(job.done("level 0")) == [1, 3, 4, 5]
        job.remove()
    assert left(url) == {}
    assert Job.plan_in(url) == {}


def test_another_plan_is_refused_and_restart_begins_anew(url):
    with Job.open(url, PLAN) as job:
        job.record("level 0", 1)
        job.save("x.bin", lambda path: path.write_bytes(b"x"))
    with pytest.raises(JobError, match="model was aaaaaaaaaaaa, is nothing"):
        Job.open(url, {"settings": {"seed": 3}})
    with Job.open(url, {"model": 1}, restart=True) as job:
        assert job.done("level 0") == {}
        assert job.load("x.bin") is None
        job.record("level 0", 2)
    with Job.open(url, {"model": 1}) as job:
        assert list(job.done("level 0")) == [2]


def test_the_log_of_many_tiles_is_a_few_objects(url):
    n = 20_000
    with Job.open(url, PLAN) as job:
        for k in range(0, n, 50):
            job.record_all("level 0", range(k, k + 50))
    parts = Files(url).names("records")
    assert 10 < len(parts) < 40
    with Job.open(url, PLAN) as job:
        assert list(job.done("level 0")) == list(range(n))
        job.record("level 0", n)
    assert max(len(Files(url).read(f"records/{k}")) for k in parts) < 80_000


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("name", ["photo.png", "job.json", "records/1"])
def test_what_is_no_job_is_never_touched(url, name, restart):
    Files(url).write(name, b"mine")
    for _ in range(2):
        with pytest.raises(JobError, match="is not a job of sfumato"):
            Job.open(url, PLAN, restart=restart)
    assert left(url) == {name: b"mine"}


def test_files_are_kept_by_name(url):
    with Job.open(url, PLAN) as job:
        assert job.load("walk.bin") is None
        for content in (b"first", b"second"):
            job.save("walk.bin", lambda path, content=content: path.write_bytes(content))
            assert job.load("walk.bin").read_bytes() == content
        copy = job.load("walk.bin")
        for name in ("locks", "records", "job.json", "a/b", ""):
            with pytest.raises(ValueError, match="not a free name"):
                job.save(name, copy.read_bytes)
    assert not copy.exists()
    with Job.open(url, PLAN) as job:
        assert job.load("walk.bin").read_bytes() == b"second"
        job.drop("walk.bin")
        job.drop("walk.bin")
        assert job.load("walk.bin") is None


def test_one_holder_within_a_process(url):
    with Job.open(url, PLAN) as job:
        for restart in (False, True):
            with pytest.raises(JobError, match=f"is in use by process {os.getpid()} on "):
                Job.open(url, PLAN, restart=restart)
        job.record("level 0", 1)
    Job.open(url, PLAN).close()


def test_of_many_that_begin_at_once_one_has_it(url, quick):
    got, refused, gate = [], [], threading.Barrier(6)

    def begin():
        gate.wait()
        try:
            got.append(Job.open(url, PLAN))
        except JobError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(got) == 1, refused
    assert all("is in use by" in line for line in refused)
    got[0].record("level 0", 1)
    got[0].close()
    assert Files(url).names("locks") == set()


def test_a_holder_that_is_heard_of_keeps_it(url, quick):
    with Job.open(url, PLAN) as job:
        began = time.monotonic()
        with pytest.raises(JobError, match="is in use by"):
            Job.open(url, PLAN)
        assert time.monotonic() - began < 0.4
        job.record("level 0", 1)


def test_a_holder_that_falls_silent_loses_it_and_is_told(url, quick, monkeypatch):
    silent = Job.open(url, PLAN)
    silent.record("level 0", 1)
    silent._store._lock._over.set()  # its machine stands still
    silent._store._lock._thread.join()
    with Job.open(url, PLAN) as job:
        job.record("level 0", 2)
        for work in (
            silent.check,
            lambda: silent.record("level 0", 3),
            lambda: silent.save("x", lambda path: path.write_bytes(b"")),
            silent.remove,
        ):
            with pytest.raises(JobError, match="was taken over by process"):
                work()
        silent.close()
        job.record("level 0", 4)
    with Job.open(url, PLAN) as job:
        assert list(job.done("level 0")) == [1, 2, 4]
        job.remove()
    assert left(url) == {}


def test_a_job_that_was_ended_by_another_is_not_brought_back(url, quick):
    silent = Job.open(url, PLAN)
    silent._store._lock._over.set()
    silent._store._lock._thread.join()
    Job.open(url, PLAN).remove()
    with pytest.raises(JobError, match="was taken over by somebody"):
        silent.record("level 0", 1)
    silent.close()
    assert left(url) == {}


def test_a_store_that_decides_nothing_is_found_out(url, quick, monkeypatch):
    """One that takes an exclusive creation for any other: who comes first is told."""
    monkeypatch.setattr(Files, "create", Files.write)
    monkeypatch.setattr(_job_bucket, "_holder", lambda files: (0, None))
    first, second = Job.open(url, PLAN), None
    try:
        second = Job.open(url, PLAN)
        monkeypatch.undo()
        with pytest.raises(JobError, match="was taken over"):
            first.record("level 0", 1)
        second.record("level 0", 1)
    finally:
        first.close()
        if second:
            second.close()


def test_a_process_of_this_machine_that_was_killed_is_known_at_once(local):
    code = f"""
_job_bucket._BEAT = 0.05
job = Job.open({local!r}, {PLAN!r})
job.record("level 0", 1)
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", ALONE + code], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(JobError, match=f"in use by process {other.pid} on "):
            Job.open(local, PLAN)
        other.kill()
        other.wait()
    began = time.monotonic()
    with Job.open(local, PLAN) as job:
        assert time.monotonic() - began < 5
        assert list(job.done("level 0")) == [1]
        job.remove()
    assert left(local) == {}


@pytest.mark.parametrize("way", ["write", "remove", "create"])
def test_stopped_at_any_change_it_goes_on(url, monkeypatch, way):
    """Stopped before the k-th change, whatever k: what was recorded is there, and it ends."""
    true, recorded = getattr(Files, way), []

    def session():
        with Job.open(url, PLAN) as job:
            assert set(recorded) <= set(job.done("level 0"))
            for number in set(range(4)) - set(job.done("level 0")):
                job.record("level 0", number)
                recorded.append(number)
            job.save("x.bin", lambda path: path.write_bytes(b"x"))
            job.remove()

    for k in range(12):
        calls = iter(range(100))

        def counted(self, name, *args, calls=calls, k=k):
            if next(calls) == k:
                raise ConnectionResetError(104, "Connection reset by peer")
            return true(self, name, *args)

        recorded.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Files, way, counted)
            with suppress(JobError):
                session()
        if Job.plan_in(url):
            session()
        Job.open(url, PLAN).remove()
        assert left(url) == {}, k


def test_a_removal_that_was_stopped_is_no_job(url, monkeypatch):
    with Job.open(url, PLAN) as job:
        job.record("level 0", 1)
        with monkeypatch.context() as patch:
            patch.setattr(Files, "remove", _stopped)
            with pytest.raises(KeyboardInterrupt):
                job.remove()
    assert Job.plan_in(url) == {}
    with Job.open(url, PLAN | {"model": "b"}) as job:
        assert job.done("level 0") == {}
    assert json.loads(Files(url).read("job.json"))["plan"]["model"] == "b"


def _stopped(*_):
    raise KeyboardInterrupt


def test_what_a_kill_left_of_a_file_is_no_part_of_the_job(url):
    files = Files(url)
    files.write(".sfumato-0011.part", b"half")
    assert Job.plan_in(url) == {}
    with Job.open(url, PLAN) as job:
        job.record("level 0", 1)
        files.write("records/.sfumato-0033.part", b"half")
    with Job.open(url, PLAN) as job:
        assert list(job.done("level 0")) == [1]
        job.remove()
    assert left(url) == {}


def test_a_damaged_log_is_told_of(url):
    with Job.open(url, PLAN) as job:
        job.record_all("level 0", range(3))
    files = Files(url)
    first, second, third = files.read("records/000001").splitlines(keepends=True)
    files.write("records/000001", first + second.replace(b'"', b"'") + third)
    with pytest.raises(JobError, match=r"line 2 of the log of .* is damaged; .*--restart"):
        Job.open(url, PLAN)


def test_a_folder_of_this_machine_is_no_address(tmp_path):
    with Job.open(tmp_path / "x.job", PLAN) as job:
        assert job.path("a") == Path(tmp_path / "x.job" / "a")
    assert (tmp_path / "x.job" / "job.lock").exists()
