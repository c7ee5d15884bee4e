"""Say how a command ended: a line, an event for other programs, an exit code."""

from __future__ import annotations

import io
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec

import typer

from sfumato.errors import DegradationError, SettingsError, SfumatoError, ShapeError

P = ParamSpec("P")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors into one line and an exit code: 2 for what was asked, 1 for the rest.

    With ``--progress json`` the line is an event. SIGTERM, by which clusters take a machine back,
    does what Ctrl-C does.
    """

    @wraps(command)
    def inner(*args: P.args, **kwargs: P.kwargs) -> None:
        def end(event: str, message: str, code: int) -> typer.Exit:
            if kwargs.get("progress") == "json":
                emit(event, {"reason": message, "exit_code": code})
            else:
                fail(message)
            return typer.Exit(code)

        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a name may be of any bytes
        try:
            with _interrupted_by(signal.SIGTERM):
                command(*args, **kwargs)
        except KeyboardInterrupt:
            said = "interrupted; where there is OUTPUT.job, the same command goes on from there"
            raise end("interrupted", said, EXIT_INTERRUPTED) from None
        except Exception as error:
            if not is_plain(error):
                raise
            raise end("failed", plain(error), exit_code(error)) from None

    return inner


@contextmanager
def _interrupted_by(number: signal.Signals) -> Iterator[None]:
    """Take a signal for Ctrl-C; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def exit_code(error: Exception) -> int:
    """Return 2 where what was asked for cannot be, 1 where a file, a model or memory failed."""
    asked = isinstance(error, DegradationError | SettingsError | ShapeError)
    return EXIT_USAGE if asked else EXIT_FAILED


def is_plain(error: Exception) -> bool:
    """Tell whether a line can say it all: any other error is a mistake of ours.

    Nor is it one line where nobody reads: a closed pipe of standard output is no file's fault.
    """
    if isinstance(error, RuntimeError):  # torch's, which has a type of its own on GPUs only
        name, said = type(error).__name__, str(error)
        return name == "OutOfMemoryError" or "can't allocate memory" in said
    known = isinstance(error, SfumatoError | OSError | MemoryError | UnicodeEncodeError)
    return known and not isinstance(error, BrokenPipeError)


def plain(error: Exception) -> str:
    """Return an error in one line."""
    if isinstance(error, SfumatoError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object} is no name in UTF-8; rename it"
    return "out of memory; take a smaller picture, a smaller --batch or a smaller --scale"


def fail(message: str) -> None:
    """Print one line to standard error."""
    typer.echo(f"sfumato: {message}", err=True)


def say(message: str) -> None:
    """Print one line to standard output."""
    typer.echo(message)


def emit(event: str, facts: Mapping[str, object]) -> None:
    """Print an event for other programs: one JSON object, in a line of standard error."""
    typer.echo(json.dumps({"event": event, **facts}, default=str), err=True)
