"""The command line: parse, call, show."""

from __future__ import annotations

from typing import Annotated

import typer

from sfumato._version import __version__
from sfumato.cli import cascades, commands, measuring
from sfumato.cli.bench import bench_app
from sfumato.cli.doctor import doctor
from sfumato.cli.evaluate import evaluate
from sfumato.cli.models import models_app
from sfumato.cli.report import report
from sfumato.cli.sr3 import sr3_app
from sfumato.cli.study import study_app
from sfumato.cli.train import train_app

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Restore images of any size with diffusion models, faithfully.",
    pretty_exceptions_enable=False,
)
cascades.add_to(app)
commands.add_to(app)
app.command()(doctor)
measuring.add_to(app)
app.command()(evaluate)
app.add_typer(models_app, name="models")
app.add_typer(train_app, name="train")
app.add_typer(sr3_app, name="sr3")
app.add_typer(bench_app, name="bench")
app.command()(report)
app.add_typer(study_app, name="study")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"sfumato {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    pass


def main() -> None:
    """Run the program."""
    app()
