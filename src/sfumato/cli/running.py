"""Run over files, and tell of it: lines, a bar, events for other programs, exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, final

import typer

from sfumato._events import Told
from sfumato.errors import (
    DegradationError,
    ImageError,
    SettingsError,
    SfumatoError,
    ShapeError,
)

if TYPE_CHECKING:
    from sfumato.pipeline import Event, Report, Started
    from sfumato.pipeline.estimate import Pace

P = ParamSpec("P")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130

#: An output that ends like this is meant to be a file.
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".npy")
#: Progress is told no more often than this, in seconds.
_PAUSE = 0.25


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


@dataclass(frozen=True)
class Todo:
    """Files in their order, and where results go: in ``output`` as the files lie in ``folder``."""

    files: Sequence[Path]
    output: Path
    folder: Path | None = None

    def target(self, file: Path) -> Path:
        """Return where the result of a file goes."""
        return self.output if self.folder is None else self.output / file.relative_to(self.folder)


def todo_of(
    source: Path,
    output: Path,
    *,
    recursive: bool = False,
    warned: Callable[[str], None] = fail,
) -> Todo:
    """List what is to be done: one file, or those of a folder, sorted, with its tree kept.

    What lies in the folder of the outputs is no input, wherever that is. ``warned`` is told of
    folders that cannot be read.
    """
    from sfumato.io import find_pictures
    from sfumato.io.storage import address, name_of

    folder = output.is_dir() and output.suffix.lower() != ".zarr"
    if address(source):
        return Todo([source], output / name_of(source) if folder else output)
    if not source.is_dir():
        if not source.exists():
            raise ImageError(f"there is no file {source}", expected="a picture or a folder")
        name = source.with_suffix(".png").name if source.suffix.lower() == ".npy" else source.name
        return Todo([source], output / name if folder else output)
    if output.is_file() or output.suffix.lower() in _PICTURES:
        raise SettingsError(
            f"the folder {source} to the file {output}", expected="a folder for --output"
        )
    found = find_pictures(source, recursive=recursive, unreadable=warned)
    outer, inner = (os.path.realpath(p) + os.sep for p in (source, output))
    if inner != outer and inner.startswith(outer):
        outputs = str(source / inner[len(outer) :]) + os.sep
        found = [p for p in found if not str(p).startswith(outputs)]
    if not found:
        raise ImageError(
            f"the folder {source} holds no pictures", do="" if recursive else "try --recursive"
        )
    return Todo(found, output, source)


def there_is(place: Path) -> bool:
    """Say whether there is something, here or at an address."""
    from sfumato.io.storage import address, exists

    return exists(place) if address(place) else place.exists()


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


@final
class Screen:
    """Tells of a run over files: lines for people, and a bar or JSON on standard error.

    ``how`` is auto (a bar if that is a terminal), bar, json or none. On leaving, the failures are
    written to the file ``failed``, if one is given.
    """

    def __init__(self, how: str, todo: Todo, *, failed: Path | None = None) -> None:
        self.n_done = self.n_skipped = 0
        self._json, self._todo, self._n = how == "json", todo, len(todo.files)
        shown = how == "bar" or (how == "auto" and sys.stderr.isatty())
        self._bar = Bar(self._n) if shown else None
        self._pace: Pace | None = None
        self._k, self._file, self._target = 0, Path(), Path()
        self._began, self._told = time.monotonic(), float("-inf")
        self._failures: list[dict[str, object]] = []
        self._failed_to = failed

    def __enter__(self) -> Self:
        """Draw the bar."""
        if self._bar:
            self._bar.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Remove the bar, and write the failures."""
        if self._bar:
            self._bar.progress.stop()
        if isinstance(error, KeyboardInterrupt):
            self._emit_summary()
        if self._failed_to:
            from sfumato.io import atomic_path

            with atomic_path(self._failed_to) as temporary:
                temporary.write_text(json.dumps(self._failures, indent=2) + "\n", "utf-8")

    def say(self, line: str) -> None:
        """Print a line, above the bar."""
        if self._bar and sys.stdout.isatty():
            self._bar.above(line)
        else:
            say(line)

    def emit(self, event: str, facts: Mapping[str, object]) -> None:
        """Tell other programs of this file, if they listen."""
        if self._json:
            emit(event, {"file": _shown(self._file), "target": _shown(self._target), **facts})

    def begin(self, k: int, file: Path, target: Path) -> None:
        """Take in that file ``k`` is next."""
        self._k, self._file, self._target = k, file, target
        if self._pace is None and (self._json or self._bar):
            self._pace = _pace(self._todo)
        if self._pace:
            self._pace.begin(k)

    def started(self, event: Started) -> None:
        """Tell that a restoration has begun, with every choice made."""
        facts = {"task": event.task, "tiles": event.tiles, "waves": event.waves}
        facts |= {"total": event.evaluations, "settings": event.settings}
        self.emit("started", facts | {"number": self._k + 1, "files": self._n})

    def advance(self, done: int, total: int, stage: str) -> None:
        """Tell how far the file is, not too often."""
        if self._pace is None:
            return
        self._pace.advance(done, total)
        if time.monotonic() - self._told < _PAUSE:
            return
        self._told, left = time.monotonic(), self._pace.left()
        if self._bar:
            self._bar.show(f"{self._target.name} ({stage})", (done, total), self._k, left)
        facts = {"done": done, "total": total, "stage": stage, "number": self._k + 1}
        seconds = None if left is None else round(left, 1)
        self.emit("progress", facts | {"files": self._n, "seconds_left": seconds})

    def finished(self, report: Report) -> None:
        """Tell of a result."""
        if self._pace:
            self._pace.finish()
        for line in lines_of(self._target, report):
            self.say(line)
        facts = {"seconds": report.seconds, "consistency_rmse_255": report.consistency_rmse_255}
        self.emit("finished", facts | {"width": report.width, "height": report.height})

    def skipped(self, word: str) -> None:
        """Tell that the file is left as it is."""
        self.n_skipped += 1
        self.say(f"{_shown(self._target)}: {word}")
        self.emit("skipped", {"reason": word})

    def failed(self, error: Exception) -> None:
        """Tell that the file failed; what the only one raises is for others to tell."""
        facts = {"reason": plain(error), "exit_code": exit_code(error)}
        self._failures.append(
            {"file": _shown(self._file), "target": _shown(self._target), **facts}
        )
        self.emit("failed", facts)
        if self._n == 1 and not self._json:
            raise error
        self._complain(f"sfumato: {_named(self._failures[-1])}")

    def total(self) -> str:
        """Return a line on all files."""
        counts = [(self.n_done, "restored"), (self.n_skipped, "left as they were")]
        counts.append((len(self._failures), "failed"))
        told = [f"{n} {word}" for n, word in counts if n] or ["nothing to do"]
        took = spoken(time.monotonic() - self._began)
        return f"{self._n} files: {', '.join(told)}, {took}"

    def end(self) -> None:
        """Tell of what failed, and exit where some failed: 3, or what the first one says."""
        failed, left = len(self._failures), self._n_left
        self._emit_summary()
        if left:
            self._complain(
                f"sfumato: stopped with {left + failed} of {self._n} files left; "
                "--continue-on-error goes on, --resume or --skip-existing leaves what is done"
            )
        elif failed:
            self._complain(f"sfumato: {failed} of {self._n} files failed:")
            for failure in self._failures:
                self._complain(f"  {_named(failure)}")
        if failed:
            some = failed < self._n and not left
            raise typer.Exit(
                EXIT_SOME_FAILED if some else int(str(self._failures[0]["exit_code"]))
            )

    @property
    def _n_left(self) -> int:
        """Files that were not come to."""
        return self._n - self.n_done - self.n_skipped - len(self._failures)

    def _emit_summary(self) -> None:
        if self._json:
            facts = {"files": self._n, "done": self.n_done, "skipped": self.n_skipped}
            facts |= {"failed": len(self._failures), "left": self._n_left}
            emit("summary", facts | {"seconds": round(time.monotonic() - self._began, 1)})

    def _complain(self, line: str) -> None:
        """Print a line for people to standard error, which other programs know from events."""
        if self._bar:
            self._bar.above(line)
        elif not self._json:
            typer.echo(line, err=True)


def _named(failure: Mapping[str, object]) -> str:
    """Return the reason of a failure, with the name of the file."""
    file, reason = str(failure["file"]), str(failure["reason"])
    return reason if file in reason else f"{file}: {reason}"


def _pace(todo: Todo) -> Pace:
    from sfumato.pipeline.estimate import Pace, pixels_of

    return Pace(len(todo.files), lambda k: pixels_of(todo.files[k]), time.monotonic)


@final
class Bar:
    """A bar on standard error: what is done of a picture, and of all where there are several."""

    def __init__(self, n_files: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        name = TextColumn("{task.description}", markup=False)
        told = TextColumn("{task.fields[told]}", markup=False)
        # It is asked for, or there is a terminal.
        console = Console(stderr=True, force_terminal=True)
        # Standard output is no part of it: it may be a file.
        self.progress = Progress(
            name,
            BarColumn(),
            told,
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._one = self.progress.add_task("", total=None, told="")
        self._all = self.progress.add_task("", total=n_files, told="") if n_files > 1 else None
        self._n = n_files

    def above(self, line: str) -> None:
        """Print a line above it."""
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, name: str, of: tuple[int, int], k: int, left: float | None) -> None:
        """Show evaluations done ``of`` all, and that picture ``k`` is the one at work."""
        (done, total), time_left = of, f"{spoken(left)} left" if left is not None else ""
        told = f"{done}/{total} evaluations"
        if self._all is None:
            told = f"{told}  {time_left}"
        else:
            self.progress.update(self._all, completed=k, told=f"{k}/{self._n} files  {time_left}")
        self.progress.update(self._one, description=name, completed=done, total=total, told=told)


def spoken(seconds: float) -> str:
    """Return a time in words.

    >>> spoken(5900), spoken(3.2), spoken(3e5)
    ('1 h 38 min', '3 s', '3 d 11 h')
    """
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


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


def _shown(place: Path) -> str:
    """Return a place as people write it: addresses have two slashes, paths lose one."""
    from sfumato.io.storage import shown

    return shown(place)


def lines_of(target: Path, report: Report) -> list[str]:
    """Return one result's figures in a line, and below it what is worth to know besides."""
    return [summary(target, report), *(f"  {note}" for note in report.notes)]


def summary(target: Path, report: Report) -> str:
    """Return the figures of one result in a line.

    The consistency is that between ``A`` of the written picture and the input.
    """
    parts = [f"{_shown(target)}: {report.width} x {report.height}"]
    parts.append(f"consistency {report.consistency_rmse_255:.3f}/255")
    if report.seam_score is not None and report.seam_band is not None:
        low, high = report.seam_band
        seen = "may show" if report.seam_score > high else "invisible"
        parts.append(f"seams {seen} ({report.seam_score:.2f}, band {low:.2f} to {high:.2f})")
    if report.network_evaluations:
        tiles = "1 tile" if report.tiles == 1 else f"{report.tiles} tiles"
        parts.append(f"{tiles}, {report.network_evaluations} network evaluations")
    parts.append(f"{report.seconds:.1f} s")
    return ", ".join(parts)
