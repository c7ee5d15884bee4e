"""sfumato bench: what the engine costs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.commands import Kernel
from sfumato.cli.running import guarded, progress_bar, say

if TYPE_CHECKING:
    from sfumato.pipeline.bench import Events, Figures

bench_app = typer.Typer(help="Measure what the engine costs.", no_args_is_help=True)

FolderOption = Annotated[
    Path | None, typer.Option(help="Where there is room for the result and the job.")
]


@bench_app.command()
@guarded
def engine(
    side: Annotated[int, typer.Option(min=64, help="Of the result, in pixels.")] = 4096,
    steps: Annotated[int, typer.Option(min=1, help="Evaluations for each tile.")] = 4,
    kernel: Annotated[Kernel, typer.Option(help="How the input was made.")] = Kernel.box,
    tile: Annotated[int, typer.Option(min=64, help="Side in pixels.")] = 512,
    folder: FolderOption = None,
) -> None:
    """Stream a large result with a stand-in for the network that costs next to nothing."""
    from sfumato.pipeline.bench import bench_engine

    figures = _drain(bench_engine(side, steps, kernel.value, folder=folder, tile=tile))
    _tell(figures)


@bench_app.command()
@guarded
def overhead(
    side: Annotated[int, typer.Option(min=64, help="Of the result, in pixels.")] = 1024,
    folder: FolderOption = None,
) -> None:
    """Compare a restoration from its first tile to its last with the network's own time."""
    from sfumato.pipeline.bench import bench_overhead

    figures = _drain(bench_overhead(side, folder=folder))
    _tell(figures)
    tiles, network = figures.parts["first tile to last"], figures.parts["network"]
    say(f"first tile to last {tiles:.2f} s, network {network:.2f} s: {tiles / network:.3f} times")


def _drain(events: Events) -> Figures:
    from sfumato.pipeline import Advanced

    with progress_bar("bench") as advance:
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                figures: Figures = stop.value
                return figures
            if isinstance(event, Advanced):
                advance(event.done, event.total, event.stage)


def _tell(figures: Figures) -> None:
    say(
        f"{figures.side} x {figures.side}: {figures.tiles} tiles, {figures.evaluations} "
        f"evaluations, {figures.seconds:.1f} s ({figures.seconds_per_megapixel:.3f} s a "
        f"megapixel), peak memory {figures.peak_mb:.0f} MB, consistency "
        f"{figures.consistency_rmse_255:.3f}/255"
    )
    for name, seconds in sorted(figures.parts.items(), key=lambda part: -part[1]):
        if name != "first tile to last":
            say(f"  {name:16} {seconds:8.1f} s  {seconds / figures.seconds:6.1%}")
    rest = figures.seconds - sum(
        s for name, s in figures.parts.items() if name != "first tile to last"
    )
    say(f"  {'all else':16} {rest:8.1f} s  {rest / figures.seconds:6.1%}")
