"""A thread for the network changes no bit, hides reading and writing, and leaves in the end."""

import threading
import time
from contextlib import contextmanager
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


class Seen:
    """When the network was at work, and when windows were read or written: (began, ended)."""

    def __init__(self):
        self.network, self.others = [], []

    @contextmanager
    def noted(self, spans, seconds):
        began = time.monotonic()
        time.sleep(seconds)
        yield
        spans.append((began, time.monotonic()))

    def at_once(self):
        """How many readings and writings went on beside the network."""
        return sum(any(a < d and c < b for c, d in self.network) for a, b in self.others)


class Slow:
    """A level that takes its time to be read."""

    def __init__(self, level: Level, seen):
        self._level, self._seen = level, seen

    def __getattr__(self, name):
        return getattr(self._level, name)

    def at(self, *where):
        with self._seen.noted(self._seen.others, 0.02):
            return self._level.at(*where)


class SlowCanvas(TensorCanvas):
    """A canvas that takes its time to be written on."""

    def __init__(self, shape, device, seen):
        super().__init__(shape, device)
        self._seen = seen

    def write(self, window, x):
        with self._seen.noted(self._seen.others, 0.01):
            super().write(window, x)


def slow(x, sigma):
    time.sleep(0.01)
    return shrink(x, sigma)


def test_the_network_does_not_wait_for_reading_and_writing():
    images = []
    for in_thread in (False, True):
        seen = Seen()

        def watched(x, sigma, seen=seen):
            with seen.noted(seen.network, 0.01):
                return shrink(x, sigma)

        e, level, plan = case(batch=1, denoiser=watched)
        e = replace(e, executor=InThread()) if in_thread else e
        canvas = SlowCanvas(level.shape, "cpu", seen)
        result(e.tile_by_tile(Slow(level, seen), plan, canvas))
        images.append(canvas.x)
        assert len(seen.others) >= 2 * len(plan.tiles)
        if in_thread:
            assert seen.at_once() > len(seen.others) / 2
        else:
            assert seen.at_once() == 0
    assert torch.equal(*images)


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
