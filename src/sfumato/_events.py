"""Generators that yield what happens, and return what became of it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

E = TypeVar("E")
T = TypeVar("T")


class Told(Generic[E, T]):
    """A generator's events, to iterate over once; afterwards ``outcome`` is what it returned.

    >>> def work():
    ...     yield "half done"
    ...     return 42
    >>> told = Told(work())
    >>> list(told), told.outcome
    (['half done'], 42)
    """

    outcome: T

    def __init__(self, events: Generator[E, None, T]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[E]:
        """Yield the events."""
        self.outcome = yield from self._events


def exhausted(events: Generator[object, None, T]) -> T:
    """Return what a generator returns, whatever it tells before.

    >>> def work():
    ...     yield "half done"
    ...     return 42
    >>> exhausted(work())
    42
    """
    told = Told(events)
    for _ in told:
        pass
    return told.outcome
