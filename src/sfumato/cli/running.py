"""Run restorations of files and folders: bars, lines, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import typer

from sfumato.errors import DegradationError, SettingsError, SfumatoError

if TYPE_CHECKING:
    from sfumato.cli.options import Shared
    from sfumato.pipeline import Event, Report

P = ParamSpec("P")

#: Makes the restoration of one file: source, target -> generator of events.
Job = Callable[[Path, Path], "Generator[Event, None, Report]"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn sfumato's errors into one line and an exit code: 2 for what was asked, 1 for the rest."""

    @wraps(command)
    def inner(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (DegradationError, SettingsError) as error:
            fail(str(error))
            raise typer.Exit(EXIT_USAGE) from None
        except SfumatoError as error:
            fail(str(error))
            raise typer.Exit(EXIT_FAILED) from None
        except KeyboardInterrupt:
            fail("interrupted; nothing was written")
            raise typer.Exit(EXIT_INTERRUPTED) from None

    return inner


def fail(message: str) -> None:
    """Print one line to standard error."""
    typer.echo(f"sfumato: {message}", err=True)


def say(message: str) -> None:
    """Print one line to standard output."""
    typer.echo(message)


def pairs(source: Path, shared: Shared) -> list[tuple[Path, Path]]:
    """List sources with their targets: one file, or those of a folder with its tree kept."""
    from sfumato.errors import ImageError
    from sfumato.io import find_pictures

    if not source.is_dir():
        if not source.exists():
            raise ImageError(f"there is no file {source}", expected="a picture or a folder")
        inside = shared.output.is_dir()
        return [(source, shared.output / source.name if inside else shared.output)]
    if shared.output.suffix and not shared.output.is_dir():
        raise SettingsError(
            f"the folder {source} to the file {shared.output}", expected="a folder for --output"
        )
    found = find_pictures(source, recursive=shared.recursive)
    if not found:
        raise ImageError(f"the folder {source} holds no pictures", do="try --recursive")
    return [(p, shared.output / p.relative_to(source)) for p in found]


def run_all(source: Path, shared: Shared, job: Job) -> None:
    """Restore a file or a folder; report each, and at the end the ones that failed."""
    todo = pairs(source, shared)
    if shared.report and len(todo) > 1:
        raise SettingsError("--report with a folder", do="each result has OUTPUT.json beside it")
    failed: list[tuple[Path, str]] = []
    for file, target in todo:
        if shared.skip_existing and target.exists():
            say(f"{target}: exists, skipped")
            continue
        try:
            run_one(file, target, shared, job)
        except SfumatoError as error:
            if not shared.continue_on_error:
                raise
            failed.append((file, str(error)))
            fail(f"{file}: {error}")
    if failed:
        fail(f"{len(failed)} of {len(todo)} files failed:")
        for file, reason in failed:
            fail(f"  {file}: {reason}")
        raise typer.Exit(EXIT_SOME_FAILED)


def run_one(file: Path, target: Path, shared: Shared, job: Job) -> None:
    """Restore one file with a bar; with ``--dry-run`` only say what would be done."""
    from sfumato.pipeline import Started

    restoration = job(file, target)
    if shared.dry_run:
        first = next(restoration)
        restoration.close()
        if isinstance(first, Started):
            chosen = ", ".join(f"{k} {v}" for k, v in first.settings.items())
            say(f"{file} -> {target}: {first.task}, {first.tiles} tiles in {first.waves} waves, "
                f"{first.evaluations} evaluations; {chosen}")
        return
    with progress_bar(target.name) as advance:
        report = drain(restoration, advance)
    say(summary(target, report))


def drain(
    restoration: Generator[Event, None, Report], advance: Callable[[int, int, str], None]
) -> Report:
    """Exhaust a restoration, drawing its progress; return its report."""
    from sfumato.pipeline import Advanced

    while True:
        try:
            event = next(restoration)
        except StopIteration as stop:
            report: Report = stop.value
            return report
        if isinstance(event, Advanced):
            advance(event.done, event.total, event.stage)


def summary(target: Path, report: Report) -> str:
    """Return the figures of one result in a line."""
    parts = [f"{target}: {report.width} x {report.height}"]
    parts.append(f"consistency {report.consistency_rmse_255:.3f}/255")
    if report.seam_score is not None and report.seam_band is not None:
        low, high = report.seam_band
        parts.append(f"seams {report.seam_score:.2f} (band {low:.2f} to {high:.2f})")
    if report.network_evaluations:
        parts.append(f"{report.tiles} tiles, {report.evaluations_per_tile} evaluations each")
    parts.append(f"{report.seconds:.1f} s")
    return ", ".join(parts)


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[int, int, str], None]]:
    """Draw a bar with the time left on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} evaluations"),
        TimeRemainingColumn(),
    )
    shown = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task(name, total=None)

        def advance(done: int, total: int, stage: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{name} ({stage})")

        yield advance
