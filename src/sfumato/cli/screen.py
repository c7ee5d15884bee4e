"""Tell of a run over files: lines, a bar, events for other programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, final

import typer

from sfumato.cli.saying import EXIT_SOME_FAILED, emit, exit_code, plain, say
from sfumato.cli.todo import Todo

if TYPE_CHECKING:
    from sfumato.pipeline import Report, Started
    from sfumato.pipeline.pace import Pace

#: Progress is told no more often than this, in seconds.
_PAUSE = 0.25


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
    from sfumato.pipeline.pace import Pace, pixels_of

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
