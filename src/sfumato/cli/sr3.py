"""``sfumato sr3``: what SR3 models have of their own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato._events import Told
from sfumato.cli.bars import progress_bar
from sfumato.cli.saying import guarded, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfumato.evaluation import Event, Found, Measured, Planned, Search

sr3_app = typer.Typer(no_args_is_help=True)

#: Lines of a rung's table; all of them are in --table.
_SHOWN = 10
_SIDE = 64
#: Of the longest schedule as it is written.
_WIDTH = 26


class Distance(StrEnum):
    """Distances between sets of pictures."""

    frechet = "frechet"
    kernel = "kernel"


@sr3_app.callback()
def _sr3() -> None:
    """Tune SR3 models."""


@sr3_app.command()
@guarded
def search_schedule(
    model: Annotated[str, typer.Argument(help="Name or path of an SR3 model.")],
    data: Annotated[Path, typer.Option(help="Folder of photographs it was not trained on.")],
    steps: Annotated[int, typer.Option(min=1, help="Noise levels of the schedule.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where the model with its schedule goes.")
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Store the schedule in the model itself.")
    ] = False,
    budget: Annotated[
        int, typer.Option(min=1, help="Most evaluations of the network on a crop of 64 x 64.")
    ] = 30_000,
    distance: Annotated[
        Distance, typer.Option(help="Between features of samples and of true crops.")
    ] = Distance.frechet,
    dimensions: Annotated[
        int, typer.Option(min=1, help="Directions of the features that are looked at.")
    ] = 8,
    crops: Annotated[
        int, typer.Option(min=1, help="Most crops that a schedule is tried on.")
    ] = 288,
    consistent: Annotated[
        bool, typer.Option("--consistent", help="For samples that agree with their input exactly.")
    ] = False,
    table: Annotated[
        Path | None, typer.Option(help="CSV file for everything that was measured.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides every random number.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
) -> None:
    """Find the noise levels that an SR3 model is best sampled with, and store them with it.

    Schedules are judged by how far samples are from true photographs, not by PSNR.
    """
    from sfumato.evaluation import Search, check_place, load_crops, search_schedule, store_schedule
    from sfumato.metrics import PooledAlexNet
    from sfumato.zoo import load_prior

    search = Search(
        steps,
        budget,
        distance.value,
        dimensions=dimensions,
        seed=seed,
        consistent=consistent,
    )
    features = PooledAlexNet()
    prior = load_prior(model, device=device)
    out = _place(prior.source, output, in_place=in_place)
    check_place(out)
    scale = prior.super_resolution.scale if prior.super_resolution else 1
    held_out = load_crops(data, crops, side=-(-_SIDE // scale) * scale, seed=seed)
    for reason in held_out.skipped:
        say(f"skipped: {reason}")
    say(f"{len(held_out.x_0)} crops of {held_out.n_pictures} photographs")
    found = _shown(
        search_schedule(prior, held_out.x_0.to(device), search, features=features),
        f"AlexNet-{distance.value}",
    )
    if table is not None:
        _write_table(table, found.table)
    store_schedule(prior.source, out, found.best.candidate, _record(search, found))
    say(_summary(found))
    say(f"The model is {out}")


def _place(source: Path, output: Path | None, *, in_place: bool) -> Path:
    from sfumato.errors import SettingsError
    from sfumato.zoo import is_embedded

    if (output is None) != in_place:
        raise SettingsError(
            "both -o and --in-place"
            if in_place
            else "no place for the schedule that will be found",
            expected="-o OUT.safetensors, or --in-place to change the model itself",
        )
    if in_place and is_embedded(source):
        raise SettingsError(f"--in-place for {source.name}, which came with sfumato", do="use -o")
    return source if output is None else output


def _shown(events: Generator[Event, None, Found], distance: str) -> Found:
    """Exhaust a search, with a bar for each rung and its table after it."""
    from sfumato.evaluation import Planned

    rung: list[Measured] = []
    total = 0
    with ExitStack() as screen:
        advance = screen.enter_context(progress_bar("looking at the crops"))
        told = Told(events)
        for event in told:
            if isinstance(event, Planned):
                total = event.evaluations
                screen.close()
                say(_plan_lines(event, distance))
                advance = screen.enter_context(progress_bar("rung 1"))
                continue
            if rung and event.rung != rung[0].rung:
                screen.close()
                _print_rung(rung, distance)
                rung = []
                advance = screen.enter_context(progress_bar(f"rung {event.rung + 1}"))
            rung.append(event)
            advance(event.evaluations, total, "")
    _print_rung(rung, distance)
    return told.outcome


def _plan_lines(plan: Planned, distance: str) -> str:
    rungs = ", then ".join(f"{r.candidates} schedules on {r.crops} crops" for r in plan.rungs)
    return (
        f"{rungs}: {plan.evaluations} evaluations\n"
        f"the interpolated input: {distance} {plan.interpolated:.4f}, "
        f"PSNR {plan.interpolated_psnr:.2f} dB"
    )


def _print_rung(rung: Sequence[Measured], distance: str) -> None:
    """Print the best of a rung; the first one measured is the model's own schedule."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"rung {rung[0].rung + 1}: {rung[0].crops} crops", title_justify="left")
    shown.add_column("schedule", no_wrap=True, min_width=_WIDTH)
    shown.add_column("sampler", no_wrap=True)
    for name in (distance, "PSNR, dB"):
        shown.add_column(name, justify="right")
    ranked = sorted(rung, key=lambda m: m.distance)
    own = rung[0]
    for m in ranked[:_SHOWN] if own in ranked[:_SHOWN] else [*ranked[: _SHOWN - 1], own]:
        c = m.candidate
        first, last = c.sigmas[0], c.sigmas[-1]
        schedule = f"its own, {first:.3g} to {last:.3g}" if m is own else c.schedule
        shown.add_row(schedule, c.sampler, f"{m.distance:.4f}", f"{m.psnr:.2f}")
    if len(ranked) > _SHOWN:
        shown.caption = f"the best of {len(ranked)}"
    Console().print(shown)


def _summary(found: Found) -> str:
    best, own = found.best, found.own
    if best.candidate == own.candidate:
        return f"None is better than its own schedule, {own.distance:.4f}"
    return (
        f"{best.candidate.schedule} with {best.candidate.sampler}: {best.distance:.4f}, "
        f"PSNR {best.psnr:.2f} dB; its own schedule {own.distance:.4f}, {own.psnr:.2f} dB"
    )


def _record(search: Search, found: Found) -> dict[str, object]:
    """Return what is written down with the model."""
    from dataclasses import asdict

    from sfumato._version import __version__

    return {
        **asdict(search),
        "schedule": found.best.candidate.schedule,
        "crops": found.best.crops,
        "features": "AlexNet",
        "found": found.best.distance,
        "before": found.own.distance,
        "evaluations": found.table[-1].evaluations,
        "version": __version__,
    }


def _write_table(path: Path, table: Sequence[Measured]) -> None:
    """Write everything that was measured as CSV."""
    import csv

    from sfumato.io import atomic_path

    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["rung", "crops", "schedule", "sampler", "distance", "psnr", "evaluations"])
        for m in table:
            c = m.candidate
            rows.writerow(
                [m.rung + 1, m.crops, c.schedule, c.sampler, m.distance, m.psnr, m.evaluations]
            )
