"""sfumato bench: benchmarks by their recipes, and what the engine costs on this machine."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

import typer

from sfumato.cli import recipes
from sfumato.cli.bars import behind_a_bar, progress_bar
from sfumato.cli.cascades import Kernel
from sfumato.cli.options import Objective, Precision
from sfumato.cli.saying import guarded, say

if TYPE_CHECKING:
    from sfumato.pipeline import Event
    from sfumato.pipeline.bench import Figures
    from sfumato.pipeline.settings import StitchChoice

T = TypeVar("T")

bench_app = typer.Typer(cls=recipes.Recipes, no_args_is_help=True)
recipes.add_to(bench_app)

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
    model: Annotated[str, typer.Option("-n", "--model", help="Name or path.")] = "embedded",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Evaluations for each tile. Default: the task's.")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=16, help="Side in pixels. Default: the model's.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Tiles at once.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    precision: Annotated[
        Precision, typer.Option(help="Arithmetic of the network.")
    ] = Precision.auto,
    folder: FolderOption = None,
) -> None:
    """Compare a restoration from its first tile to its last with the network's own time.

    Tells how long an evaluation of the network takes, and a tile; what share is spent outside the
    network; and how many megapixels an hour brings.
    """
    from sfumato.pipeline import make_settings
    from sfumato.pipeline.bench import bench_overhead
    from sfumato.zoo import load_prior

    prior = load_prior(model, device=device, precision=precision.value)
    settings = make_settings(steps=steps, tile=tile, batch=batch)
    figures = _drain(
        bench_overhead(side, prior=prior, device=device, settings=settings, folder=folder)
    )
    _tell(figures)
    tiles, network = figures.parts["first tile to last"], figures.parts["network"]
    say(
        f"{prior.name} in {prior.precision} on {device}: "
        f"{1e3 * network / figures.evaluations:.1f} ms an evaluation of a tile, "
        f"{1e3 * tiles / figures.tiles:.0f} ms a tile, "
        f"{1 - network / tiles:.1%} outside the network, "
        f"{figures.side**2 / 1e6 / tiles * 3600:.1f} megapixels an hour"
    )
    say(f"first tile to last {tiles:.2f} s, network {network:.2f} s: {tiles / network:.3f} times")


@bench_app.command()
@guarded
def sr3(
    preset: Annotated[
        str,
        typer.Option(help="cpu, gpu-small, 16-128, ...; public: the public implementation's."),
    ] = "cpu",
    side: Annotated[int, typer.Option(min=16, help="Of the images, in pixels.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 2,
    precision: Annotated[str, typer.Option(help="fp32, bf16, or both.")] = "both",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
) -> None:
    """Time a training step and a sampling step of SR3."""
    from sfumato.errors import SettingsError
    from sfumato.training import SR3Settings, sr3_preset
    from sfumato.training.speed import sr3_speed

    if precision not in ("fp32", "bf16", "both"):
        raise SettingsError(f"--precision {precision}", expected="fp32, bf16 or both")
    for one in ("fp32", "bf16") if precision == "both" else (precision,):
        settings = SR3Settings.of(sr3_preset(preset) | {"precision": one, "accumulate": 1})
        speed = sr3_speed(settings, side, batch, device=device)
        say(
            f"{preset}, {speed.n_parameters / 1e6:.1f} M parameters, {batch} x {side} x {side}, "
            f"{one}: training step {speed.training:.3f} s, sampling step {speed.sampling:.3f} s"
        )


@bench_app.command()
@guarded
def methods(
    photographs: Annotated[Path, typer.Argument(help="A folder of photographs.")],
    only: Annotated[
        str,
        typer.Option(
            "--methods", help="With spaces between them: 'ddnm dps:zeta=3'. Default: all."
        ),
    ] = "",
    tasks: Annotated[str, typer.Option(help="With commas between them. Default: all.")] = "",
    stitch: Annotated[
        str, typer.Option(help="With commas between them.")
    ] = "whole,joint,mask-shift,independent",
    model: Annotated[str, typer.Option("-n", "--model", help="Name or path.")] = "embedded",
    crops: Annotated[int, typer.Option(min=1, help="Parts of photographs to restore.")] = 3,
    side: Annotated[int, typer.Option(min=32, help="Of each part, in pixels.")] = 128,
    tile: Annotated[int, typer.Option(min=16, help="Side in pixels.")] = 96,
    overlap: Annotated[int, typer.Option(min=0, help="In pixels.")] = 32,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Evaluations for each tile. Default: the task's.")
    ] = None,
    objective: Annotated[
        Objective, typer.Option(help="Least error, or one natural sample.")
    ] = Objective.perception,
) -> None:
    """Compare methods, stitch by stitch, task by task, on parts of photographs: a table of each.

    A cell holds PSNR in dB and, where its weights are installed, shift-tolerant LPIPS.
    """
    from sfumato.errors import SettingsError
    from sfumato.evaluation import Comparison, as_markdown, compare_methods, load_crops
    from sfumato.evaluation.methods import TASKS
    from sfumato.guidance import METHODS
    from sfumato.metrics import ShiftTolerantLPIPS
    from sfumato.zoo import load_prior

    comparison = Comparison(
        methods=only.split() or tuple(METHODS),
        stitches=cast("list[StitchChoice]", stitch.split(",")),
        tasks=tasks.split(",") if tasks else tuple(TASKS),
        tile=tile,
        overlap=overlap,
        steps=steps,
        objective=objective.value,
    )
    pictures = [(x + 1) / 2 for x in load_crops(photographs, crops, side=side).x_0]
    try:
        distance = ShiftTolerantLPIPS()
    except SettingsError:
        distance = None
    rows = []
    total = len(comparison.tasks) * len(comparison.stitches) * len(comparison.methods)
    with progress_bar("methods") as advance:
        for row in compare_methods(pictures, load_prior(model), comparison, distance=distance):
            rows.append(row)
            advance(len(rows), total, f"{row.task}, {row.stitch}, {row.method}")
    for task in comparison.tasks:
        say(f"\n{task} ({TASKS[task]}):\n")
        say(as_markdown([row for row in rows if row.task == task]))


@bench_app.command()
@guarded
def linear(
    sides: Annotated[
        str, typer.Option(help="Of the results, in pixels, with commas.")
    ] = "512,960,1856,2752,3200,4096",
    steps: Annotated[int, typer.Option(min=1, help="Evaluations for each tile.")] = 2,
    repeats: Annotated[
        int, typer.Option(min=1, help="Runs of each size, of which the fastest counts.")
    ] = 1,
    folder: FolderOption = None,
) -> None:
    """Restore results of several sizes, and see whether the time grows as their pixels do.

    Sides of 512 + 448 k are made of whole tiles.
    """
    from sfumato.errors import SettingsError
    from sfumato.pipeline.bench import bench_linear

    sizes = [int(n) for n in sides.split(",") if n.strip().isdigit()]
    if len(sizes) != len(sides.split(",")) or len(set(sizes)) < 3 or min(sizes) < 64:
        raise SettingsError(f"--sides {sides}", expected="at least three, each 64 or more")
    runs, in_seconds, in_evaluations = _drain(
        bench_linear(sizes, steps, repeats=repeats, folder=folder)
    )
    for f in runs:
        seconds = f.parts["first tile to last"]
        say(
            f"{f.side:6} x {f.side:<6} {f.tiles:5} tiles {seconds:8.2f} s "
            f"{seconds / (f.side**2 / 1e6):7.3f} s a megapixel"
        )
    say(f"seconds = a + b pixels: R² = {in_seconds:.5f}")
    say(f"seconds over those of an evaluation = a + b pixels: R² = {in_evaluations:.5f}")


@bench_app.command()
@guarded
def workers(
    side: Annotated[int, typer.Option(min=64, help="Of the results, in pixels.")] = 4096,
    steps: Annotated[int, typer.Option(min=1, help="Evaluations for each tile.")] = 2,
    n: Annotated[int, typer.Option("--workers", min=2, help="How many.")] = 2,
    ray: Annotated[bool, typer.Option("--ray", help="On a Ray that is started here.")] = False,
    folder: FolderOption = None,
) -> None:
    """Compare workers that share one picture with processes that have one each."""
    from sfumato.pipeline.bench import bench_workers
    from sfumato.tiling.on_ray import OnRay
    from sfumato.tiling.processes import Processes

    with OnRay(n, threads=1) if ray else Processes(["cpu"] * n, threads=1) as executor:
        together, apart = _drain(bench_workers(side, steps, n, executor, folder=folder))
    size = side**2 / 1e6
    share = apart / (n * together)
    say(f"{n} workers, one picture: {together:.1f} s, {size / together:.4f} megapixels a second")
    say(f"{n} processes, one each: {apart:.1f} s, {n * size / apart:.4f} megapixels a second")
    say(f"the workers reach {share:.3f} of the processes' throughput")


def _drain(events: Generator[Event, None, T]) -> T:
    from sfumato.pipeline import Advanced

    def place(event: Event) -> tuple[int, int, str] | None:
        return (event.done, event.total, event.stage) if isinstance(event, Advanced) else None

    return behind_a_bar(events, "bench", place)


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
    parts = sum(s for name, s in figures.parts.items() if name != "first tile to last")
    rest = max(0.0, figures.seconds - parts)  # on a GPU parts go on side by side
    say(f"  {'all else':16} {rest:8.1f} s  {rest / figures.seconds:6.1%}")
