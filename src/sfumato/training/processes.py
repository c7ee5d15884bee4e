"""Several processes that train one network: each takes its part of every step's examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor
from typing_extensions import override

from sfumato.errors import SettingsError
from sfumato.training._optional import installed

if TYPE_CHECKING:
    from accelerate import PartialState


class Processes(ABC):
    """Who trains together: process ``rank`` of ``size``; process 0 saves and reports."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that saves and reports."""
        return self.rank == 0

    def share(self, n: int) -> tuple[int, int]:
        """Return this process's part of ``n`` examples: the first one, and how many.

        The parts lie one after the other, differ by one at most, and may be empty.
        """
        first, end = (n * k // self.size for k in (self.rank, self.rank + 1))
        return first, end - first

    @abstractmethod
    def add(self, x: Tensor) -> Tensor:
        """Return the sum of every process's ``x``, the same in all of them; all must call it."""

    def any(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is true in one of the processes; all must call it."""
        total = self.add(torch.tensor(flags, dtype=torch.float32))
        return [bool(flag) for flag in total > 0]

    @abstractmethod
    def wait(self) -> None:
        """Return when all processes have called it."""

    @abstractmethod
    def leave(self) -> None:
        """Take leave of the others, at the very end."""


@final
class Alone(Processes):
    """One process."""

    @override
    def add(self, x: Tensor) -> Tensor:
        return x

    @override
    def wait(self) -> None:
        pass

    @override
    def leave(self) -> None:
        pass


@final
class Together(Processes):
    """The processes that ``accelerate launch`` started, this one on its own ``device``.

    With ``cpu`` they compute on CPUs, else on one GPU each where there are any. Raises
    SettingsError where accelerate (the extra ``train``) is not installed.
    """

    def __init__(self, *, cpu: bool = False) -> None:
        if not installed("accelerate"):
            raise SettingsError(
                "several processes, without the library that joins them",
                do='install it with: pip install "sfumato[train]"',
            )
        from accelerate import PartialState

        self._state: PartialState = PartialState(cpu=cpu)
        self.rank, self.size = self._state.process_index, self._state.num_processes
        self.device = str(self._state.device)

    @override
    def add(self, x: Tensor) -> Tensor:
        from accelerate.utils import reduce

        total: Tensor = reduce(x.to(self._state.device), "sum")
        return total.to(x.device)

    @override
    def wait(self) -> None:
        self._state.wait_for_everyone()

    @override
    def leave(self) -> None:
        self._state.destroy_process_group()
