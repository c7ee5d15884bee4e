"""The command line: parse, call, show."""

from __future__ import annotations

from typing import Annotated

import typer

from sfumato._version import __version__
from sfumato.cli import cascades, commands, measuring
from sfumato.cli.doctor import doctor
from sfumato.cli.evaluate import evaluate
from sfumato.cli.later import later
from sfumato.cli.report import report

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
app.command()(report)
for _name, _about in {
    "models": "The priors at hand.",
    "train": "Train models on your own photographs.",
    "sr3": "Tune SR3 models.",
    "bench": "Run benchmarks by their recipes (bench NAME), or measure what the engine costs.",
    "study": "Ask people which picture was taken by a camera, and count whom it fooled.",
}.items():
    app.add_typer(later(f"sfumato.cli.{_name}:{_name}_app", _about), name=_name)


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
