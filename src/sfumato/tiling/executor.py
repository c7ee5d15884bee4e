"""Who restores the next tiles that are ready: this process, or others.

An executor decides nothing else. Every result is a function of its task alone.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import torch

from sfumato._typing import Images
from sfumato.tiling.tasks import Restorer, TileTask

#: Waiting yields how many evaluations were done since, and returns the tasks that are finished.
Waiting: TypeAlias = Generator[int, None, list[tuple[TileTask, Images]]]


@runtime_checkable
class Executor(Protocol):
    """Works on batches of tasks, in any order, several at a time."""

    @property
    def threads(self) -> int:
        """How many threads an evaluation has, unless the restorer says otherwise."""

    def begin(self, restorer: Restorer) -> None:
        """Make ready for tasks that ``restorer`` restores."""

    def free(self) -> int:
        """Return how many more batches would be begun at once, or soon."""

    def submit(self, tasks: Sequence[TileTask]) -> None:
        """Take a batch of tasks of one size."""

    def wait(self) -> Waiting:
        """Wait until at least one batch is finished."""

    def close(self) -> None:
        """Stop working, and let go of everything."""


class InProcess:
    """Work in this process, on one batch after the other."""

    def __init__(self) -> None:
        self._restorer: Restorer | None = None
        self._batch: Sequence[TileTask] = ()

    @property
    def threads(self) -> int:
        """Those of this process."""
        return torch.get_num_threads()

    def begin(self, restorer: Restorer) -> None:
        """Make ready."""
        self._restorer, self._batch = restorer, ()

    def free(self) -> int:
        """Return 1 if nothing is waiting to be done."""
        return int(not self._batch)

    def submit(self, tasks: Sequence[TileTask]) -> None:
        """Take a batch; the work is done when it is waited for."""
        self._batch = tasks

    def wait(self) -> Waiting:
        """Work."""
        assert self._restorer is not None, "begin() comes first"
        with self._restorer.own_threads():
            images = yield from self._restorer.restore(self._batch)
        done, self._batch = list(zip(self._batch, images, strict=True)), ()
        return done

    def close(self) -> None:
        """Forget what was begun."""
        self._restorer, self._batch = None, ()
