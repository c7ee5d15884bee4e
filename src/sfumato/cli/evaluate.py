"""sfumato evaluate: measure results, by whatever program they were made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from sfumato.cli.bars import behind_a_bar
from sfumato.cli.groups import with_group
from sfumato.cli.networks import NETWORKS, NetworkFiles
from sfumato.cli.saying import fail, guarded, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfumato.evaluation.choice import Networks
    from sfumato.evaluation.evaluate import Evaluation, Known
    from sfumato.evaluation.extractors import Resize
    from sfumato.evaluation.pairs import Pair

_TABLES = "Tables"
_ENDINGS = (".md", ".csv", ".json")


@guarded
@with_group(NetworkFiles, "files")
def evaluate(
    files: NetworkFiles,
    results: Annotated[
        Path, typer.Argument(help="A folder of results, or one.", metavar="RESULTS")
    ],
    references: Annotated[
        Path | None,
        typer.Argument(help="The true pictures, of the same names.", metavar="REFERENCES"),
    ] = None,
    measurements: Annotated[
        Path | None, typer.Option(help="The pictures that the results were made from.")
    ] = None,
    degradation: Annotated[
        str | None, typer.Option("-d", "--degradation", help="What made them: average_pool:4.")
    ] = None,
    measures: Annotated[
        str,
        typer.Option(
            "-m",
            "--measures",
            help="Words: psnr ssim psnr-y ssim-y stlpips stlpips-vgg colour-bias consistency "
            "rmse-ax seam seam-low seam-high diversity diversity-stlpips lpips top-1 top-5 fid "
            "kid is alexnet-frechet alexnet-kernel vgg-frechet vgg-kernel; psnr:border=4. "
            "Default: PSNR, SSIM and what else was given all that it needs.",
        ),
    ] = "",
    border: Annotated[
        int, typer.Option(min=0, help="Pixels on each side that PSNR and SSIM leave out.")
    ] = 0,
    luma: Annotated[
        bool, typer.Option("--luma", help="PSNR and SSIM are those of Y (BT.601).")
    ] = False,
    samples: Annotated[
        bool, typer.Option("--samples", help="NAME.sample-2.png, … are samples of NAME.png.")
    ] = False,
    tile: Annotated[
        int | None, typer.Option(min=16, help="Side of the tiles, for the seam score.")
    ] = None,
    overlap: Annotated[int, typer.Option(min=0, help="Of the tiles.")] = 0,
    inception_resize: Annotated[
        str,
        typer.Option(help="pytorch-fid or tensorflow: the way to 299.", rich_help_panel=NETWORKS),
    ] = "pytorch-fid",
    save_statistics: Annotated[
        Path | None,
        typer.Option(help="Keep those of REFERENCES (.npz).", rich_help_panel=NETWORKS),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Of your networks: cpu, cuda, …", rich_help_panel=NETWORKS)
    ] = "cpu",
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Folders below too.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out what has no counterpart.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Of the row. Default: RESULTS's.", rich_help_panel=_TABLES)
    ] = None,
    save: Annotated[
        list[Path] | None,
        typer.Option(
            help="A table as .md, .csv or .json, by its ending; may come several times.",
            rich_help_panel=_TABLES,
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON, with every picture.", rich_help_panel=_TABLES),
    ] = False,
) -> None:
    """Measure results against references and measurements: a table, and how it was measured."""
    from sfumato.errors import SettingsError
    from sfumato.evaluation.choice import choose
    from sfumato.evaluation.evaluate import evaluate as evaluated
    from sfumato.evaluation.pairs import pair_up
    from sfumato.zoo.prior import as_device

    _check_options(save or [], measurements, degradation)
    if inception_resize not in ("pytorch-fid", "tensorflow"):
        raise SettingsError(
            f"--inception-resize {inception_resize}", expected="pytorch-fid or tensorflow"
        )
    as_device(device)
    networks = files.on(device, cast("Resize", inception_resize))
    pairs = pair_up(
        results,
        references,
        measurements=measurements,
        samples=samples,
        recursive=recursive,
        allow_missing=allow_missing,
    )
    if save_statistics:
        _check_statistics(save_statistics, networks, pairs)
    words = measures or _default(pairs, networks)
    chosen = choose(words, networks, border=border, luma=luma)
    known = _known(pairs, degradation, (tile, overlap) if tile else None, files)
    run = evaluated(pairs, chosen, known, method=name or results.stem or str(results))
    found = behind_a_bar(run, "evaluate", lambda at: (at.done, at.total, at.stage))
    if save_statistics:
        _save_statistics(save_statistics, networks, found)
    for path in save or []:
        _write(path, found)
    say(found.to_json().rstrip() if json else _text(found, ".md").rstrip())
    if allow_missing:
        fail(f"{len(pairs)} pictures had all that belongs to them; others were left out")


def _check_options(
    save: Sequence[Path],
    measurements: Path | None,
    degradation: str | None,
) -> None:
    """Refuse what could not be done or written, before any work."""
    from sfumato.errors import SettingsError
    from sfumato.io._atomic import check_place
    from sfumato.operators import parse

    if degradation is not None:
        parse(degradation)
    if (measurements is None) != (degradation is None):
        raise SettingsError(
            "one of --measurements and --degradation", expected="both, or neither of them"
        )
    for path in save:
        if path.suffix not in _ENDINGS:
            raise SettingsError(
                f"--save {path}", expected=f"a name that ends in {', '.join(_ENDINGS)}"
            )
        check_place(path)


def _default(pairs: Sequence[Pair], networks: Networks) -> str:
    """Return the words of what can be measured, but for those that take long without being asked.

    ``pairs`` is never empty.
    """
    one = pairs[0]
    words = ["psnr", "ssim"] if one.reference else []
    words += ["consistency", "rmse-ax"] if one.measurement else []
    words += ["diversity"] if one.samples else []
    words += ["lpips"] if networks.lpips and one.reference else []
    words += ["top-1", "top-5"] if networks.classifier else []
    if networks.inception:
        words += ["fid"] if one.reference or networks.statistics else []
        words += ["kid"] if one.reference else []
        words += ["is"]
    return " ".join(words)


def _known(
    pairs: Sequence[Pair],
    degradation: str | None,
    tiles: tuple[int, int] | None,
    files: NetworkFiles,
) -> Known:
    from sfumato.evaluation.evaluate import Known
    from sfumato.evaluation.learned import labels_of_folders, read_labels

    listed = read_labels(files.labels) if files.labels else None
    if files.classifier and listed is None:
        listed = labels_of_folders([p.key for p in pairs])
    return Known(degradation, tiles, listed)


def _check_statistics(path: Path, networks: Networks, pairs: Sequence[Pair]) -> None:
    """Refuse what could not be kept, before any work."""
    from sfumato.errors import SettingsError
    from sfumato.io._atomic import check_place

    if path.suffix != ".npz":
        raise SettingsError(f"--save-statistics {path}", expected="a name that ends in .npz")
    check_place(path)
    if networks.inception is None or pairs[0].reference is None:
        raise SettingsError(
            "--save-statistics without REFERENCES and --inception", expected="both of them"
        )


def _save_statistics(path: Path, networks: Networks, found: Evaluation) -> None:
    from sfumato.evaluation.statistics import Statistics, listed

    e, references = networks.extractor, found.references
    vectors, files = e.vectors(references), listed(references.files)
    Statistics.of(vectors, network=e.digest, protocol=e.protocol, pictures=files).save(path)


def _text(found: Evaluation, ending: str) -> str:
    from sfumato.evaluation.tables import as_csv, as_markdown

    if ending == ".json":
        return found.to_json()
    if ending == ".csv":
        return as_csv([found.summary], found.chosen.columns)
    n = f"{found.summary.n} pictures" if found.summary.n != 1 else "1 picture"
    return f"{n}\n\n{as_markdown([found.summary], found.chosen.columns, protocols=True)}\n"


def _write(path: Path, found: Evaluation) -> None:
    from sfumato.io import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(_text(found, path.suffix), encoding="utf-8")
