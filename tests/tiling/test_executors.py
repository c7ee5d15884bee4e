"""Work by others has the bits of work in this process, whoever dies in between."""

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass, replace
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import engine, level_of, plan_of, plus, result, shrink

from sfumato.diffusion import NoiseField
from sfumato.errors import SettingsError, SfumatoError, WorkerError
from sfumato.guidance import DDNM
from sfumato.operators import AveragePool, Window, random_mask
from sfumato.samplers import DDIM, DDPM, DPMSolverPP2M
from sfumato.tiling import Local, TileTask
from sfumato.tiling.executor import Executor
from sfumato.tiling.on_ray import OnRay
from sfumato.tiling.pool import Bench, Crew, Died, Pool, order
from sfumato.tiling.processes import Processes
from sfumato.tiling.wire import pack, unpack

LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it looks at /proc")


def exact(m):
    return DDNM(m)


def failing(x, sigma):
    raise SettingsError("a picture of a cat", expected="a dog")


class UnsendableError(Exception):
    def __init__(self, one, two):
        super().__init__(one + two)


def unsendable(x, sigma):
    raise UnsendableError("it is ", "a cat")


def warning(x, sigma):
    warnings.warn("it may be a cat", UserWarning, stacklevel=1)
    return shrink(x, sigma)


def deadly(x, sigma):
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Leaving:
    """A denoiser whose worker leaves its process id in a folder, and takes its time."""

    folder: Path
    seconds: float = 0.0

    def __call__(self, x, sigma):
        (self.folder / str(os.getpid())).touch()
        time.sleep(self.seconds)
        return shrink(x, sigma)


def case(make=AveragePool, *, shape=(3, 48, 56), batch=2, order="raster", **what):
    """Return an engine, a level and a plan, and what this process makes of them."""
    A = make(shape, 2) if make is AveragePool else make(shape, 0.5)
    level, plan = level_of(A, sigma_y=0.1 if what.get("method") is plus else 0.0), plan_of(A, 16)
    e = engine(batch=batch, **({"method": exact} | what))
    return e, level, replace(plan, order=order)


def same(e, level, plan, executor, stitch="mask-shift"):
    """Restore in this process and by others; compare the bits, and the progress."""
    expected, _ = result(e.restore(level, plan, stitch))
    x, progress = result(replace(e, executor=executor).restore(level, plan, stitch))
    done = [p.done for p in progress]
    assert done == sorted(done)
    assert done[-1] == progress[-1].total == e.n_steps * len(plan.tiles)
    assert torch.equal(x, expected)


# What goes over.


@given(
    st.sampled_from([torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.complex64]),
    st.lists(st.integers(0, 5), max_size=4),
    st.randoms(use_true_random=False),
)
def test_tensors_arrive_as_they_are_seen(dtype, shape, chance):
    whole = torch.arange(8**4).reshape(8, 8, 8, 8)[(0,) * (4 - len(shape))]
    axes = chance.sample(range(len(shape)), len(shape))
    whole = (whole % 2 == 0) if dtype == torch.bool else whole.to(dtype)
    seen = whole.permute(axes)[tuple(slice(chance.randint(0, 3), None) for _ in shape)]
    seen = seen[tuple(slice(0, n) for n in shape)]
    packed = pack([seen, seen])
    assert sum(t.nbytes for t in packed.tensors) == seen.numel() * seen.element_size()
    one, two = unpack(packed)
    assert one is two
    assert one.dtype == seen.dtype
    assert torch.equal(one, seen)
    assert one.stride() == seen.clone().stride()
    assert one.data_ptr() % 64 == 0


def test_what_is_packed_is_a_copy():
    x = torch.zeros(3)
    before = pack(x)
    assert before.equals(pack(x))
    x += 1
    assert not before.equals(pack(x))
    assert torch.equal(unpack(before), torch.zeros(3))


def test_networks_keep_the_order_of_their_memory():
    net = torch.nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last).requires_grad_(False)
    copy = unpack(pack(net))
    assert copy.weight.stride() == net.weight.stride()
    assert not copy.weight.requires_grad
    x = torch.rand(1, 8, 9, 9)
    assert torch.equal(copy(x), net(x))


def test_tensors_move_along_with_the_restorer():
    """Those on its device go to the worker's, constants on the CPU stay; meta plays a GPU."""
    x, y = torch.zeros(2), torch.zeros(2, device="meta")
    assert unpack(pack(x), "meta").device.type == "meta"
    assert unpack(pack(x, "meta"), "meta").device.type == "cpu"
    assert unpack(pack(x, "meta")).device.type == "cpu"
    assert unpack(pack(torch.empty(0), "cpu")).shape == (0,)
    with pytest.raises(NotImplementedError):
        pack(y, "meta")  # It has no data to send, but it was to be sent.


# Who gets which batch.


class Imagined:
    """A crew in this process: it answers and dies as chance has it."""

    def __init__(self, n_seats, seed, deadliness=0.0, most=2):
        self.n_seats, self.chance = n_seats, random.Random(seed)
        self.deadliness, self.most = deadliness, most
        self.warned, self.deaths, self.in_a_row = [], 0, [0] * n_seats

    @property
    def threads(self):
        return torch.get_num_threads()

    def begin(self, restorer):
        self.order, self.seats = order(restorer, None), {}
        for seat in range(self.n_seats):
            self.hire(seat)
        self.pool = Pool(self, self.n_seats, restorer, self.warned.append)

    def free(self):
        return self.pool.free()

    def submit(self, tasks):
        self.pool.submit(tasks)

    def wait(self):
        return self.pool.wait()

    def close(self):
        self.seats = {}

    def name(self, seat):
        return f"worker {seat}"

    def hire(self, seat):
        assert seat not in self.seats
        self.seats[seat] = Bench(self.order, "cpu"), []

    def send(self, seat, batch):
        bench, works = self.seats[seat]
        works.append(bench.restore(batch))
        assert len(works) <= 2

    def listen(self, seats):
        assert seats, "there is something to wait for"
        heard = []
        for seat in self.chance.sample(list(seats), self.chance.randint(1, len(seats))):
            if self.chance.random() < self.deadliness and self.in_a_row[seat] < self.most:
                self.deaths += 1
                self.in_a_row[seat] += 1
                heard.append((seat, Died("of old age")))
                continue
            answer = next(self.seats[seat][1][0])
            if answer.kind == "finished":
                self.seats[seat][1].pop(0)
                self.in_a_row[seat] = 0
            heard.append((seat, answer))
        return heard

    def dismiss(self, seat):
        del self.seats[seat]


@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from(["raster", "reverse", "centre"]),
    st.sampled_from([DDPM(), DDIM(0.85), DPMSolverPP2M()]),
    st.sampled_from([AveragePool, random_mask]),
    st.sampled_from(["mask-shift", "independent"]),
    st.integers(0, 10**6),
)
@settings(max_examples=12)
def test_whoever_dies_the_bits_are_the_same(n, batch, order, sampler, make, stitch, seed):
    crew = Imagined(n, seed, deadliness=0.1)
    assert isinstance(crew, Executor)
    assert isinstance(crew, Crew)
    e, level, plan = case(
        make, shape=(3, 26, 38), batch=batch, order=order, sampler=sampler, n_steps=2
    )
    same(e, level, plan, crew, stitch)
    assert len(crew.warned) == crew.deaths
    assert all("restored again" in line and "\n" not in line for line in crew.warned)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_three_deaths_in_a_row_are_enough(n):
    e, level, plan = case()
    crew = Imagined(n, 0, deadliness=1.0, most=3)
    with pytest.raises(WorkerError, match="died 3 times in a row, at last of old age") as caught:
        result(replace(e, executor=crew).restore(level, plan, "mask-shift"))
    assert isinstance(caught.value, SfumatoError)
    assert "\n" not in str(caught.value)
    assert len(crew.warned) == crew.deaths - 1 <= 2 * n


def test_a_batch_goes_to_the_worker_who_is_free_first():
    whole = Window(0, 0, 8, 8)
    task = TileTask(0, whole, (whole,), (3, 8, 8), NoiseField(0), Local())
    crew = Imagined(2, 0)
    crew.begin(engine(method=exact).restorer)
    for n in (3, 1, 1):
        assert crew.free()
        crew.submit([task] * n)
    assert [len(works) for _, works in crew.seats.values()] == [1, 2]
    crew.submit([task])
    assert not crew.free()


@pytest.mark.parametrize("denoiser", [failing, unsendable])
def test_what_a_task_raises_is_raised(denoiser):
    e, level, plan = case(denoiser=denoiser)
    kind = SettingsError if denoiser is failing else RuntimeError
    tiles = replace(e, executor=Imagined(2, 0))
    with pytest.raises(kind, match="a cat") as caught:
        result(tiles.restore(level, plan, "mask-shift"))
    assert denoiser.__name__ in caught.value.__notes__[0]


def test_what_a_task_warns_of_is_warned_of():
    e, level, plan = case(denoiser=warning)
    with pytest.warns(UserWarning, match="it may be a cat"):
        x, _ = result(replace(e, executor=Imagined(2, 0)).restore(level, plan, "mask-shift"))
    expected, _ = result(
        replace(e, restorer=replace(e.restorer, denoiser=shrink)).restore(
            level, plan, "mask-shift"
        )
    )
    assert torch.equal(x, expected)


# Processes.


def left(folder):
    """Return the process ids that were left in a folder."""
    return [int(p.name) for p in folder.iterdir()]


def killing(e, level, plan, executor, folder, moments):
    """Restore, and kill a worker at each of these moments of the progress.

    Where none has begun yet in the place of one that was killed, the next one that does.
    """
    restoration = replace(e, executor=executor).restore(level, plan, "mask-shift")
    killed, done = [], []
    try:
        while True:
            done.append(next(restoration).done)
            alive = [p for p in left(folder) if p not in killed]
            if alive and len(killed) < sum(m <= len(done) for m in moments):
                pid = random.Random(len(done)).choice(alive)
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
    except StopIteration as stop:
        assert done[-1] == e.n_steps * len(plan.tiles)
        assert done == sorted(done)
        return stop.value, killed


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_processes_have_the_same_bits_may_be_killed_and_raise(tmp_path, two_threads):
    lines = []
    with Processes(["cpu", "cpu"], warned=lines.append) as workers:
        assert isinstance(workers, Executor)
        for batch, what in ((1, {"method": plus}), (7, {"sampler": DDPM()})):
            same(*case(batch=batch, **what), workers)
            assert torch.get_num_threads() == 2, "they are given back"
        kept = {p.pid for p in active_children()}
        assert len(kept) == 2
        e, level, plan = case(denoiser=Leaving(tmp_path, 0.001))
        x, killed = killing(e, level, plan, workers, tmp_path, [9])
        assert torch.equal(x, result(e.restore(level, plan, "mask-shift"))[0])
        assert set(killed) < kept
        assert len(lines) == 1
        assert "died (killed by SIGKILL)" in lines[0]
        e, level, plan = case(denoiser=failing)
        with pytest.raises(SettingsError) as caught:
            result(replace(e, executor=workers).restore(level, plan, "mask-shift"))
        assert str(caught.value) == "a picture of a cat; expected a dog"
        assert "in failing" in caught.value.__notes__[0]
    assert not active_children()


def test_what_cannot_be_is_refused(monkeypatch):
    for wrong in ({"devices": []}, {"devices": ["toaster"]}, {"devices": ["cuda:99"]}):
        with pytest.raises(SettingsError):
            Processes(**wrong)
    e, level, plan = case()
    with pytest.raises(SettingsError, match="0 threads"):
        result(replace(e, executor=Processes(threads=0)).restore(level, plan, "mask-shift"))
    unnamed, level, plan = case(method=lambda m: DDNM(m))
    with pytest.raises(Exception, match="lambda"):
        result(replace(unnamed, executor=Processes()).restore(level, plan, "mask-shift"))
    assert not active_children()
    for wrong in ({"n_workers": 0}, {"gpus_per_worker": -1.0}):
        with pytest.raises(SettingsError):
            OnRay(**wrong)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'sfumato\[ray\]'"):
        OnRay()


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3])
def test_processes_are_killed_at_any_moment(n, tmp_path):
    chance, lines = random.Random(n), []
    with Processes(["cpu"] * n, warned=lines.append) as workers:
        for k in range(4):
            folder = tmp_path / str(k)
            folder.mkdir()
            e, level, plan = case(denoiser=Leaving(folder, 0.001), batch=1 + k)
            expected, steps = result(e.restore(level, plan, "mask-shift"))
            for pid in left(folder):
                (folder / str(pid)).unlink()
            moments = chance.sample(range(3, len(steps) // 2), 2)
            x, killed = killing(e, level, plan, workers, folder, moments)
            assert torch.equal(x, expected)
            assert len(killed) == 2
    assert len(lines) >= 6


@pytest.mark.slow
def test_processes_that_always_die_are_given_up():
    e, level, plan = case(denoiser=deadly)
    lines = []
    workers = Processes(warned=lines.append)
    with pytest.raises(WorkerError, match="3 times in a row, at last killed by SIGKILL"):
        result(replace(e, executor=workers).restore(level, plan, "mask-shift"))
    assert len(lines) == 2
    assert not active_children()


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from test_executors import Leaving, case, result
from sfumato.tiling.processes import Processes
e, level, plan = case(denoiser=Leaving(Path(sys.argv[1]), 0.05))
print("begins", flush=True)
result(replace(e, executor=Processes(["cpu", "cpu"])).restore(level, plan, "mask-shift"))
"""


def started(folder):
    """Start a restoration by two processes in a session of its own."""
    here = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, folder],
        env=os.environ | {"PYTHONPATH": here},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert script.stdout.readline() == "begins\n"
    return script


def in_session(session):
    """List the living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def await_workers(script, folder, moment):
    """Wait until two workers work, or until they are being started."""
    if moment == "at work":
        until(lambda: len(left(folder)) == 2)
    else:
        until(lambda: len(in_session(script.pid)) > 2)


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("moment", ["at work", "at the start"])
def test_processes_end_with_a_parent_that_is_killed(tmp_path, moment):
    with started(tmp_path) as script:
        await_workers(script, tmp_path, moment)
        script.kill()
        script.communicate()
    until(lambda: not in_session(script.pid))


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("moment", ["at work", "at the start"])
def test_an_interrupt_is_answered_by_the_parent_alone(tmp_path, moment):
    with started(tmp_path) as script:
        await_workers(script, tmp_path, moment)
        time.sleep(0.3)
        os.killpg(script.pid, signal.SIGINT)
        _, said = script.communicate(timeout=60)
    assert script.returncode == -signal.SIGINT
    assert said.count("Traceback") == said.count("KeyboardInterrupt") == 1
    until(lambda: not in_session(script.pid))


# Ray.


@pytest.mark.slow
@LINUX
def test_on_ray_the_bits_are_the_same_and_actors_may_be_killed(tmp_path):
    ray = pytest.importorskip("ray")
    lines = []
    with OnRay(2, warned=lines.append) as workers:
        assert isinstance(workers, Executor)
        for batch, what in ((1, {"method": plus}), (7, {"sampler": DDPM()})):
            same(*case(batch=batch, **what), workers)
        e, level, plan = case(denoiser=Leaving(tmp_path, 0.001))
        x, killed = killing(e, level, plan, workers, tmp_path, [9, 21])
        assert torch.equal(x, result(e.restore(level, plan, "mask-shift"))[0])
        assert len(killed) == len(lines) == 2
        failed, level, plan = case(denoiser=failing)
        with pytest.raises(SettingsError, match=r"^a picture of a cat; expected a dog"):
            result(replace(failed, executor=workers).restore(level, plan, "mask-shift"))
        dead, level, plan = case(denoiser=deadly)
        with pytest.raises(WorkerError, match="3 times in a row"):
            result(replace(dead, executor=workers).restore(level, plan, "mask-shift"))
        same(*case(), workers)
    assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1", "localhost:harbour"])
def test_a_ray_that_is_not_there_is_missed(address):
    ray = pytest.importorskip("ray")
    e, level, plan = case()
    with pytest.raises(SettingsError, match="no Ray at"):
        result(replace(e, executor=OnRay(1, address)).restore(level, plan, "mask-shift"))
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_ray_that_is_there_already_is_used_and_left():
    ray = pytest.importorskip("ray")
    ray.init(address="local", include_dashboard=False, num_cpus=2, logging_level="ERROR")
    try:
        same(*case(), OnRay())
        assert ray.is_initialized()
        with pytest.raises(SettingsError, match="at most 2"):
            result(replace(case()[0], executor=OnRay(3)).restore(*case()[1:], "mask-shift"))
        assert ray.is_initialized()
    finally:
        ray.shutdown()
