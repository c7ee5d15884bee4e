"""Whatever ends a run, and however often: the same command goes on, to the same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from stand_in import photo, read, write
from stand_in import sfumato as in_process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it looks at /proc"),
]

TILES = ["-t", 32, "--overlap", 16, "--steps", 2, "--stitch", "mask-shift"]
#: Commands without input, output and model; and the size of their input.
SCENES = {
    "box": (["upscale", "--kernel", "box", "-s", 2], (150, 170)),
    "bicubic": (["upscale", "-s", 2], (50, 60)),
    "levels": (["inpaint", "-m", "mask.png", "--levels", 2], (280, 300)),
}


@dataclass
class Scene:
    """A restoration in a folder of its own; its results stand in folders below."""

    folder: Path
    words: list[str]
    #: Every file of an undisturbed run, as bytes; the report as what it says of the result.
    expected: dict[str, object] = field(default_factory=dict)
    #: Seconds of the undisturbed run, before there was a job and from then on.
    before: float = 0.0
    work: float = 0.0

    def start(self, place, *more, program=("-m", "sfumato")):
        """Start it in a session of its own."""
        (self.folder / place).mkdir(exist_ok=True)
        words = [*self.words, "-o", f"{place}/out.png", *more]
        return subprocess.Popen(
            [sys.executable, *program, *map(str, words)],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def undisturbed(self, *more):
        """See what is expected, twice; return the scene."""
        began = time.monotonic()
        with self.start("undisturbed", *more) as run:
            until(lambda: run.poll() is not None or self.job("undisturbed").exists())
            self.before = time.monotonic() - began
            _, said = run.communicate()
        self.work = time.monotonic() - began - self.before
        assert run.returncode == 0, said
        self.expected = found(self.folder / "undisturbed")
        assert set(self.expected) == {"out.png", "out.png.json"}
        return self

    def job(self, place):
        return self.folder / place / "out.png.job"

    def records(self, place):
        """Count the tiles that are written down as finished."""
        log = self.job(place) / "records.jsonl"
        return log.read_bytes().count(b"\n") if log.exists() else 0

    def ends_well(self, place, *more):
        """Run it to its end, and compare all that it leaves."""
        with self.start(place, *more) as run:
            _, said = run.communicate()
        assert run.returncode == 0, said
        self.compare(place)

    def compare(self, place):
        now = found(self.folder / place)
        assert list(now) == list(self.expected)
        pixels = [read(self.folder / k / "out.png") for k in (place, "undisturbed")]
        assert np.array_equal(*pixels)
        assert now == self.expected


def found(folder):
    """Return what is in a folder, by name; of a report what does not tell of time."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json" and path.parent == folder:
            report = json.loads(path.read_text())
            files[path.name] = {k: v for k, v in report.items() if k != "seconds"}
        elif path.is_file():
            files[str(path.relative_to(folder))] = path.read_bytes()
    return files


def until(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.005)


def kill(run, how=signal.SIGKILL):
    """Kill all processes of a session's group, and wait for the first one."""
    os.killpg(run.pid, how)
    _, said = run.communicate(timeout=600)
    until(lambda: not living(run.pid))
    return said


@dataclass(frozen=True)
class Process:
    """A process, as /proc tells of it."""

    pid: int
    parent: int
    session: int
    zombie: bool
    words: str


def processes():
    """List all processes."""
    listed = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        parent, session = int(fields[1]), int(fields[3])
        listed.append(Process(int(path.name), parent, session, fields[0] == "Z", words))
    return listed


def living(session):
    """List the living processes of a session."""
    return [p for p in processes() if p.session == session and not p.zombie]


def below(pid):
    """List the living descendants of a process."""
    family, listed = {pid}, processes()
    for _ in listed:
        family |= {p.pid for p in listed if p.parent in family}
    return [p for p in listed if p.pid in family - {pid} and not p.zombie]


@pytest.fixture(params=list(SCENES))
def scene(tmp_path, prior, request):
    return made(tmp_path, prior, request.param)


def made(folder, prior, name):
    words, size = SCENES[name]
    write(folder / "in.png", photo(*size, seed=5))
    missing = np.zeros((*size, 1), np.uint8)
    missing[size[0] // 5 : size[0] // 2, size[1] // 4 : size[1] // 2] = 255
    missing[:, 7::31] = 255
    write(folder / "mask.png", missing)
    return Scene(folder, [words[0], "in.png", *words[1:], "-n", str(prior), *TILES])


#: The command line, which writes down what is finished so often that short runs do it too.
EAGER = """
import sfumato.pipeline.jobs
assert sfumato.pipeline.jobs._COMMIT_SECONDS == 5.0
sfumato.pipeline.jobs._COMMIT_SECONDS = 0.2
from sfumato.cli import main
main()
"""


def test_ten_kills_at_random_moments(scene):
    """The real command line; what it had made durable is not done again."""
    scene.undisturbed()
    chance, gone_on, kills = random.Random(4), 0, 0
    while kills < 10:
        records = scene.records("killed")
        gone_on += records > 0
        with scene.start("killed", program=("-c", EAGER)) as run:
            if chance.random() < 0.2:  # while it starts
                time.sleep(chance.uniform(0, scene.before))
            else:
                until(lambda run=run: run.poll() is not None or scene.job("killed").exists())
                time.sleep(chance.uniform(0.2, 1) * scene.work)
            if run.poll() is None:
                kill(run)
                kills += 1
                assert scene.records("killed") >= records or not scene.job("killed").exists()
                continue
            assert run.returncode == 0, run.communicate()[1]
        scene.compare("killed")
        for path in (scene.folder / "killed").iterdir():
            path.unlink()
    assert gone_on >= 2, "it went on from something"
    scene.ends_well("killed")


#: A program that is told by lines of JSON what to run: (n, folder, words). It forks, makes each
#: tile durable at once, and kills itself just before its n-th change of the folder. It answers how
#: that ended, how many changes there were if nothing killed it, and what was said.
DYING = """
import json, os, signal, sys, tempfile
import pyvips, zarr.codecs, sfumato.pipeline.files, sfumato.zoo
from sfumato.cli import main
from sfumato.pipeline import jobs
assert jobs._COMMIT_SECONDS > 0
jobs._COMMIT_SECONDS = 0
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def watched(n, folder, report):
    changes = 0
    def hook(event, args):
        nonlocal changes
        if event not in EVENTS or (event == "open" and not (args[2] or 0) & WRITES):
            return
        named = isinstance(args[0], (str, bytes, os.PathLike))
        if not named or os.path.abspath(os.fsdecode(args[0])).startswith(folder + os.sep):
            changes += 1
            report.seek(0)
            report.write(str(changes))
            report.flush()
            if changes == n:
                os.kill(os.getpid(), signal.SIGKILL)
    return hook
for line in sys.stdin:
    n, folder, words = json.loads(line)
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as report:
        pid = os.fork()
        if not pid:
            os.dup2(said.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.argv = ["sfumato", *words]
            sys.addaudithook(watched(n, folder, report))
            code = 1
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for file in (said, report):
            file.seek(0)
        print(json.dumps([code, int(report.read() or 0), said.read()]), flush=True)
"""


class Tiny(Scene):
    """A scene of a few tiles, whose runs die at a change of the disk."""

    def __init__(self, folder, prior):
        write(folder / "in.png", photo(20, 30, seed=5))
        words = ["upscale", "in.png", "--kernel", "box", "-s", "2", "-n", str(prior)]
        super().__init__(folder, [*words, "-t", "32", "--overlap", "8", "--steps", "1"])
        self._program = subprocess.Popen(
            [sys.executable, "-c", DYING],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        self.n_changes = self.ends_at(0, "undisturbed")
        self.expected = found(self.folder / "undisturbed")
        return self

    def __exit__(self, *_):
        self._program.communicate()

    def dies(self, n, place):
        """Run it until its n-th change of the disk; return whether it came so far."""
        code, _, said = self._run(n, place)
        assert code in (0, -signal.SIGKILL), said
        return code != 0

    def ends_at(self, n, place):
        """Run it to its end; return how many changes there were."""
        code, changes, said = self._run(n, place)
        assert code == 0, said
        return changes

    def ends_well(self, place):
        self.ends_at(0, place)
        self.compare(place)

    def _run(self, n, place):
        (self.folder / place).mkdir(exist_ok=True)
        words = [*self.words, "-o", f"{place}/out.png"]
        order = json.dumps([n, str(self.folder / place), words])
        self._program.stdin.write(order + "\n")
        self._program.stdin.flush()
        return json.loads(self._program.stdout.readline())


@pytest.fixture
def tiny(tmp_path, prior):
    with Tiny(tmp_path, prior) as scene:
        yield scene


def test_ten_kills_one_after_the_other(tiny):
    """Each between two changes of the disk; and the run gets on."""
    for seed in range(4):
        chance, place = random.Random(seed), f"killed {seed}"
        records = 0
        for _ in range(10):
            most = max(12, tiny.n_changes // 3)
            tiny.dies(chance.randint(1, most), place)
            now = tiny.records(place)
            assert now >= records or not tiny.job(place).exists()
            records = now
        tiny.ends_well(place)


def test_a_kill_at_any_change_of_the_disk(tiny):
    """It leaves a job or a report, if not nothing; after it nothing is left too much."""
    lost, left, n = [], {}, 0
    while tiny.dies(n := n + 1, "killed"):
        folder = tiny.folder / "killed"
        names = {p.name for p in folder.iterdir()}
        if "out.png" in names and not names & {"out.png.job", "out.png.json"}:
            lost.append(n)
        tiny.ends_at(0, "killed")
        now = found(folder)
        assert {k: now[k] for k in tiny.expected} == tiny.expected
        if extra := {*now} - {*tiny.expected}:
            left[n] = extra
        shutil.rmtree(folder)
    assert n > 20
    assert (lost, left) == ([], {})


@pytest.mark.parametrize("suffix", [".png", ".tif", ".zarr"])
def test_a_stop_when_only_the_job_is_to_go(tmp_path, prior, suffix):
    """The result is there already: the same command ends as if nothing had been."""
    small, out = write(tmp_path / "small.png", photo(20, 30)), tmp_path / f"out{suffix}"
    words = ["upscale", small, "-o", out, "-n", prior, *TILES, "--kernel", "box", "-s", 2]

    def stopped(job):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sfumato.io.job.Job.remove", stopped)
        assert in_process(*words).code == 130
    assert out.exists()
    done = in_process(*words)
    assert done.code == 0, done.err
    assert {p.name for p in tmp_path.iterdir()} == {small.name, out.name, f"{out.name}.json"}


def test_a_kill_while_the_result_is_written(tmp_path, prior):
    """Seen from outside: the hidden file beside the target is there, and then it is not."""
    scene = made(tmp_path, prior, "box").undisturbed()
    with scene.start("killed") as run:
        until(lambda: any((tmp_path / "killed").glob(".sfumato-*.part*")) or run.poll() == 0)
        assert run.poll() is None
        kill(run)
    assert not (tmp_path / "killed" / "out.png").exists()
    scene.ends_well("killed")


def workers_of(run):
    return [p.pid for p in below(run.pid) if "spawn_main" in p.words]


def test_workers_may_be_killed(tmp_path, prior):
    """The run goes on, and says so; killed itself, it leaves no process."""
    scene = made(tmp_path, prior, "box").undisturbed("--workers", 2)
    chance, deaths = random.Random(2), 0
    with scene.start("killed", "--workers", 2) as run:
        for _ in range(2):
            records = scene.records("killed")
            until(lambda: len(workers_of(run)) == 2)
            until(lambda n=records: scene.records("killed") > n or run.poll() is not None)
            time.sleep(chance.uniform(0, 0.3))
            if run.poll() is None and (able := workers_of(run)):
                os.kill(chance.choice(able), signal.SIGKILL)
                deaths += 1
        _, said = run.communicate()
    assert run.returncode == 0, said
    assert said.count("died (killed by SIGKILL)") == deaths > 0
    assert "Traceback" not in said
    assert not living(run.pid)
    scene.compare("killed")


@pytest.mark.parametrize("moment", ["at the start", "at work"])
def test_no_worker_outlives_its_parent(tmp_path, prior, moment):
    scene = made(tmp_path, prior, "box").undisturbed("--workers", 2)
    chance = random.Random(3)
    for _ in range(3):
        with scene.start("killed", "--workers", 2) as run:
            until(lambda run=run: workers_of(run))
            time.sleep(chance.uniform(0, 0.5 if moment == "at the start" else scene.work / 2))
            run.kill()
            run.communicate()
            until(lambda run=run: not living(run.pid), 20)
    scene.ends_well("killed", "--workers", 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupts_are_answered_in_a_line(tmp_path, prior, workers):
    """Ctrl-C goes to the whole group of processes."""
    scene = made(tmp_path, prior, "box").undisturbed("--workers", workers)
    chance = random.Random(workers)
    for _ in range(3):
        done = scene.records("stopped")
        with scene.start("stopped", "--workers", workers, program=("-c", EAGER)) as run:
            until(lambda done=done: scene.records("stopped") > done)
            time.sleep(chance.uniform(0, 0.1) * scene.work)
            said = kill(run, signal.SIGINT)
        assert run.returncode == 130, said
        assert said.startswith("sfumato: interrupted")
        assert said.count("\n") == 1
        assert scene.records("stopped") > done
    scene.ends_well("stopped", "--workers", workers)


def test_an_interrupt_while_it_starts(tmp_path, prior):
    scene = made(tmp_path, prior, "box").undisturbed()
    for k in (0.2, 0.5, 0.8):
        with scene.start("stopped") as run:
            time.sleep(k * scene.before)
            said = kill(run, signal.SIGINT)
        assert run.returncode in (130, -signal.SIGINT)
        assert "Traceback" not in said
        assert not found(tmp_path / "stopped")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".zarr"])
@pytest.mark.parametrize("stitch", ["mask-shift", "joint"])
def test_a_full_disk(tmp_path, small_disk, prior, monkeypatch, suffix, stitch):
    """Wherever it gets full: one line, nothing half done, and with room it goes on."""
    if (suffix, stitch) == (".zarr", "joint"):
        pytest.skip("it is restored in memory")
    monkeypatch.setattr("sfumato.pipeline.jobs._COMMIT_SECONDS", 0.0)
    small = write(tmp_path / "small.png", photo(120, 140, seed=5))
    words = ["upscale", small, "-n", prior, *TILES, "--kernel", "box", "-s", 2]
    words += ["--stitch", stitch, "-t", 128, "-o"]
    expected = tmp_path / f"expected{suffix}"
    assert in_process(*words, expected).code == 0
    before = found(expected) if suffix == ".zarr" else expected.read_bytes()
    chance, full, out = random.Random(7), 0, small_disk / f"out{suffix}"
    for n_bytes in [4096 * chance.randint(0, 200) for _ in range(8)]:
        ballast = small_disk / "ballast"
        state = os.statvfs(small_disk)
        ballast.write_bytes(bytes(state.f_bavail * state.f_frsize - n_bytes))
        done = in_process(*words, out)
        if done.code:
            full += 1
            assert done.code == 1
            assert done.err.count("\n") == 1
            assert "room" in done.err or "space" in done.err
            names = {p.name for p in small_disk.iterdir()}
            assert names <= {"ballast", f"out{suffix}.job", f"out{suffix}"}, done.err
        ballast.unlink()
        done = in_process(*words, out) if done.code else done
        assert done.code == 0, done.err
        assert before == (found(out) if suffix == ".zarr" else out.read_bytes())
        assert {p.name for p in small_disk.iterdir()} == {out.name, f"{out.name}.json"}
        for path in sorted(small_disk.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert full >= 2


def test_actors_on_ray_may_be_killed(tmp_path, prior):
    """The same bytes as by processes of this machine, with as many threads each."""
    pytest.importorskip("ray", reason="ray is not installed")
    scene = made(tmp_path, prior, "box").undisturbed("--workers", 2)
    on_ray = ("--ray", "local", "--workers", 2)

    def actors(run):
        return [p.pid for p in below(run.pid) if p.words.startswith("ray::_Actor")]

    chance, deaths = random.Random(1), 0
    with scene.start("killed", *on_ray) as run:
        for _ in range(2):
            records = scene.records("killed")
            until(lambda: len(actors(run)) == 2 or run.poll() is not None)
            until(lambda n=records: scene.records("killed") > n or run.poll() is not None)
            time.sleep(chance.uniform(0, 0.3))
            if run.poll() is None and (able := actors(run)):
                os.kill(chance.choice(able), signal.SIGKILL)
                deaths += 1
        _, said = run.communicate()
    assert run.returncode == 0, said
    assert said.count("restored again by another one") == deaths > 0
    scene.compare("killed")
    with scene.start("stopped", *on_ray) as run:
        until(lambda: scene.records("stopped") > 0)
        family = {p.pid for p in below(run.pid)}
        run.kill()
        run.communicate()
        until(lambda: not family & {p.pid for p in processes() if not p.zombie})
    scene.ends_well("stopped", *on_ray)
