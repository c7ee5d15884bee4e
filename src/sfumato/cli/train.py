"""``sfumato train``: train the models on one's own photographs."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, TypeVar, final

import typer

from sfumato.cli.running import guarded

if TYPE_CHECKING:
    from rich.progress import Progress

    from sfumato.training import Event, LeftOut, Processes, Schedule, Started
    from sfumato.training.settings import RunSettings

    _Settings = TypeVar("_Settings", bound=RunSettings)

train_app = typer.Typer(help="Train models on your own photographs.", no_args_is_help=True)

_FEW_PHOTOGRAPHS = 100
_INTERRUPTED = 130
_CROP_PIXELS = 64 * 64

_DATA = (
    "Photographs to train on: a folder, a dataset (hf:NAME, hf:NAME:SPLIT, or a folder or file of "
    "parquet or arrow), or shards (photos-{00..12}.tar, or a folder of .tar)."
)
_PREPARE = (
    "Drop smaller pictures, resize the largest square in the middle by area to this side, and "
    "train on that, half of them mirrored; else on random crops."
)


@train_app.callback()
def _train() -> None:
    """Train models on your own photographs."""


DataOption = Annotated[str, typer.Option(help=_DATA)]
OutOption = Annotated[Path, typer.Option(help="Folder of the run; what it holds is resumed.")]
HoldoutOption = Annotated[
    str | None, typer.Option(help="Photographs to validate on, named like --data.")
]
RecipeOption = Annotated[
    Path | None, typer.Option(help="Settings, in stages (recipes/prior.toml, recipes/sr3.toml).")
]
InitOption = Annotated[
    str | None, typer.Option(help='Weights to start from: a checkpoint or "embedded".')
]
StepsOption = Annotated[int | None, typer.Option(help="Steps of the whole training.")]
MinutesOption = Annotated[
    float | None, typer.Option(help="Stop after this time; the next call goes on.")
]
BatchOption = Annotated[
    int | None, typer.Option(help="Crops of 64 x 64 a step (fewer where they are larger).")
]
PrepareOption = Annotated[int | None, typer.Option(help=_PREPARE)]
AccumulateOption = Annotated[
    int | None, typer.Option(min=1, help="Parts of a step's batch, to save memory.")
]
SaveOption = Annotated[float, typer.Option(help="Time between saved states.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
SeedOption = Annotated[int | None, typer.Option(help="Decides every random number.")]


@train_app.command()
@guarded
def prior(
    data: DataOption,
    out: OutOption,
    holdout: HoldoutOption = None,
    recipe: RecipeOption = None,
    init: InitOption = None,
    steps: StepsOption = None,
    minutes: MinutesOption = None,
    batch: BatchOption = None,
    accumulate: AccumulateOption = None,
    prepare: PrepareOption = None,
    save_minutes: SaveOption = 10.0,
    device: DeviceOption = "auto",
    seed: SeedOption = None,
) -> None:
    """Train a prior: a denoiser of photographs, which every restoration stands on.

    Ctrl-C saves the state and ends; the same command goes on from there, to the same weights.
    """
    from sfumato.training import PriorSettings, train_prior
    from sfumato.training.prior import RESULT

    given: dict[str, object] = {
        "init": init,
        "steps": steps,
        "batch": batch,
        "accumulate": accumulate,
        "prepare": prepare,
        "seed": seed,
    }
    _run(
        _stages(PriorSettings, recipe, given),
        out,
        RESULT,
        lambda settings, folder, schedule: train_prior(
            settings, data, folder, holdout=holdout, schedule=schedule
        ),
        device=device,
        minutes=minutes,
        save_minutes=save_minutes,
    )


@train_app.command()
@guarded
def sr3(
    data: DataOption,
    out: OutOption,
    holdout: HoldoutOption = None,
    recipe: RecipeOption = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="cpu (the default), gpu-small, public, or the paper's 16-128, 64-256, 64-512, "
            "256-1024."
        ),
    ] = None,
    regression: Annotated[
        bool, typer.Option("--regression", help="Train the regression baseline alone.")
    ] = False,
    scale: Annotated[
        int | None, typer.Option("-s", "--scale", help="How many times larger.")
    ] = None,
    init: InitOption = None,
    steps: StepsOption = None,
    minutes: MinutesOption = None,
    batch: BatchOption = None,
    accumulate: AccumulateOption = None,
    prepare: PrepareOption = None,
    save_minutes: SaveOption = 10.0,
    device: DeviceOption = "auto",
    seed: SeedOption = None,
) -> None:
    """Train SR3, super-resolution by iterative refinement, or its regression baseline.

    Ctrl-C saves the state and ends; the same command goes on from there, to the same weights.
    """
    from sfumato.errors import SettingsError
    from sfumato.training import SR3Settings, sr3_preset, train_sr3
    from sfumato.training.sr3 import RESULT

    if recipe and preset:
        raise SettingsError("--recipe and --preset", expected="one of them")

    given: dict[str, object] = {
        "init": init,
        "steps": steps,
        "batch": batch,
        "accumulate": accumulate,
        "prepare": prepare,
        "seed": seed,
        "scale": scale,
        "regression_share": 1.0 if regression else None,
    }
    _run(
        _stages(SR3Settings, recipe, given, sr3_preset(preset) if preset else {}),
        out,
        RESULT,
        lambda settings, folder, schedule: train_sr3(
            settings, data, folder, holdout=holdout, schedule=schedule
        ),
        device=device,
        minutes=minutes,
        save_minutes=save_minutes,
    )


@train_app.command()
@guarded
def generator(
    data: DataOption,
    out: OutOption,
    holdout: HoldoutOption = None,
    recipe: RecipeOption = None,
    classes: Annotated[
        bool, typer.Option("--classes", help="The folder of a picture is its class.")
    ] = False,
    init: InitOption = None,
    steps: StepsOption = None,
    minutes: MinutesOption = None,
    batch: BatchOption = None,
    accumulate: AccumulateOption = None,
    prepare: PrepareOption = None,
    save_minutes: SaveOption = 10.0,
    device: DeviceOption = "auto",
    seed: SeedOption = None,
) -> None:
    """Train a generator: a model of small whole images, of classes or of none.

    Ctrl-C saves the state and ends; the same command goes on from there, to the same weights.
    """
    from sfumato.training import GeneratorSettings, train_generator
    from sfumato.training.generator import RESULT

    given: dict[str, object] = {
        "init": init,
        "steps": steps,
        "batch": batch,
        "accumulate": accumulate,
        "prepare": prepare,
        "seed": seed,
        "classes": classes or None,
    }
    _run(
        _stages(GeneratorSettings, recipe, given),
        out,
        RESULT,
        lambda settings, folder, schedule: train_generator(
            settings, data, folder, holdout=holdout, schedule=schedule
        ),
        device=device,
        minutes=minutes,
        save_minutes=save_minutes,
    )


def _run(
    stages: Sequence[_Settings],
    out: Path,
    result: str,
    train: Callable[[_Settings, Path, Schedule], Iterator[Event]],
    *,
    device: str,
    minutes: float | None,
    save_minutes: float,
) -> None:
    """Train stage after stage, show and log how it goes, and end when asked to.

    Of several processes that train together, the main one shows and logs.
    """
    from sfumato.training import Log, Schedule, Stopped, stage_runs

    processes, where = _processes(device)
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    runs = stage_runs(stages, out, result)
    with _interruption() as interrupted, _progress(processes.main) as progress:
        for number, (settings, folder) in enumerate(runs, 1):
            show, log = _Display(progress, f"stage {number} of {len(runs)}"), Log(folder)
            if number == 1 and processes.main and log.remark:
                progress.console.print(log.remark, highlight=False, markup=False)
            schedule = Schedule(
                device=where,
                save_minutes=save_minutes,
                stop_minutes=(end - time.monotonic()) / 60,
                stop=lambda: bool(interrupted),
                compile_network=where.startswith("cuda"),
                processes=processes,
            )
            for event in train(settings, folder, schedule):
                if processes.main:
                    show(event)
                    log(event)
            if isinstance(event, Stopped):
                break
    processes.leave()
    if isinstance(event, Stopped):
        raise typer.Exit(_INTERRUPTED if interrupted else 0)


def _stages(
    kind: type[_Settings],
    recipe: Path | None,
    given: dict[str, object],
    preset: Mapping[str, object] | None = None,
) -> list[_Settings]:
    """Return the recipe's stages, or one of a preset, with the options of the command line."""
    from sfumato.errors import SettingsError
    from sfumato.training import load_recipe

    stages = load_recipe(recipe, kind) if recipe else [kind.of(preset or {})]
    if len(stages) > 1 and given["steps"] is not None:
        raise SettingsError(
            f"--steps for a recipe of {len(stages)} stages", do="write the steps in the recipe"
        )
    changes = {name: value for name, value in given.items() if value is not None}
    if "batch" in changes:
        changes["batch_pixels"] = int(str(changes.pop("batch"))) * _CROP_PIXELS
    first = changes.pop("init", stages[0].init)
    told = [s.model_dump(exclude_unset=True) for s in stages]
    if "prepare" in changes:
        for values in told:  # what followed from another side follows from this one
            if values.get("crop_cycle") == (values.get("prepare"),):
                del values["crop_cycle"]
    stages = [kind.of(values | changes, where="options") for values in told]
    stages[0] = stages[0].model_copy(update={"init": first})
    return stages


def _processes(device: str) -> tuple[Processes, str]:
    """Return the processes that a launcher started, this one among them, and its device."""
    import torch

    from sfumato.training import Alone, Together

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        together = Together(cpu=device == "cpu")
        return together, together.device if device in ("auto", "cuda") else device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Alone(), device


@contextmanager
def _interruption() -> Iterator[list[int]]:
    """Collect Ctrl-C and the request to terminate in a list; a second one ends at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(shown: bool) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        disable=not shown,
    ) as progress:
        yield progress


@final
class _Display:
    """Shows the events of one run: a bar with loss and time left, and a line for what stays."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None, told="reading the photographs")
        self._left = TimeLeft()
        self._n_steps = 0
        self._loss = float("nan")

    def __call__(self, event: Event) -> None:
        """Show ``event``."""
        from sfumato.training import Finished, Started, Stepped

        if isinstance(event, Started):
            self._n_steps = event.n_steps
            self._progress.update(self._task, total=event.n_steps, completed=event.step, told="")
        if isinstance(event, Stepped):
            self._loss = event.loss
            left = self._left(event.step, self._n_steps, time.monotonic())
            told = f"loss {event.loss:.4f}  {left}"
            self._progress.update(self._task, completed=event.step, told=told)
        if isinstance(event, Finished):
            self._progress.update(self._task, total=event.step, completed=event.step, told="done")
        for line in describe(event, self._loss):
            self._progress.console.print(line, highlight=False, markup=False)


@final
class TimeLeft:
    """The time left, by the speed of the last reports, pauses to save and validate included."""

    def __init__(self, n_reports: int = 200) -> None:
        self._reports: deque[tuple[int, float]] = deque(maxlen=n_reports)

    def __call__(self, step: int, n_steps: int, now: float) -> str:
        """Note that ``step`` is done at ``now`` (seconds); return the time left in words.

        >>> left = TimeLeft()
        >>> left(10, 1000, 0.0), left(20, 1000, 60.0)
        ('', '1 h 38 min left')
        """
        self._reports.append((step, now))
        first, began = self._reports[0]
        if step == first:
            return ""
        minutes = round((n_steps - step) * (now - began) / (step - first) / 60)
        if minutes < 1:
            return "less than a minute left"
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes:02d} min left" if hours else f"{minutes} min left"


def describe(event: Event, loss: float) -> list[str]:
    """Return the lines that an event leaves on the screen; ``loss`` is the last one reported."""
    from sfumato.training import Finished, LeftOut, Saved, Started, Stopped, Validated

    match event:
        case Started():
            lines = _skipped(event)
            if event.n_photographs < _FEW_PHOTOGRAPHS:
                lines.append(
                    f"Only {event.n_photographs} photographs: it will learn them by heart."
                )
            lines.append(
                f"{event.n_parameters / 1e6:.1f} million parameters, {event.n_photographs} "
                f"photographs, {event.n_holdout} held out, from step {event.step}"
            )
            return lines
        case LeftOut():
            return _skipped(event)
        case Validated():
            return [f"step {event.step}  loss {loss:.4f}  {_shown(event.figures)}"]
        case Stopped():
            return [f"Stopped at step {event.step}. The same command goes on from there."]
        case Finished():
            return [f"The model is {event.path}"]
        case Saved():
            return [f"step {event.step}  loss {loss:.4f}  saved"]
        case _:
            return []


def _skipped(event: Started | LeftOut) -> list[str]:
    return [f"{s.path}: skipped, {s.reason}" for s in event.skipped]


def _shown(figures: Mapping[str, float]) -> str:
    """Write figures, with what their names have in common written once.

    >>> _shown({"dB at noise 0.1": 35.2, "dB at noise 0.2": 31.512})
    'dB at noise 0.1: 35.20  0.2: 31.51'
    """
    shown, before = [], ""
    for name, value in figures.items():
        common, _, last = name.rpartition(" ")
        shown.append(f"{last if common and common == before else name}: {value:.2f}")
        before = common
    return "  ".join(shown)
