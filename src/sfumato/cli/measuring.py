"""Measurements: made for experiments, and met by any program's output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.bars import progress_bar
from sfumato.cli.options import (
    ContinueOption,
    DegradationOption,
    Input,
    LimitOption,
    RecursiveOption,
    SkipOption,
    WorkOption,
)
from sfumato.cli.running import drain, run_over
from sfumato.cli.saying import guarded, say
from sfumato.cli.screen import Screen, lines_of
from sfumato.cli.todo import there_is, todo_of

if TYPE_CHECKING:
    from sfumato.io.staging import Staged


@contextmanager
def _staged(source: Path, target: Path, work: str | None, *, reported: bool) -> Iterator[Staged]:
    """Fetch what lies at an address, and put the result to one; clear up after a failure."""
    from sfumato.io.staging import Staged

    staged = Staged.open(source, target, work=work, reported=reported)
    try:
        yield staged
    except BaseException:
        staged.give_up()
        raise
    staged.finish()


@guarded
def degrade(
    input: Input,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="File, or folder for a folder; .npy keeps the exact numbers."
        ),
    ],
    degradation: DegradationOption,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    recursive: RecursiveOption = False,
    skip_existing: SkipOption = False,
    continue_on_error: ContinueOption = False,
    limit_pixels: LimitOption = None,
    work: WorkOption = None,
) -> None:
    """Make a measurement for experiments."""
    from sfumato.io.storage import shown
    from sfumato.operators import parse
    from sfumato.pipeline.measuring import degrade_file

    words = parse(degradation)
    todo = todo_of(input, output, recursive=recursive)

    def one(file: Path, target: Path) -> None:
        with _staged(file, target, work, reported=False) as staged:
            said = degrade_file(
                staged.source, staged.target, words, seed=seed, limit_pixels=limit_pixels
            )
        say(shown(target) + said.removeprefix(str(staged.target)))

    with Screen("none", todo) as screen:
        run_over(
            todo,
            one,
            screen,
            skip=lambda _, target: "exists, skipped" if skip_existing and there_is(target) else "",
            continue_on_error=continue_on_error,
        )
        screen.end()


@guarded
def project(
    result: Annotated[
        Path, typer.Argument(help="Any program's output: a picture.", metavar="RESULT")
    ],
    measurement: Annotated[Path, typer.Option(help="The picture that it was made from.")],
    degradation: DegradationOption,
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture to write.")],
    refine: Annotated[
        float, typer.Option(min=0, help="Restore it too, from this noise level ([0, 1]) on.")
    ] = 0.0,
    model: Annotated[
        str, typer.Option("-n", "--model", help="Name or path of a prior (with --refine).")
    ] = "embedded",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Network evaluations per tile (with --refine).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise (with --refine).")] = 0,
    limit_pixels: LimitOption = None,
    work: WorkOption = None,
) -> None:
    """Make any program's output agree exactly with the input it was made from."""
    from sfumato.operators import parse
    from sfumato.pipeline import make_settings
    from sfumato.pipeline.measuring import project_file
    from sfumato.zoo import load_prior

    words, settings = parse(degradation), make_settings(steps=steps, seed=seed)
    prior = load_prior(model, device=device) if refine else None
    with _staged(result, output, work, reported=True) as staged:
        job = project_file(
            staged.source,
            staged.fetched(measurement),
            staged.target,
            words,
            prior=prior,
            settings=settings,
            refine=refine,
            limit_pixels=limit_pixels,
            device=device,
        )
        with progress_bar(output.name) as advance:
            report = drain(job, advance)
    for line in lines_of(output, report):
        say(line)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(degrade)
    app.command()(project)
