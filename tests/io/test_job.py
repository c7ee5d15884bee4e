"""A job goes on after any stop: with all that was recorded, and with nothing else."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sfumato
from sfumato.errors import JobError, SfumatoError
from sfumato.io.job import Job

PLAN = {"settings": {"seed": 3, "overlap": 64}, "model": "a" * 64, "tile": [256, 256]}

#: Other processes take the module alone: ``import sfumato`` would bring torch with it.
ALONE = f"""
import os, sys, types
for name, path in (("sfumato", {sfumato.__path__[0]!r}), ("sfumato.io", {sfumato.__path__[0]!r} + "/io")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from pathlib import Path
from sfumato.errors import JobError
from sfumato.io.job import Job
folder = Path(sys.argv[1])
"""  # noqa: E501

texts = st.text(max_size=8)
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    leaves | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
plans = st.dictionaries(texts, values, max_size=4)
entries = st.lists(
    st.tuples(st.sampled_from(["level 0", "é\n", ""]), st.none() | st.integers(), plans),
    min_size=1,
    max_size=6,
    unique_by=lambda entry: entry[:2] if entry[1] is not None else object(),
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out" / "photo.job"


@pytest.fixture
def start(folder):
    """Start another process that runs some lines; it is killed at the end."""
    started = []

    def run(code, **pipes):
        process = subprocess.Popen([sys.executable, "-c", ALONE + code, folder], **pipes)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@contextmanager
def scratch():
    """A place for one of many examples, which need not wait for the disk."""
    with tempfile.TemporaryDirectory() as parent, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield Path(parent, "job")


def write(job, entries):
    for stage, number, data in entries:
        if number is None:
            job.note(stage, data)
        else:
            job.record(stage, number, data)


def contents(job, stages=("level 0", "é\n", "")):
    """All that the job knows, in the form that ``expected`` gives it."""
    return [(job.done(stage), job.notes(stage)) for stage in stages]


def expected(entries, stages=("level 0", "é\n", "")):
    return [
        (
            {n: data for s, n, data in entries if s == stage and n is not None},
            [data for s, n, data in entries if s == stage and n is None],
        )
        for stage in stages
    ]


def tree(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def refusal(folder, plan=PLAN, **options):
    """The one line with which a job is refused."""
    with pytest.raises(JobError) as caught:
        Job.open(folder, plan, **options)
    assert isinstance(caught.value, SfumatoError)
    assert isinstance(caught.value, OSError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_job_goes_on_where_it_was(folder):
    with Job.open(folder, PLAN) as job:
        assert job.folder == folder
        assert job.plan == PLAN
        assert job.done("level 0") == {}
        job.record("level 0", 7, {"evaluations": 20})
        job.record("level 0", 2)
        job.record("level 1", 7, {"sizes": [(1, 2)]})
        job.note("level 0", {"finished": True})
        time.sleep(0.01)
        job.note("level 0", {"finished": False})
        before = (job.done("level 0"), job.done("level 1"), job.notes("level 0"))
    with Job.open(folder, {key: PLAN[key] for key in reversed(PLAN)}) as job:
        assert (job.done("level 0"), job.done("level 1"), job.notes("level 0")) == before
        assert before[0] == {7: {"evaluations": 20}, 2: {}}
        assert before[1] == {7: {"sizes": [[1, 2]]}}
        assert before[2] == [{"finished": True}, {"finished": False}]
        assert job.notes("level 1") == []
        assert 0.01 < job.seconds < 60
        worked = job.seconds
        job.note("time", {})
    with Job.open(folder, PLAN) as job:
        assert job.seconds >= round(worked, 3)


@settings(max_examples=50)
@given(entries, st.data())
def test_a_log_cut_at_any_byte_is_a_beginning_and_goes_on(entries, data):
    with scratch() as folder:
        with Job.open(folder, PLAN) as job:
            write(job, entries)
            assert contents(job) == expected(entries)
        log = folder / "records.jsonl"
        whole = log.read_bytes()
        assert whole.count(b"\n") == len(entries)
        cut = data.draw(st.integers(0, 2**16)) % (len(whole) + 1)
        log.write_bytes(whole[:cut] + data.draw(st.sampled_from([b"", b"\0\0\0", b"x"])))
        kept = whole[:cut].count(b"\n")
        with Job.open(folder, PLAN) as job:
            assert log.read_bytes() == b"".join(whole.splitlines(keepends=True)[:kept])
            assert contents(job) == expected(entries[:kept])
            write(job, entries[kept:])
        with Job.open(folder, PLAN) as job:
            assert contents(job) == expected(entries)


@settings(max_examples=50)
@given(st.data())
def test_a_damaged_log_never_tells_another_story(data):
    with scratch() as folder:
        with Job.open(folder, PLAN) as job:
            for number in range(3):
                job.record("level 0", number)
        log = folder / "records.jsonl"
        lines = log.read_bytes().splitlines(keepends=True)
        damaged = bytearray(b"".join(lines))
        place = data.draw(st.integers(0, 2**16)) % len(damaged)
        damaged[place] ^= data.draw(st.integers(1, 255))
        log.write_bytes(damaged)
        if place < len(lines[0]) - 1:
            assert "line 1 of" in refusal(folder)
        else:
            with suppress(JobError), Job.open(folder, PLAN) as job:
                assert list(job.done("level 0")) in ([0], [0, 1])
        for other in ([lines[1], lines[2]], [lines[0], lines[2], lines[1]], [lines[0]] * 3):
            log.write_bytes(b"".join(other))
            assert "is damaged" in refusal(folder)
        with Job.open(folder, PLAN, restart=True) as job:
            assert job.done("level 0") == {}


@settings(max_examples=50)
@given(plans, plans)
@example({"a": 1}, {"a": True})
@example({"a": 1}, {"a": 1.0})
@example({"a": None}, {})
@example({"a": {}}, {"a": {"b": 1}})
@example({"a.b": 1}, {"a": {"b": 1}})
def test_only_an_equal_plan_goes_on(was, now):
    with scratch() as folder:
        Job.open(folder, was).close()
        Job.open(folder, was).close()
        if json.dumps(was, sort_keys=True) == json.dumps(now, sort_keys=True):
            Job.open(folder, now).close()
        else:
            message = refusal(folder, now)
            assert 1 <= message.count(" was ") - 1 <= 3
            assert message.endswith("; use the earlier settings, or begin anew with --restart")
            Job.open(folder, was).close()


def test_a_refusal_names_what_changed(folder):
    Job.open(folder, PLAN).close()

    def changes(**new):
        message = refusal(folder, PLAN | new)
        start = f"{folder} was begun with another plan: "
        assert message.startswith(start)
        return message.removeprefix(start).split(";")[0]

    assert changes(settings={"seed": 4, "overlap": 64}) == "settings.seed was 3, is 4"
    assert changes(model="b" * 64) == "model was aaaaaaaaaaaa, is bbbbbbbbbbbb"
    assert changes(tile=[256, 512]) == "tile was [256, 256], is [256, 512]"
    assert changes(settings={"seed": 3}) == "settings.overlap was 64, is nothing"
    assert changes(mask="x" * 99) == f'mask was nothing, is "{"x" * 56}...'
    assert changes(settings={}, model=None, a=1, b=2) == (
        "settings.seed was 3, is nothing, settings.overlap was 64, is nothing, "
        "model was aaaaaaaaaaaa, is null, and 2 more"
    )


def test_what_json_cannot_say_is_an_error_of_the_program(folder):
    with pytest.raises(ValueError, match="JSON"):
        Job.open(folder, {"sigma": float("inf")})
    with Job.open(folder, PLAN) as job:
        with pytest.raises(ValueError, match="JSON"):
            job.record("level 0", 1, {"loss": float("nan")})
        job.record("level 0", 1)
        with pytest.raises(ValueError, match="1 of 'level 0' is recorded already"):
            job.record("level 0", 1, {"other": 1})
        assert job.done("level 0") == {1: {}}
    for use in (lambda: job.record("level 0", 2), lambda: job.note("", {}), job.remove):
        with pytest.raises(ValueError, match="is closed"):
            use()
    job.close()
    with Job.open(folder, PLAN) as job:
        assert job.done("level 0") == {1: {}}


def test_places_for_files(folder):
    with Job.open(folder, PLAN) as job:
        job.path("canvas").write_text("pixels")
        for name in ("", ".", "..", "a/b", "/a", "job.json", "records.jsonl", "job.lock"):
            with pytest.raises(ValueError, match="not a free name"):
                job.path(name)
    with Job.open(folder, PLAN) as job:
        assert job.path("canvas").read_text() == "pixels"


def test_one_holder_within_a_process(folder):
    with Job.open(folder, PLAN):
        message = refusal(folder)
        assert f"is in use by process {os.getpid()} on {os.uname().nodename}" in message
        assert "is in use" in refusal(folder, PLAN | {"model": ""})
        assert "is in use" in refusal(folder, restart=True)
    opened, refused = [], []
    barrier = threading.Barrier(4)

    def compete():
        barrier.wait()
        try:
            opened.append(Job.open(folder, PLAN))
        except JobError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=compete) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert ["is in use" in message for message in refused] == 3 * [True]
    opened[0].close()


def test_one_holder_among_processes_until_it_is_killed(folder, start):
    holder = start(
        "job = Job.open(folder, {}); job.record('a', 1); print('open', flush=True); input()",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"open\n"
    assert f"process {holder.pid} on {os.uname().nodename}" in refusal(folder, {})
    holder.kill()
    holder.wait()
    with Job.open(folder, {}) as job:
        assert job.done("a") == {1: {}}


def test_processes_that_make_and_remove_one_job(folder, start):
    """No two hold it at once, none sees half a job, and only "in use" is refused."""
    code = """
alone = folder.parent.parent / "alone"
n_done = 0
while n_done < 25:
    try:
        with Job.open(folder, {"a": 1}) as job:
            os.close(os.open(alone, os.O_CREAT | os.O_EXCL))
            assert job.done("s") == {}
            job.record("s", 1)
            alone.unlink()
            job.remove()
            n_done += 1
    except JobError as error:
        assert "is in use" in str(error), error
"""
    processes = [start(code, stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == 0
    assert list(folder.parent.iterdir()) == []


def test_killed_at_any_moment_it_ends_with_the_same_bits(folder, start):
    code = """
import time
with Job.open(folder, {"tiles": 150}) as job:
    canvas = os.open(job.path("canvas"), os.O_RDWR | os.O_CREAT)
    for tile in sorted({*range(150)} - {*job.done("a")}):
        time.sleep(0.001)
        before = os.pread(canvas, 1, tile - 1)[0] if tile else 0
        os.pwrite(canvas, bytes([(7 * before + tile) % 256]), tile)
        os.fsync(canvas)
        job.record("a", tile, {"tile": tile})
"""
    pixels = [0]
    for tile in range(1, 150):
        pixels.append((7 * pixels[-1] + tile) % 256)
    moments, reached = random.Random(0), [0]
    while reached[-1] < 150:
        process = start(code)
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.02, 0.12) + 0.01 * len(reached))
        process.kill()
        assert process.wait() in (0, -signal.SIGKILL)
        with Job.open(folder, {"tiles": 150}) as job:
            done = job.done("a")
            assert done == {tile: {"tile": tile} for tile in range(len(done))}
            if done:
                assert job.path("canvas").read_bytes()[: len(done)] == bytes(pixels[: len(done)])
            reached.append(len(done))
    assert reached == sorted(reached)
    assert len(set(reached)) > 2


def test_removed_with_all_that_is_in_it(folder):
    job = Job.open(folder, PLAN)
    job.path("canvas").mkdir()
    (job.path("canvas") / "0").write_text("pixels")
    job.path("link").symlink_to(folder.parent.parent)
    job.remove()
    assert list(folder.parent.iterdir()) == []
    assert folder.parent.parent.is_dir()
    job.close()
    with Job.open(folder, PLAN | {"model": ""}) as job:
        assert job.done("level 0") == {}


def test_a_removal_that_is_killed_leaves_no_job(folder, monkeypatch):
    def killed(_):
        raise KeyboardInterrupt

    job = Job.open(folder, PLAN)
    job.record("level 0", 1)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            job.remove()
    [leftover] = folder.parent.iterdir()
    assert leftover.name.startswith(".sfumato-job-")
    (folder.parent / ".sfumato-job-notes").mkdir()
    sfumato.io._job_folder._sweep.cache_clear()  # the next run is another process
    with Job.open(folder.parent / "another", PLAN):
        pass
    assert {p.name for p in folder.parent.iterdir()} == {"another", ".sfumato-job-notes"}


@pytest.mark.parametrize("plan", [PLAN, {"other": 1}])
def test_restart_begins_anew(folder, plan):
    with Job.open(folder, PLAN, restart=True) as job:
        job.record("level 0", 1)
        job.path("canvas").write_text("pixels")
    with Job.open(folder, plan, restart=True) as job:
        assert job.done("level 0") == {}
        assert job.plan == plan
        assert not job.path("canvas").exists()
    Job.open(folder, plan).close()
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    "files",
    [
        {"photo.png": "pixels"},
        {"photo.png": "pixels", "job.lock": ""},
        {"job.json": ""},
        {"job.json": '{"kind": "another job", "format": 1, "plan": {}}'},
        {"job.json": "[" * 100_000},
        {"job.json": '["sfumato job"]', "records.jsonl": ""},
        {"records.jsonl": "something\n"},
    ],
)
def test_a_folder_of_somebody_elses_is_never_touched(folder, files, restart):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    before = tree(folder)
    assert "is not a job of sfumato" in refusal(folder, restart=restart)
    assert tree(folder) == before


@pytest.mark.parametrize("restart", [False, True])
def test_a_newer_job_is_never_touched(folder, restart):
    with Job.open(folder, PLAN) as job:
        job.record("level 0", 1)
    (folder / "job.json").write_text('{"kind": "sfumato job", "format": 2}')
    before = tree(folder)
    assert "is a job of format 2; expected format 1" in refusal(folder, restart=restart)
    assert tree(folder) == before


def test_a_file_in_the_way(folder):
    folder.parent.mkdir()
    folder.write_text("mine")
    assert "is not a job of sfumato" in refusal(folder)
    assert "cannot be used: Not a directory" in refusal(folder / "below")
    assert folder.read_text() == "mine"


def test_a_link_and_an_empty_folder(folder):
    folder.mkdir(parents=True)
    link = folder.with_name("link")
    link.symlink_to(folder)
    with Job.open(link, PLAN) as job:
        assert job.folder == folder
        assert "is in use" in refusal(folder)
        job.remove()
    assert [p.name for p in folder.parent.iterdir()] == ["link"]


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def half(descriptor, data):
    return os.pwrite(descriptor, data[: len(data) // 2], os.fstat(descriptor).st_size)


@pytest.mark.parametrize(("name", "fault"), [("write", full), ("write", half), ("fsync", full)])
def test_a_full_disk_loses_nothing(folder, monkeypatch, name, fault):
    log = folder / "records.jsonl"
    with Job.open(folder, PLAN) as job:
        job.record("level 0", 1)
        before = log.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fault)
            for _ in range(2):
                with pytest.raises(JobError) as caught:
                    job.record("level 0", 2, {"a": 1})
                assert str(caught.value) == (
                    f"{folder} cannot be used: No space left on device; "
                    "make room; the same command then goes on"
                )
        assert log.read_bytes() == before
        assert job.done("level 0") == {1: {}}
        job.record("level 0", 2, {"a": 2})
    with Job.open(folder, PLAN) as job:
        assert job.done("level 0") == {1: {}, 2: {"a": 2}}


@pytest.mark.parametrize("fault", [full, KeyboardInterrupt])
def test_a_job_that_was_stopped_while_it_began(folder, monkeypatch, fault):
    def stopped(*_):
        raise fault if fault is KeyboardInterrupt else OSError(errno.ENOSPC, "No space left")

    for name in ("fsync", "replace", "truncate"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, stopped)
            with pytest.raises((JobError, KeyboardInterrupt)):
                Job.open(folder, PLAN)
    with Job.open(folder, PLAN) as job:
        assert job.done("level 0") == {}


def test_an_interrupt_while_recording(folder, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    with Job.open(folder, PLAN) as job:
        job.record("level 0", 1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupted)
            with pytest.raises(KeyboardInterrupt):
                job.record("level 0", 2)
        job.note("stopped", {})
    with Job.open(folder, PLAN) as job:
        assert (job.done("level 0"), job.notes("stopped")) == ({1: {}}, [{}])


def test_a_folder_that_is_taken_away_while_in_use(folder):
    with Job.open(folder, PLAN) as job:
        (folder / "records.jsonl").unlink()
        with pytest.raises(JobError, match="removed or cut while in use"):
            job.record("level 0", 1)
    with Job.open(folder, PLAN) as job:
        folder.rename(folder.with_name("moved"))
        with Job.open(folder, PLAN) as other:
            with pytest.raises(JobError, match="another job has taken its place"):
                job.remove()
            other.record("level 0", 1)
    assert folder.exists()


def test_no_permission_is_one_line(folder, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", forbidden)
    assert "cannot be used: Permission denied; put it right" in refusal(folder)
