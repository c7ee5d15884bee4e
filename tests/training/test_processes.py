"""Several processes train what one would: each takes its part of every step."""

import itertools
import os
import subprocess
import sys
import threading
from importlib.util import find_spec

import pytest
import torch

from sfumato.errors import SettingsError
from sfumato.io import load_checkpoint
from sfumato.training import (
    Alone,
    Finished,
    PriorSettings,
    Processes,
    Saved,
    Schedule,
    Stepped,
    Stopped,
    Together,
    train_prior,
)

TINY = PriorSettings(
    channels=(4, 8),
    blocks=1,
    embedding=8,
    steps=6,
    warmup_steps=3,
    crop_cycle=(16, 8),
    batch_pixels=5 * 16 * 16,
    halvings=1,
    learning_rate=1e-3,
    precision="fp32",
    seed=5,
    rounds_share=0.4,
    rounds_counts=(2,),
    rounds_degradations=("average_pool:2", "grayscale"),
)


class Threads(Processes):
    """Threads that stand for processes: they meet at a barrier and add up what they bring."""

    def __init__(self, rank, size, brought, barrier):
        self.rank, self.size, self._brought, self._barrier = rank, size, brought, barrier

    def add(self, x):
        self._brought[self.rank] = x
        self._barrier.wait(60)
        total = sum(self._brought)
        self._barrier.wait(60)
        return total

    def wait(self):
        self._barrier.wait(60)

    def leave(self):
        pass


def train_in_threads(size, settings, data, out, schedule=Schedule):
    """Train in so many threads; return the events of each."""
    barrier, brought, events = threading.Barrier(size), [None] * size, [None] * size

    def one(rank):
        try:
            processes = Threads(rank, size, brought, barrier)
            events[rank] = list(
                train_prior(settings, data, out, schedule=schedule(processes=processes))
            )
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return events


def states(*folders):
    return [load_checkpoint(folder / "state.safetensors")[0] for folder in folders]


def assert_close(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=3e-5, msg=name)


@pytest.fixture(scope="module")
def alone(photographs, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    return out, list(train_prior(TINY, photographs, out))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_cover_every_example_once(size):
    for n in range(20):
        parts = [Threads(rank, size, None, None).share(n) for rank in range(size)]
        examples = [k for first, count in parts for k in range(first, first + count)]
        assert examples == list(range(n))
        counts = [count for _, count in parts]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("size", [2, 7])
def test_processes_together_train_what_one_would(alone, photographs, tmp_path, size):
    """7 processes have 5 examples in some steps, so that one has none."""
    out, single = alone
    events = train_in_threads(size, TINY, photographs, tmp_path)
    assert_close(*states(out, tmp_path))
    losses = [[e.loss for e in some if isinstance(e, Stepped)] for some in (*events, single)]
    assert losses[0] == losses[1]
    assert losses[0] == pytest.approx(losses[-1], rel=1e-3)
    assert all(isinstance(some[-1], Finished) for some in events)


def test_processes_stop_together_and_go_on_to_the_same_bits(alone, photographs, tmp_path):
    """Where one is asked to stop, all do, at the same step; also as one alone afterwards."""
    asked = itertools.count(1)

    def schedule(processes):
        stop = (lambda: next(asked) >= 3) if processes.rank == 1 else (lambda: False)
        return Schedule(processes=processes, stop=stop, save_minutes=1e9)

    events = train_in_threads(2, TINY, photographs, tmp_path / "a", schedule)
    assert [some[-1] for some in events] == [Stopped(3)] * 2
    assert [e.step for e in events[0] if isinstance(e, Saved)] == [3]
    train_in_threads(2, TINY, photographs, tmp_path / "a")
    train_in_threads(2, TINY, photographs, tmp_path / "b")
    a, b = states(tmp_path / "a", tmp_path / "b")
    assert all(torch.equal(a[k], b[k]) for k in b)
    assert_close(a, states(alone[0])[0])


def test_the_clock_of_the_main_process_counts(photographs, tmp_path):
    """The others' minutes are over, and their time to save has come, at once."""

    def schedule(processes):
        minutes = 1e9 if processes.main else 0
        return Schedule(processes=processes, save_minutes=minutes, stop_minutes=minutes)

    for some in train_in_threads(2, TINY, photographs, tmp_path, schedule):
        assert [e.step for e in some if isinstance(e, Saved)] == [TINY.steps]
        assert isinstance(some[-1], Finished)


def test_one_process_needs_nobody():
    processes = Alone()
    assert processes.share(5) == (0, 5)
    assert processes.any(True, False) == [True, False]


def test_without_accelerate_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr("sfumato.training.processes.installed", lambda name: False)
    with pytest.raises(SettingsError, match=r'pip install "sfumato\[train\]"'):
        Together()


RECIPE = """
[[stage]]
channels = [4, 8]
blocks = 1
embedding = 8
steps = 3
warmup_steps = 3
crop_cycle = [16, 8]
batch_pixels = 1280
halvings = 1
learning_rate = 1e-3
precision = "fp32"
[[stage]]
channels = [4, 8]
blocks = 1
embedding = 8
steps = 2
crop_cycle = [16]
batch_pixels = 1280
halvings = 1
learning_rate = 1e-3
precision = "fp32"
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate is not installed")
def test_accelerate_launches_two_processes_that_train_what_one_would(photographs, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes=2"]
    for name, how in (("one", []), ("two", [*launch, "--main_process_port=0"])):
        options = ["--recipe", tmp_path / "recipe.toml", "--out", tmp_path / name]
        paths = ["--data", photographs, "--holdout", photographs, "--device", "cpu"]
        done = subprocess.run(
            [sys.executable, *how, "-m", "sfumato", "train", "prior", *paths, *options],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("The model is") == 2, "the main process alone tells"
    assert_close(*states(tmp_path / "one", tmp_path / "two"))
    assert_close(*states(tmp_path / "one" / "stage-1", tmp_path / "two" / "stage-1"))
