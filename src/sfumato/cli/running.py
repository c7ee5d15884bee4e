"""Run over files, and exhaust what restores each of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato._events import Told
from sfumato.cli.saying import fail, is_plain
from sfumato.cli.screen import Screen
from sfumato.cli.todo import Todo

if TYPE_CHECKING:
    from sfumato.pipeline import Event, Report, Started


def run_over(
    todo: Todo,
    one: Callable[[Path, Path], None],
    screen: Screen,
    *,
    skip: Callable[[Path, Path], str],
    continue_on_error: bool,
) -> None:
    """Do ``one`` for each file and its target, unless ``skip`` has a word why not.

    What the only file raises is raised. Nothing is kept of files that are done.
    """
    for k, file in enumerate(todo.files):
        target = todo.target(file)
        screen.begin(k, file, target)
        try:
            if word := skip(file, target):
                screen.skipped(word)
                continue
            one(file, target)
            screen.n_done += 1
        except Exception as error:
            if not is_plain(error):
                error.add_note(f"while at {file}")
                raise
            screen.failed(error)
            if not continue_on_error:
                return


def drain(
    restoration: Generator[Event, None, Report],
    advance: Callable[[int, int, str], None],
    started: Callable[[Started], None] = lambda event: None,
    warned: Callable[[str], None] = fail,
) -> Report:
    """Exhaust a restoration, telling of its progress; return its report.

    An inner solver that stops early is no news here: the report measures what became of it. That
    a device is short of memory is.
    """
    from sfumato.linalg import NotConvergedWarning
    from sfumato.pipeline import Advanced
    from sfumato.tiling import ShortOfMemoryWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        warnings.simplefilter("always", ShortOfMemoryWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **to: Any) -> None:  # noqa: ANN401
            if issubclass(category, ShortOfMemoryWarning):
                warned(str(message))
            else:
                others(message, category, *where, **to)

        warnings.showwarning = show
        told = Told(restoration)
        for event in told:
            if isinstance(event, Advanced):
                advance(event.done, event.total, event.stage)
            else:
                started(event)
    return told.outcome
