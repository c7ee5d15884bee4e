"""``sfumato train``: train the models on one's own photographs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from sfumato.cli.groups import with_group
from sfumato.cli.saying import guarded
from sfumato.cli.training_display import Display, training_progress

if TYPE_CHECKING:
    from sfumato.training import Event, Processes, Schedule
    from sfumato.training.settings import RunSettings

_Settings = TypeVar("_Settings", bound="RunSettings")
_Told = TypeVar("_Told", bound="RunSettings", contravariant=True)


class _Train(Protocol[_Told]):
    """What all trainings are called like."""

    def __call__(
        self,
        settings: _Told,
        data: str,
        out: Path,
        *,
        holdout: str | None,
        schedule: Schedule,
    ) -> Iterator[Event]: ...


train_app = typer.Typer(no_args_is_help=True)

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


@dataclass(frozen=True)
class Shared:
    """What every training is told."""

    data: Annotated[str, typer.Option(help=_DATA)]
    out: Annotated[Path, typer.Option(help="Folder of the run; what it holds is resumed.")]
    holdout: Annotated[
        str | None, typer.Option(help="Photographs to validate on, named like --data.")
    ] = None
    recipe: Annotated[
        Path | None,
        typer.Option(help="Settings, in stages (recipes/prior.toml, recipes/sr3.toml)."),
    ] = None
    init: Annotated[
        str | None, typer.Option(help='Weights to start from: a checkpoint or "embedded".')
    ] = None
    steps: Annotated[int | None, typer.Option(help="Steps of the whole training.")] = None
    minutes: Annotated[
        float | None, typer.Option(help="Stop after this time; the next call goes on.")
    ] = None
    batch: Annotated[
        int | None, typer.Option(help="Crops of 64 x 64 a step (fewer where they are larger).")
    ] = None
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Parts of a step's batch, to save memory.")
    ] = None
    prepare: Annotated[int | None, typer.Option(help=_PREPARE)] = None
    save_minutes: Annotated[float, typer.Option(help="Time between saved states.")] = 10.0
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    seed: Annotated[int | None, typer.Option(help="Decides every random number.")] = None

    def given(self, **more: object) -> dict[str, object]:
        """Return what was said of the settings, and ``more``; None where nothing was."""
        names = ("init", "steps", "batch", "accumulate", "prepare", "seed")
        return {name: getattr(self, name) for name in names} | more

    def run(self, stages: Sequence[_Settings], train: _Train[_Settings], result: str) -> None:
        """Train stage after stage up to the file ``result`` of the run's folder."""
        _run(
            stages,
            self.out,
            result,
            lambda settings, folder, schedule: train(
                settings, self.data, folder, holdout=self.holdout, schedule=schedule
            ),
            device=self.device,
            minutes=self.minutes,
            save_minutes=self.save_minutes,
        )


@train_app.command()
@guarded
@with_group(Shared, "shared")
def prior(shared: Shared) -> None:
    """Train a prior: a denoiser of photographs, which every restoration stands on.

    Ctrl-C saves the state and ends; the same command goes on from there, to the same weights.
    """
    from sfumato.training import PriorSettings, train_prior
    from sfumato.training.prior import RESULT

    stages = _stages(PriorSettings, shared.recipe, shared.given())
    shared.run(stages, train_prior, RESULT)


@train_app.command()
@guarded
@with_group(Shared, "shared")
def sr3(
    shared: Shared,
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
) -> None:
    """Train SR3, super-resolution by iterative refinement, or its regression baseline.

    Ctrl-C saves the state and ends; the same command goes on from there, to the same weights.
    """
    from sfumato.errors import SettingsError
    from sfumato.training import SR3Settings, sr3_preset, train_sr3
    from sfumato.training.sr3 import RESULT

    if shared.recipe and preset:
        raise SettingsError("--recipe and --preset", expected="one of them")
    given = shared.given(scale=scale, regression_share=1.0 if regression else None)
    stages = _stages(SR3Settings, shared.recipe, given, sr3_preset(preset) if preset else {})
    shared.run(stages, train_sr3, RESULT)


@train_app.command()
@guarded
@with_group(Shared, "shared")
def generator(
    shared: Shared,
    classes: Annotated[
        bool, typer.Option("--classes", help="The folder of a picture is its class.")
    ] = False,
) -> None:
    """Train a generator: a model of small whole images, of classes or of none.

    Ctrl-C saves the state and ends; the same command goes on from there, to the same weights.
    """
    from sfumato.training import GeneratorSettings, train_generator
    from sfumato.training.generator import RESULT

    stages = _stages(GeneratorSettings, shared.recipe, shared.given(classes=classes or None))
    shared.run(stages, train_generator, RESULT)


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
    with _interruption() as interrupted, training_progress(processes.main) as progress:
        for number, (settings, folder) in enumerate(runs, 1):
            show, log = Display(progress, f"stage {number} of {len(runs)}"), Log(folder)
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
