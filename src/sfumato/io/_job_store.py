"""What a job asks of the place where it lies: a folder of this machine, or an address."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from sfumato.errors import JobError

JSON: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None

KIND, FORMAT = "sfumato job", 1
PLAN, PART, LOG, LOCK = "job.json", "job.json.part", "records.jsonl", "job.lock"


class JobStore(ABC):
    """A place of one job: a header that never changes, a log that grows, and files by name.

    ``lock`` comes first; without it only `header` may be asked for. What is written is durable on
    return, as far as the place keeps its promises. OSError and a store's own errors are for
    `refusals` to tell of.
    """

    #: The folder or address.
    where: Path | str

    @abstractmethod
    def refusals(self) -> AbstractContextManager[None]:
        """Say in one line what the place refuses, as JobError."""

    @abstractmethod
    def lock(self) -> None:
        """Have the place for this process alone, until `close`; JobError where another has it."""

    @abstractmethod
    def check(self) -> None:
        """Refuse to go on where the lock was lost, as JobError."""

    @abstractmethod
    def header(self) -> dict[str, JSON] | None:
        """Return the plan, None where none was begun; JobError where something else is there."""

    @abstractmethod
    def write_header(self, content: bytes) -> None:
        """Write it, whole or not at all."""

    @abstractmethod
    def log(self) -> bytes:
        """Return all of the log."""

    @abstractmethod
    def cut(self, end: int) -> None:
        """Let the log end there; what is beyond is a line that was torn."""

    @abstractmethod
    def append(self, end: int, lines: bytes) -> None:
        """Append to a log that ends at ``end``, all or nothing."""

    @abstractmethod
    def place(self, name: str) -> Path | str:
        """Return where something of that name lies."""

    @abstractmethod
    def save(self, name: str, write: Callable[[Path], None]) -> None:
        """Keep a file that ``write`` makes, whole or not at all."""

    @abstractmethod
    def load(self, name: str) -> Path | None:
        """Return a file, or a copy of it here, if it was kept."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""

    @abstractmethod
    def clear(self) -> None:
        """Remove all that is in the place, and have it for a new job."""

    @abstractmethod
    def remove(self) -> None:
        """Remove the place, of which nothing is left on any kill that a next run would meet."""

    @abstractmethod
    def close(self) -> None:
        """Let others have it; may be called again."""


def plan_of_header(content: bytes | None, where: Path | str) -> dict[str, JSON]:
    """Return the plan in a header; refuse what is not ours."""
    header = None
    with suppress(ValueError, RecursionError):
        header = None if content is None else json.loads(content)
    if not isinstance(header, dict) or header.get("kind") != KIND:
        raise JobError(f"{where} is not a job of sfumato", do="choose a new or an empty folder")
    if header.get("format") != FORMAT:
        raise JobError(
            f"{where} is a job of format {header.get('format')}",
            expected=f"format {FORMAT}",
            do="use the newer sfumato that began it, or another folder",
        )
    plan = header.get("plan")
    return plan if isinstance(plan, dict) else {}
