"""A job at an address goes on on any machine, and ends with the bits of an undisturbed run."""

import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from stand_in import photo, read, sfumato, write

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.errors import OutputError
from sfumato.io._files import Files
from sfumato.io.job import Job
from sfumato.io.storage import fetch, put
from sfumato.pipeline import jobs, kept

TILES = ["--tile", 32, "--overlap", 16, "--steps", 2, "--stitch", "mask-shift"]
BOX = ["-s", 2, "--kernel", "box"]
JOINT = [*BOX, "--stitch", "joint", "--steps", 5, "--tile", 64]


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A bucket with a photograph; each machine is a folder of its own."""
    place = f"memory://{tmp_path.name}"
    put(write(tmp_path / "aside" / "in.png", photo(60, 44, seed=5)), f"{place}/in.png")
    on_machine(tmp_path, monkeypatch, "first")
    return place


def on_machine(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / name)


def below(url, name=""):
    """The names in a folder of a bucket."""
    return sorted(Files(url).names(name))


def stopped_after(n, monkeypatch):
    """Let the network be asked ``n`` times, and then Ctrl-C be pressed; count what is asked."""
    calls = [0]
    original = EDMDenoiser.forward

    def forward(self, x_t, sigma):
        calls[0] += 1
        if calls[0] > n:
            raise KeyboardInterrupt
        return original(self, x_t, sigma)

    monkeypatch.setattr(EDMDenoiser, "forward", forward)
    return calls


def alone(tmp_path, prior, words):
    """What the same command makes of files of this machine."""
    out = tmp_path / "aside" / "out.png"
    done = sfumato("upscale", tmp_path / "aside" / "in.png", "-o", out, "-n", prior, *words)
    assert done.code == 0, done.err
    return read(out)


@pytest.mark.parametrize(
    "words",
    [
        BOX,
        pytest.param(["-s", 2, "--tile", 64, "--overlap", 32], marks=pytest.mark.slow),
        pytest.param([*BOX, "--levels", 2], marks=pytest.mark.slow),
        JOINT,
    ],
)
def test_it_goes_on_on_another_machine(tmp_path, bucket, prior, monkeypatch, words):
    monkeypatch.setattr(kept, "_SECONDS", -1.0)
    monkeypatch.setattr(kept, "_PART", float("inf"))
    monkeypatch.setattr(jobs, "_COMMIT_SECONDS", 0.0)
    words = [*TILES, *words]
    expected = alone(tmp_path, prior, words)
    command = ("upscale", f"{bucket}/in.png", "-o", f"{bucket}/out.png", "-n", prior, *words)
    command = (*command, "--work", f"{bucket}/scratch")
    n_done = 0
    for machine, n in (("first", 4), ("second", 7), ("first", 9), ("third", 10**9)):
        on_machine(tmp_path, monkeypatch, machine)
        with pytest.MonkeyPatch.context() as patched:
            calls = stopped_after(n, patched)
            done = sfumato(*command)
        assert list(Path().iterdir()) == [], "nothing stays here"
        if done.code == 0:
            break
        assert done.code == 130, done.err
        for name in below(f"{bucket}/scratch"):
            assert name.startswith("out.png.")
            assert name.endswith(".job")
            assert below(f"{bucket}/scratch/{name}", "locks") == []
            records = len(Files(f"{bucket}/scratch/{name}").read("records/000001").splitlines())
            assert records > n_done
            n_done = records
    assert done.code == 0, done.err
    assert n_done > 0
    assert 0 < calls[0] < 200
    assert below(f"{bucket}/scratch") == []
    assert [n for n in below(bucket) if n != "scratch"] == ["in.png", "out.png", "out.png.json"]
    assert np.array_equal(read(fetch(f"{bucket}/out.png", tmp_path / "fetched")), expected)


def test_the_job_stays_until_the_result_is_at_its_place(tmp_path, bucket, prior, monkeypatch):
    words = [*TILES, *BOX]
    expected = alone(tmp_path, prior, words)
    command = ("upscale", f"{bucket}/in.png", "-o", f"{bucket}/out.png", "-n", prior, *words)
    command = (*command, "--work", f"{bucket}/scratch")

    def fail(*_):
        raise OutputError("the network is gone")

    with monkeypatch.context() as patch:
        patch.setattr("sfumato.io.staging.put", fail)
        assert sfumato(*command).code == 1
    on_machine(tmp_path, monkeypatch, "second")
    with monkeypatch.context() as patch:
        calls = stopped_after(0, patch)
        assert sfumato(*command).code == 0
    assert calls == [0], "no tile is restored again"
    assert below(f"{bucket}/scratch") == []
    assert np.array_equal(read(fetch(f"{bucket}/out.png", tmp_path / "fetched")), expected)


def test_restart_keep_job_and_other_settings(tmp_path, bucket, prior):
    command = ("upscale", f"{bucket}/in.png", "-o", "out.png", "-n", prior, *TILES, *BOX)
    command = (*command, "--work", f"{bucket}/scratch")
    assert sfumato(*command, "--keep-job").code == 0
    (name,) = below(f"{bucket}/scratch")
    assert below(f"{bucket}/scratch", name) == ["job.json", "level-0.zarr", "records"]
    assert sorted(p.name for p in Path().iterdir()) == ["out.png", "out.png.json"]
    refused = sfumato(*command, "--seed", 4)
    assert refused.code == 1
    assert f"{bucket}/scratch/{name} was begun with another plan: settings.seed was 0, is 4" in (
        refused.err
    )
    assert refused.err.count("\n") == 1
    assert sfumato(*command, "--seed", 4, "--restart").code == 0
    assert below(f"{bucket}/scratch") == []


def test_a_job_that_is_in_use_is_refused(tmp_path, bucket, prior):
    command = ("upscale", f"{bucket}/in.png", "-o", "out.png", "-n", prior, *TILES, *BOX)
    command = (*command, "--work", f"{bucket}/scratch")
    assert sfumato(*command, "--keep-job").code == 0
    (name,) = below(f"{bucket}/scratch")
    url = f"{bucket}/scratch/{name}"
    with Job.open(url, Job.plan_in(url)):
        refused = sfumato(*command)
    assert refused.code == 1
    assert f"{url} is in use by process {os.getpid()} on " in refused.err
    assert sfumato(*command).code == 0


def test_a_folder_for_the_job_of_a_result_that_stays(tmp_path, bucket, prior, monkeypatch):
    source, out, work = tmp_path / "aside" / "in.png", Path("out.png"), tmp_path / "scratch"
    command = ("upscale", source, "-o", out, "-n", prior, *TILES, *BOX, "--work", work)
    with monkeypatch.context() as patch:
        stopped_after(5, patch)
        assert sfumato(*command).code == 130
    (folder,) = work.iterdir()
    assert [p.name for p in folder.iterdir()] == ["out.png.job"]
    assert list(Path().iterdir()) == []
    assert sfumato(*command).code == 0
    assert list(work.iterdir()) == []
    assert np.array_equal(read(out), alone(tmp_path, prior, [*TILES, *BOX]))


def test_a_dry_run_leaves_nothing_there(tmp_path, bucket, prior):
    source = tmp_path / "aside" / "in.png"
    words = ("-o", "out.png", "-n", prior, *TILES, *BOX, "--work", f"{bucket}/scratch")
    done = sfumato("upscale", source, *words, "--dry-run")
    assert done.code == 0, done.err
    assert below(f"{bucket}/scratch") == []
    assert list(Path().iterdir()) == []


def test_a_folder_of_chunks_that_is_no_result_of_the_job_is_left(tmp_path, bucket, prior):
    """A job may have written on another machine: that says nothing about a name on this one."""
    command = ("upscale", f"{bucket}/in.png", "-o", "out.zarr", "-n", prior, *TILES, *BOX)
    command = (*command, "--work", f"{bucket}/scratch")
    assert sfumato(*command, "--keep-job").code == 0
    (name,) = below(f"{bucket}/scratch")
    with Job.open(url := f"{bucket}/scratch/{name}", Job.plan_in(url)) as job:
        assert job.notes("writing") == [{"on": os.uname().nodename}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "uname", lambda: os.uname_result(["Linux", "another", "", "", ""]))
        refused = sfumato(*command)
    assert "out.zarr exists already" in refused.err
    assert sfumato(*command).code == 0


# Killed from outside, in a process of its own, which writes down what it has done often.

OFTEN = """
from sfumato.pipeline import jobs
jobs._COMMIT_SECONDS = 0.3
from sfumato.cli import app
app()
"""


def commands(root, work, prior, words):
    """Give the command that is killed; each time it is given in another folder."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(folder):
        folder.mkdir()
        line = [sys.executable, "-c", OFTEN, "upscale", f"{root}/in.png"]
        line += ["-o", f"{root}/out.png", "-n", prior, *words, "--work", work]
        return subprocess.Popen(
            [str(w) for w in line], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=-1
        )

    return start


def recorded(work):
    """How much is recorded in the one job that there may be."""
    return sum(
        len(Files(f"{work}/{name}/records").read(part))
        for name in below(work)
        for part in below(f"{work}/{name}", "records")
    )


def killed_and_gone_on_with(tmp_path, start, work, n_kills=4):
    """Kill it a while after it got somewhere, several times, and let the last one end."""
    rng, n_bytes = random.Random(7), [0]
    for k in range(n_kills):
        run = start(tmp_path / f"machine-{k}")
        while run.poll() is None and recorded(work) <= n_bytes[-1]:
            time.sleep(0.1)
        time.sleep(rng.uniform(0, 0.6))
        run.send_signal(signal.SIGKILL)
        run.communicate()
        shutil.rmtree(tmp_path / f"machine-{k}")
        n_bytes.append(recorded(work))
    assert sorted(set(n_bytes[:3])) == n_bytes[:3], "several got somewhere, and none to the end"
    run = start(tmp_path / "last-machine")
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err.decode()
    assert list((tmp_path / "last-machine").iterdir()) == []


SLOWLY = ["--tile", 32, "--overlap", 8, "--steps", 16, "--stitch", "mask-shift", *BOX]


@pytest.mark.slow
def test_kills_with_a_job_that_fsspec_keeps(tmp_path, prior):
    root, work = f"file://{tmp_path}/bucket", f"local://{tmp_path}/bucket/scratch"
    source = write(tmp_path / "aside" / "in.png", photo(120, 90, seed=5))
    put(source, f"{root}/in.png")
    expected = alone(tmp_path, prior, SLOWLY)
    start = commands(root, work, prior, SLOWLY)
    killed_and_gone_on_with(tmp_path, start, work)
    assert np.array_equal(read(tmp_path / "bucket" / "out.png"), expected)
    assert sorted(p.name for p in (tmp_path / "bucket").rglob("*") if p.is_file()) == [
        "in.png", "out.png", "out.png.json",
    ]  # fmt: skip


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """A server of S3 on this machine, where that can be installed; what it needs to be known."""
    if not all(importlib.util.find_spec(name) for name in ("moto", "s3fs", "flask")):
        pytest.skip('needs pip install s3fs "moto[server]"')
    code = """
from moto.server import ThreadedMotoServer
import time
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
print("port", server.get_host_and_port()[1], flush=True)
time.sleep(3600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as server:
        try:
            port = next(line for line in server.stdout if line.startswith(b"port "))
            known = {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(port[5:])}",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            for name, value in known.items():
                monkeypatch.setenv(name, value)
            import s3fs

            s3fs.S3FileSystem.clear_instance_cache()  # they know another server
            s3fs.S3FileSystem().mkdir("bucket")
            yield "s3://bucket"
        finally:
            server.kill()


@pytest.mark.slow
def test_kills_with_a_job_in_a_bucket_of_s3(tmp_path, prior, s3):
    source = write(tmp_path / "aside" / "in.png", photo(120, 90, seed=5))
    put(source, f"{s3}/in.png")
    expected = alone(tmp_path, prior, SLOWLY)
    start = commands(s3, f"{s3}/scratch", prior, SLOWLY)
    killed_and_gone_on_with(tmp_path, start, f"{s3}/scratch")
    assert np.array_equal(read(fetch(f"{s3}/out.png", tmp_path / "fetched")), expected)
    assert below(s3) == ["in.png", "out.png", "out.png.json"]


@pytest.mark.slow
def test_of_two_that_begin_at_once_in_a_bucket_of_s3_one_is_refused(tmp_path, prior, s3):
    put(write(tmp_path / "in.png", photo(120, 90, seed=5)), f"{s3}/in.png")
    start = commands(s3, f"{s3}/scratch", prior, SLOWLY)
    runs = [start(tmp_path / name) for name in ("a", "b", "c")]
    said = [run.communicate(timeout=300)[1].decode() for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 1, 1], said
    assert sum("is in use by process" in line for line in said) == 2
