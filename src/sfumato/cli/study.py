"""sfumato study: can people tell results from photographs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.saying import guarded, say

study_app = typer.Typer(no_args_is_help=True)


class Tasks(StrEnum):
    """What is shown beside the two pictures."""

    one = "1"
    two = "2"
    both = "both"


@study_app.command()
@guarded
def make(
    results: Annotated[
        Path, typer.Argument(help="A folder of pictures, or one of folders, one a method.")
    ],
    references: Annotated[Path, typer.Argument(help="The photographs, by the same names.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A new folder, for the page.")],
    inputs: Annotated[
        Path | None, typer.Option(help="What was restored, by the same names (for task 1).")
    ] = None,
    task: Annotated[
        Tasks, typer.Option(help="1 shows the input between the two, 2 does not.")
    ] = Tasks.two,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="Pairs a subject sees in a task. Default: 50, or all there are."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long a pair is shown.")] = 3.0,
    checks: Annotated[
        int | None,
        typer.Option(min=0, help="Attention checks in a task. Default: one in 8."),
    ] = None,
    break_every: Annotated[int, typer.Option(min=1, help="Pairs between two breaks.")] = 20,
    side: Annotated[
        int, typer.Option(min=16, help="Longer pictures are cut to their middle, in pixels.")
    ] = 512,
    zoom: Annotated[int, typer.Option(min=1, help="Enlarge small pictures, pixel by pixel.")] = 1,
    title: Annotated[str, typer.Option(help="Of the page.")] = "",
    language: Annotated[
        str, typer.Option(help="en, de, or a JSON file with the page's words.")
    ] = "en",
    consent: Annotated[
        Path | None, typer.Option(help="A text file: what subjects agree to.")
    ] = None,
    post: Annotated[str, typer.Option(help="Address that answers are sent to as well.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of checks and names of files.")] = 0,
) -> None:
    """Make a web page that asks people which of two pictures was taken by a camera.

    The folder needs no server: open index.html, or put the folder on any web server. Each subject
    ends with a file of answers, which `study collect` reads.
    """
    from sfumato.evaluation.study import StudySettings, make_study

    settings = StudySettings(
        tasks=(2, 1) if task is Tasks.both else (int(task.value),),
        images=images,
        seconds=seconds,
        n_checks=checks,
        break_every=break_every,
        side=side,
        zoom=zoom,
        seed=seed,
        title=title,
        language=language,
        post=post,
    )
    made = make_study(results, references, output, settings, inputs=inputs, consent=consent)
    say(
        f"study {made.id}: {made.pictures} pictures by {', '.join(made.methods)}; a subject sees "
        f"{made.images} pairs and {made.n_checks} attention checks a task; open "
        f"{output / 'index.html'}"
    )


@study_app.command()
@guarded
def collect(
    files: Annotated[list[Path], typer.Argument(help="The files of subjects, or their folder.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Table to write: .md, .csv or .json.")
    ] = None,
    study: Annotated[
        str, typer.Option(help="The study's folder or name. Default: that of most files.")
    ] = "",
    max_failed: Annotated[
        float, typer.Option(help="Subjects who failed a larger share of the checks do not count.")
    ] = 0.2,
    min_answers: Annotated[
        int | None, typer.Option(min=1, help="Subjects with fewer do not count. Default: all.")
    ] = None,
) -> None:
    """Count how often generated pictures were taken for photographs.

    Fool rates over all, by method, by picture and by subject, each with Wilson's 95 % interval and
    that of a bootstrap over subjects.
    """
    from sfumato.errors import OutputError, SettingsError
    from sfumato.evaluation import study as analysis
    from sfumato.io import atomic_path

    if output is not None and output.suffix not in (".md", ".csv", ".json"):
        raise SettingsError(f"-o {output}", expected="a name that ends in .md, .csv or .json")
    found: list[Path] = []
    for path in files:
        found += sorted(path.glob("*.json")) if path.is_dir() else [path]
    rules = analysis.Rules(study, max_failed, min_answers)
    collected = analysis.collect(found, rules)
    rates = analysis.rates(collected.answers)
    if output is not None and output.resolve() in {path.resolve() for path in found}:
        raise OutputError(f"{output} is a file of answers", do="choose another name")
    for one in collected.excluded:
        say(f"excluded {one.file}: {one.reason}")
    text = analysis.as_markdown(collected, rates)
    if output is None:
        say(text.rstrip("\n"))
        return
    if output.suffix == ".csv":
        text = analysis.as_csv(rates)
    elif output.suffix == ".json":
        text = analysis.as_json(collected, rates)
    with atomic_path(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    say(f"{output}: {len(collected.answers)} subjects, {len(collected.excluded)} files excluded")
