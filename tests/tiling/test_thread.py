"""A thread for the network changes no bit, hides reading and writing, and leaves in the end."""

import threading
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import engine, level_of, plan_of, plus, result, shrink

from sfumato.errors import SettingsError
from sfumato.operators import AveragePool
from sfumato.samplers import DDPM, DPMSolverPP2M
from sfumato.tiling import Executor, Level, TensorCanvas
from sfumato.tiling.thread import InThread, own_executor


def case(seed=0, batch=2, order="raster", **what):
    A = AveragePool((3, 48, 56), 2)
    return engine(batch=batch, **what), level_of(A, seed=seed), plan_of(A, 16, order=order)


def at_work():
    return [t for t in threading.enumerate() if t.name == "sfumato network"]


@given(
    st.integers(1, 7),
    st.sampled_from(["raster", "centre", "reverse"]),
    st.sampled_from(["mask-shift", "independent", "joint"]),
    st.sampled_from([{}, {"sampler": DDPM()}, {"method": plus}, {"sampler": DPMSolverPP2M()}]),
    st.sampled_from([1, 2, 4]),
)
@settings(max_examples=25)
def test_the_bits_are_those_of_one_thread(batch, order, stitch, what, micro_batch):
    if "sampler" in what and isinstance(what["sampler"], DPMSolverPP2M):
        what = what | {"travel": (1, 1)}
    e, level, plan = case(batch=batch, order=order, micro_batch=micro_batch, **what)
    expected, _ = result(e.restore(level, plan, stitch))
    beside = replace(e, executor=InThread())
    x, progress = result(beside.restore(level, plan, stitch))
    assert torch.equal(x, expected)
    done = [p.done for p in progress]
    assert done == sorted(done)
    assert done[-1] == progress[-1].total == e.n_steps * len(plan.tiles)
    assert not at_work()


class Slow:
    """A level that takes its time to be read."""

    def __init__(self, level: Level, seconds):
        self._level, self._seconds = level, seconds

    def __getattr__(self, name):
        return getattr(self._level, name)

    def at(self, *where):
        time.sleep(self._seconds)
        return self._level.at(*where)


class SlowCanvas(TensorCanvas):
    """A canvas that takes its time to be written on."""

    def write(self, window, x):
        time.sleep(0.01)
        super().write(window, x)


def slow(x, sigma):
    time.sleep(0.01)
    return shrink(x, sigma)


def test_the_network_does_not_wait_for_reading_and_writing():
    e, level, plan = case(batch=1, denoiser=slow)
    seconds, images = [], []
    for executor in (e.executor, InThread()):
        canvas = SlowCanvas(level.shape, "cpu")
        began = time.monotonic()
        work = replace(e, executor=executor).tile_by_tile(Slow(level, 0.02), plan, canvas)
        result(work)
        seconds.append(time.monotonic() - began)
        images.append(canvas.x)
    assert torch.equal(*images)
    busy = 0.01 * e.n_steps * len(plan.tiles)
    assert seconds[0] > 1.8 * busy
    assert seconds[1] < 0.75 * seconds[0]


def failing(x, sigma):
    raise SettingsError("a picture of a cat", expected="a dog")


def test_what_a_task_raises_is_raised_and_the_thread_ends():
    e, level, plan = case(denoiser=failing)
    with pytest.raises(SettingsError, match="a cat; expected a dog"):
        result(replace(e, executor=InThread()).restore(level, plan, "mask-shift"))
    assert not at_work()


@pytest.mark.parametrize("n", [0, 1, 5])
def test_whoever_stops_in_the_middle_leaves_no_thread(n):
    e, level, plan = case(denoiser=slow)
    work = replace(e, executor=InThread()).restore(level, plan, "mask-shift")
    for _ in range(n):
        next(work)
    work.close()
    assert not at_work()


def test_torch_is_in_the_thread_as_it_is_here():
    seen = []

    def looking(x, sigma):
        seen.append((torch.is_grad_enabled(), torch.get_num_threads()))
        return shrink(x, sigma)

    for gradients in (True, False):
        e, level, plan = case(denoiser=looking, threads=1)
        with torch.set_grad_enabled(gradients):
            result(replace(e, executor=InThread()).restore(level, plan, "mask-shift"))
        assert set(seen) == {(gradients, 1)}
        seen.clear()


def test_a_gpu_has_a_thread_and_a_processor_has_none():
    assert isinstance(own_executor("cuda:1"), InThread)
    assert not isinstance(own_executor("cpu"), InThread)
    assert isinstance(InThread(), Executor)
