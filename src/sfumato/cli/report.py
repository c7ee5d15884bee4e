"""sfumato report: a comparison as a page, sheets and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.saying import guarded, say


@guarded
def report(
    folder: Annotated[Path, typer.Argument(help="Of a comparison, as `sfumato bench` leaves it.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page. Default: FOLDER/report.html.")
    ] = None,
    max_mb: Annotated[
        float, typer.Option(help="Of the page, in megabytes: pictures are compressed to fit.")
    ] = 30.0,
    page_only: Annotated[
        bool, typer.Option("--page-only", help="No plots and no sheets; needs no matplotlib.")
    ] = False,
    sheet_width: Annotated[int, typer.Option(min=200, help="Of sheets, in pixels.")] = 1600,
    pictures: Annotated[
        str, typer.Option(help="Names of those on the sheets, with commas. Default: all.")
    ] = "",
) -> None:
    """Show a comparison: a web page in one file, sheets of pictures, and plots.

    The page opens without a network; the pictures of a row zoom and move together. Sheets go to
    FOLDER/sheets, plots to FOLDER/plots.
    """
    from sfumato.errors import SettingsError
    from sfumato.evaluation import report as making

    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"-o {output}", expected="a name that ends in .html")
    run = making.read_run(folder)
    svgs = None if page_only else making.svg_plots(run)
    page = making.write_page(run, output or folder / "report.html", max_mb=max_mb, plots=svgs)
    say(
        f"{page.path}: {page.size_bytes / 1e6:.1f} MB, {page.pictures} pictures, "
        f"{page.encoding.words}"
    )
    if page_only:
        return
    names = [name.strip() for name in pictures.split(",") if name.strip()]
    for path in making.write_plots(run, folder / "plots"):
        say(str(path))
    for path in making.write_sheets(run, folder / "sheets", width=sheet_width, pictures=names):
        say(str(path))
