"""A bar for work that is not over files."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sfumato._events import Told
from sfumato.cli.screen import Screen
from sfumato.cli.todo import Todo

E = TypeVar("E")
T = TypeVar("T")


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[int, int, str], None]]:
    """Draw a bar with the time left on standard error, if that is a terminal."""
    with Screen("auto", Todo([Path(name)], Path(name))) as screen:
        screen.begin(0, Path(name), Path(name))
        yield screen.advance


def behind_a_bar(
    events: Generator[E, None, T], name: str, place: Callable[[E], tuple[int, int, str] | None]
) -> T:
    """Exhaust a generator behind a bar, and return what it returns.

    ``place`` says how many steps of how many an event tells of, and what is worked on; None where
    it tells of no step.
    """
    with progress_bar(name) as advance:
        told = Told(events)
        for event in told:
            at = place(event)
            if at is not None:
                advance(*at)
    return told.outcome
