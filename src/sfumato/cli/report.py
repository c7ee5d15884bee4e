"""sfumato report: a comparison as a page, sheets and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.running import guarded, say


@guarded
def report(
    folder: Annotated[Path, typer.Argument(help="Of a comparison: run.json and records.jsonl.")],
) -> None:
    """Show a comparison: a web page in one file, sheets of pictures, and plots."""
    say(str(folder))
