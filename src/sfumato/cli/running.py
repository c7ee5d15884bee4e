"""Run restorations of files and folders: bars, lines, exit codes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import typer

from sfumato.errors import (
    DegradationError,
    ImageError,
    SettingsError,
    SfumatoError,
    ShapeError,
)

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

#: An output that ends like this is meant to be a file.
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".npy")


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors into one line and an exit code: 2 for what was asked, 1 for the rest."""

    @wraps(command)
    def inner(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (SfumatoError, OSError, MemoryError) as error:
            fail(plain(error))
            raise typer.Exit(exit_code(error)) from None
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            fail(plain(error))
            raise typer.Exit(EXIT_FAILED) from None
        except KeyboardInterrupt:
            fail("interrupted; where there is OUTPUT.job, the same command goes on from there")
            raise typer.Exit(EXIT_INTERRUPTED) from None

    return inner


def exit_code(error: BaseException) -> int:
    """Return 2 where what was asked for cannot be, 1 where a file, a model or memory failed."""
    asked = isinstance(error, DegradationError | SettingsError | ShapeError)
    return EXIT_USAGE if asked else EXIT_FAILED


def out_of_memory(error: BaseException) -> bool:
    """Tell whether torch ran out of memory, which has a type of its own on GPUs only."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def plain(error: BaseException) -> str:
    """Return an error in one line."""
    if isinstance(error, SfumatoError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return "out of memory; take a smaller picture, a smaller --batch or a smaller --scale"


def fail(message: str) -> None:
    """Print one line to standard error."""
    typer.echo(f"sfumato: {message}", err=True)


def say(message: str) -> None:
    """Print one line to standard output."""
    typer.echo(message)


def pairs(source: Path, output: Path, *, recursive: bool = False) -> list[tuple[Path, Path]]:
    """List sources with their targets: one file, or those of a folder with its tree kept."""
    from sfumato.io import find_pictures

    if not source.is_dir():
        if not source.exists():
            raise ImageError(f"there is no file {source}", expected="a picture or a folder")
        name = source.with_suffix(".png").name if source.suffix.lower() == ".npy" else source.name
        return [(source, output / name if output.is_dir() else output)]
    if output.is_file() or output.suffix.lower() in _PICTURES:
        raise SettingsError(
            f"the folder {source} to the file {output}", expected="a folder for --output"
        )
    found = find_pictures(source, recursive=recursive)
    if not found:
        raise ImageError(
            f"the folder {source} holds no pictures", do="" if recursive else "try --recursive"
        )
    return [(p, output / p.relative_to(source)) for p in found]


def run_all(source: Path, shared: Shared, job: Job) -> None:
    """Restore a file or a folder; report each, and at the end the ones that failed."""
    todo = pairs(source, shared.output, recursive=shared.recursive)
    if shared.report and len(todo) > 1:
        raise SettingsError("--report with a folder", do="each result has OUTPUT.json beside it")
    run_over(
        todo,
        lambda file, target: run_one(file, target, shared, job),
        skip_existing=shared.skip_existing,
        continue_on_error=shared.continue_on_error,
    )


def run_over(
    todo: list[tuple[Path, Path]],
    one: Callable[[Path, Path], None],
    *,
    skip_existing: bool,
    continue_on_error: bool,
) -> None:
    """Do ``one`` for each source and target; with ``continue_on_error`` go on after a failure."""
    failed: list[tuple[Path, BaseException]] = []
    for k, (file, target) in enumerate(todo):
        if skip_existing and target.exists():
            say(f"{target}: exists, skipped")
            continue
        try:
            one(file, target)
        except (SfumatoError, OSError, MemoryError, RuntimeError) as error:
            if len(todo) == 1 or (isinstance(error, RuntimeError) and not out_of_memory(error)):
                raise
            reason = plain(error)
            fail(reason if str(file) in reason else f"{file}: {reason}")
            if not continue_on_error:
                fail(
                    f"stopped with {len(todo) - k} of {len(todo)} files left; "
                    "--continue-on-error goes on, --skip-existing resumes"
                )
                raise typer.Exit(exit_code(error)) from None
            failed.append((file, error))
    if failed:
        fail(f"{len(failed)} of {len(todo)} files failed: {', '.join(str(f) for f, _ in failed)}")
        some = len(failed) < len(todo)
        raise typer.Exit(EXIT_SOME_FAILED if some else exit_code(failed[0][1]))


def run_one(file: Path, target: Path, shared: Shared, job: Job) -> None:
    """Restore one file with a bar; with ``--dry-run`` only say what would be done."""
    from sfumato.pipeline import Started

    restoration = job(file, target)
    if shared.dry_run:
        first = next(restoration)
        restoration.close()
        if isinstance(first, Started):
            chosen = ", ".join(f"{k} {v}" for k, v in first.settings.items())
            say(
                f"{file} -> {target}: {first.task}, {first.tiles} tiles in {first.waves} waves, "
                f"{first.evaluations} evaluations; {chosen}"
            )
        return
    with progress_bar(target.name) as advance:
        report = drain(restoration, advance)
    tell(target, report)


def drain(
    restoration: Generator[Event, None, Report], advance: Callable[[int, int, str], None]
) -> Report:
    """Exhaust a restoration, drawing its progress; return its report.

    An inner solver that stops early is no news here: the report measures what became of it.
    """
    from sfumato.linalg import NotConvergedWarning
    from sfumato.pipeline import Advanced

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        while True:
            try:
                event = next(restoration)
            except StopIteration as stop:
                report: Report = stop.value
                return report
            if isinstance(event, Advanced):
                advance(event.done, event.total, event.stage)


def tell(target: Path, report: Report) -> None:
    """Print one result's figures in a line, and below it what is worth to know besides."""
    say(summary(target, report))
    for note in report.notes:
        say(f"  {note}")


def summary(target: Path, report: Report) -> str:
    """Return the figures of one result in a line.

    The consistency is that between ``A`` of the written picture and the input.
    """
    parts = [f"{target}: {report.width} x {report.height}"]
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
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not shown
    ) as bar:
        task = bar.add_task(name, total=None)

        def advance(done: int, total: int, stage: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{name} ({stage})")

        yield advance
