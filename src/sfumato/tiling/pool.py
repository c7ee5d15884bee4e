"""Work by others: who gets which batch, what they do with it, and what is done again.

A worker has a copy of the restorer. It works on one batch while the next one waits at its side.
Workers may die at any moment (out of memory, say): since a result depends on its task alone, what
they had is done again and has the same bits.
"""

from __future__ import annotations

import pickle
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, final, runtime_checkable

import torch

from sfumato._events import Told
from sfumato._typing import Images
from sfumato.errors import SettingsError, WorkerError
from sfumato.tiling.executor import Waiting
from sfumato.tiling.heap import keep_freed
from sfumato.tiling.tasks import Restorer, TileTask
from sfumato.tiling.wire import Packed, pack, unpack

#: Deaths in one seat without a finished batch in between, after which nobody else is hired.
_DEATHS = 3
#: A worker has one batch in work and one at its side.
_IN_FLIGHT = 2


@dataclass(frozen=True)
class Numerics:
    """What decides bits besides the task: workers take it over from the process that sends it."""

    threads: int
    gradients: bool
    matmul_precision: str
    #: Whether deterministic algorithms are asked for, and whether others only warn.
    deterministic: tuple[bool, bool]
    #: Whether cuDNN looks for the fastest algorithm, and among the deterministic ones only.
    cudnn: tuple[bool, bool]

    @classmethod
    def here(cls, threads: int | None = None) -> Numerics:
        """Return those of this process, with another number of threads if one is given."""
        if threads is not None and threads < 1:
            raise SettingsError(f"{threads} threads for each worker", expected="at least 1")
        return cls(
            threads or torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.get_float32_matmul_precision(),
            (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        )

    def apply(self) -> None:
        """Make them those of this thread and its process."""
        torch.set_num_threads(self.threads)
        torch.set_grad_enabled(self.gradients)
        torch.set_float32_matmul_precision(self.matmul_precision)
        torch.use_deterministic_algorithms(self.deterministic[0], warn_only=self.deterministic[1])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = self.cudnn


def order(restorer: Restorer, threads: int | None) -> Packed:
    """Return what a ``Bench`` is made of."""
    return pack((restorer, Numerics.here(restorer.threads or threads)), restorer.device)


@dataclass(frozen=True)
class Answer:
    """What a worker says of the oldest batch that it has.

    ``counted``: so many evaluations more. ``finished``: images, and warnings as (text, category).
    ``failed``: the error.
    """

    kind: Literal["counted", "finished", "failed"]
    packed: Packed


@dataclass(frozen=True)
class Died:
    """A worker is no more."""

    how: str


class Bench:
    """Where a worker works: a device, and from the first batch on a restorer there."""

    def __init__(self, order: Packed, device: str) -> None:
        self._order: Packed | None = order
        self._device = device
        keep_freed()
        self._ready: tuple[Restorer, Numerics] | None = None

    def restore(self, batch: Packed) -> Iterator[Answer]:
        """Restore a batch; the last answer is that it is finished, or has failed."""
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                work = Told(self._restorer().restore(unpack(batch, self._device)))
                for n in work:
                    yield Answer("counted", pack(n))
            news = sorted({(str(w.message), w.category) for w in caught}, key=str)
            yield Answer("finished", pack((work.outcome, news), self._device))
        except Exception as error:  # Not swallowed: it is raised where the batch came from.
            yield Answer("failed", pack(_portable(error)))

    def _restorer(self) -> Restorer:
        if self._order is not None:
            restorer, numerics = unpack(self._order, self._device)
            self._ready = replace(restorer, device=self._device), numerics
            self._order = None
        assert self._ready is not None, "it is made of its order"
        self._ready[1].apply()
        return self._ready[0]


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent: itself, or its words where it cannot."""
    error.add_note("In a worker:\n" + "".join(traceback.format_exception(error)).rstrip())
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:  # Foreign classes may raise anything here.
        copy = None
    if type(copy) is type(error) and str(copy) == str(error):
        return error
    words = RuntimeError(f"{type(error).__name__}: {error}")
    words.__notes__ = error.__notes__
    return words


@runtime_checkable
class Crew(Protocol):
    """Workers, each in a numbered seat."""

    def name(self, seat: int) -> str:
        """Name a worker, for those who are told of it."""

    def hire(self, seat: int) -> None:
        """Start a worker with the restorer, in a seat that is empty."""

    def send(self, seat: int, batch: Packed) -> None:
        """Put a batch at a worker's side; no error if it is dead."""

    def listen(self, seats: Collection[int]) -> Sequence[tuple[int, Answer | Died]]:
        """Wait until workers in these seats answer, or are found dead."""

    def dismiss(self, seat: int) -> None:
        """End a worker at once, dead or alive."""


@dataclass
class _Batch:
    tasks: Sequence[TileTask]
    #: Evaluations left to the worker that has it now, and those that nobody was told of yet.
    left: int
    untold: int

    def count(self, n: int) -> int:
        """Note ``n`` evaluations; return how many of them no dead worker had done before."""
        self.left -= n
        news = max(0, self.untold - self.left)
        self.untold -= news
        return news


@dataclass
class _Seat:
    batches: deque[_Batch] = field(default_factory=deque)
    #: Workers who died here since the last batch was finished.
    deaths: int = 0

    @property
    def left(self) -> int:
        """Evaluations left."""
        return sum(b.left for b in self.batches)


@final
class Pool:
    """Hands batches to a crew, and does again what its dead had. See ``Executor``.

    Raises WorkerError when three workers in a row died in a seat without a finished batch.
    """

    def __init__(
        self, crew: Crew, n_seats: int, restorer: Restorer, warned: Callable[[str], None]
    ) -> None:
        self._crew = crew
        self._seats = [_Seat() for _ in range(n_seats)]
        self._n_steps, self._home = restorer.n_steps, restorer.device
        self._warned = warned
        self._threads = torch.get_num_threads()
        # The cores are the workers': what is left to do here is little, and others would only
        # spin for a turn.
        torch.set_num_threads(1)

    def close(self) -> None:
        """Give this process its threads back."""
        torch.set_num_threads(self._threads)

    def busy(self, seat: int) -> bool:
        """Whether the worker in a seat has a batch."""
        return bool(self._seats[seat].batches)

    def free(self) -> int:
        """Return how many batches more the workers can hold."""
        return sum(_IN_FLIGHT - len(s.batches) for s in self._seats)

    def submit(self, tasks: Sequence[TileTask]) -> None:
        """Give a batch to the worker who will be the first to begin it."""
        n = self._n_steps * len(tasks)
        able = [k for k, s in enumerate(self._seats) if len(s.batches) < _IN_FLIGHT]
        k = min(able, key=lambda k: self._seats[k].left)
        self._seats[k].batches.append(_Batch(tasks, n, n))
        self._crew.send(k, pack(tasks, self._home))

    def wait(self) -> Waiting:
        """Wait until a batch is finished; replace workers who die."""
        finished: list[tuple[TileTask, Images]] = []
        while not finished:
            busy = [k for k in range(len(self._seats)) if self.busy(k)]
            assert busy, "submit() comes first"
            for k, answer in self._crew.listen(busy):
                if isinstance(answer, Died):
                    self._replace(k, answer.how)
                    continue
                content = unpack(answer.packed, self._home)
                if answer.kind == "failed":
                    raise content
                if answer.kind == "finished":
                    finished += self._finish(self._seats[k], *content)
                elif news := self._seats[k].batches[0].count(content):
                    yield news
        return finished

    def _finish(
        self, seat: _Seat, images: Sequence[Images], news: Sequence[tuple[str, type[Warning]]]
    ) -> list[tuple[TileTask, Images]]:
        for text, category in news:
            warnings.warn(text, category, stacklevel=3)
        seat.deaths = 0
        return list(zip(seat.batches.popleft().tasks, images, strict=True))

    def _replace(self, k: int, how: str) -> None:
        """Put a new worker in the place of a dead one, with the same batches."""
        seat, name = self._seats[k], self._crew.name(k)
        self._crew.dismiss(k)
        seat.deaths += 1
        if seat.deaths >= _DEATHS:
            raise WorkerError(
                f"{name} died {seat.deaths} times in a row, at last {how}",
                do="if memory was short, take fewer workers, a smaller --batch or --tile",
            )
        again = "its batch is" if len(seat.batches) == 1 else "its batches are"
        self._warned(f"{name} died ({how}); {again} restored again by another one")
        self._crew.hire(k)
        for batch in seat.batches:
            batch.left = self._n_steps * len(batch.tasks)
            self._crew.send(k, pack(batch.tasks, self._home))
