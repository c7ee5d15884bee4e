"""Work in another thread of this process, so that a GPU never waits for reading or writing."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeAlias, final

import torch

from sfumato._typing import Images
from sfumato.tiling.executor import Executor, InProcess, Waiting
from sfumato.tiling.pool import Numerics
from sfumato.tiling.tasks import Restorer, TileTask

_Batch: TypeAlias = Sequence[TileTask]

#: One batch in work, and one at its side.
_IN_FLIGHT = 2


@dataclass(frozen=True)
class _Failed:
    """What was raised in the thread."""

    error: BaseException


#: So many evaluations more, the images of the oldest batch, or an error.
_News: TypeAlias = "int | list[Images] | _Failed"


@final
class InThread:
    """Work in a thread beside the caller's, on one batch after the other.

    While the network is at work on a batch, the caller reads what the next one needs, and writes
    what the one before has left. That serves where the network is not on the processor that
    reads: on a CPU it would only take its own time away. Bits are those of ``InProcess``.

    What a task raises, ``wait`` raises. ``close`` returns when the evaluation at work has ended.
    """

    def __init__(self) -> None:
        self._crew: _Crew | None = None

    @property
    def threads(self) -> int:
        """Those of this process."""
        return torch.get_num_threads()

    def begin(self, restorer: Restorer) -> None:
        """Start the thread."""
        self.close()
        self._crew = _Crew(restorer)

    def free(self) -> int:
        """Return how many batches more may wait for the thread."""
        return _IN_FLIGHT - len(self._begun.batches)

    def submit(self, tasks: Sequence[TileTask]) -> None:
        """Put a batch at the thread's side."""
        self._begun.batches.append(tasks)
        self._begun.inbox.put(tasks)

    def wait(self) -> Waiting:
        """Wait for the oldest batch."""
        crew = self._begun
        assert crew.batches, "submit() comes first"
        while True:
            news = crew.outbox.get()
            if isinstance(news, _Failed):
                raise news.error
            if isinstance(news, list):
                return list(zip(crew.batches.popleft(), news, strict=True))
            yield news

    def close(self) -> None:
        """End the thread, and let go of everything."""
        if self._crew is not None:
            self._crew.stop()
            self._crew = None

    @property
    def _begun(self) -> _Crew:
        assert self._crew is not None, "begin() comes first"
        return self._crew


def own_executor(device: str | torch.device) -> Executor:
    """Return how this process works with a device by itself.

    >>> type(own_executor("cpu")).__name__
    'InProcess'
    """
    return InProcess() if torch.device(device).type == "cpu" else InThread()


class _Crew:
    """The thread, and what goes to and fro."""

    def __init__(self, restorer: Restorer) -> None:
        self.batches: deque[_Batch] = deque()
        self.inbox: SimpleQueue[_Batch | None] = SimpleQueue()
        self.outbox: SimpleQueue[_News] = SimpleQueue()
        self._restorer = restorer
        # What torch keeps for each thread (gradients, say) is the caller's here too.
        self._numerics = Numerics.here(restorer.threads)
        self._stopped = Event()
        self._thread = Thread(target=self._serve, name="sfumato network", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self.inbox.put(None)
        self._thread.join()

    def _serve(self) -> None:
        self._numerics.apply()
        try:
            while (tasks := self.inbox.get()) is not None and not self._stopped.is_set():
                self._restore(tasks)
        except BaseException as error:  # Not swallowed: it is raised where the batch came from.
            self.outbox.put(_Failed(error))

    def _restore(self, tasks: _Batch) -> None:
        work = self._restorer.restore(tasks)
        while not self._stopped.is_set():
            try:
                n = next(work)
            except StopIteration as stop:
                self.outbox.put(stop.value)
                return
            self.outbox.put(n)
        work.close()
