"""Train, as a generator of events: steps, saved states, figures, and the model at the end.

A run keeps its whole state in one file of its folder, so that one that was interrupted ends with
the same weights as one that was not: bit for bit on the same CPU with as many threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, final

from sfumato.diffusion.arithmetic import Kernels, use_kernels
from sfumato.errors import ModelError
from sfumato.io.checkpoints import load_checkpoint
from sfumato.training.events import (
    Event,
    Finished,
    LeftOut,
    Saved,
    Started,
    Stopped,
    Validated,
)
from sfumato.training.lesson import Lesson
from sfumato.training.processes import Alone, Processes
from sfumato.training.run import Run, with_defaults
from sfumato.training.settings import RunSettings
from sfumato.zoo.prior import as_device

#: The file of a run's state, in its folder.
STATE = "state.safetensors"

_REPORT_STEPS = 10


@dataclass(frozen=True)
class Schedule:
    """When to save and when to stop, and on what to compute.

    Every ``save_minutes`` the state is saved and the averaged weights are validated. When
    ``stop()`` is true after a step, or ``stop_minutes`` have passed in this call, the state is
    saved and the run ends: the same call goes on from there. ``compile_network`` compiles the
    network, which pays on CUDA. ``processes`` are those that train together: all make the same
    call, yield the same events but for ``Validated``, and the main one writes.
    """

    device: str = "cpu"
    save_minutes: float = 10.0
    stop_minutes: float = math.inf
    stop: Callable[[], bool] = lambda: False
    compile_network: bool = False
    processes: Processes = field(default_factory=Alone)


def train(
    settings: RunSettings,
    lesson: Callable[[str], Lesson],
    out: Path,
    result: str,
    schedule: Schedule,
) -> Iterator[Event]:
    """Train ``lesson(device)``, resuming what ``out`` holds, up to the model ``out/result``.

    Raises SettingsError where ``out`` holds a run with other settings or photographs, ModelError
    where the loss is no longer finite, or ``out`` holds something else.
    """
    state, end = out / STATE, out / result
    if _is_result_of(settings, end):
        yield Finished(settings.steps, end)
        return
    device = as_device(schedule.device)
    run = Run(settings, lesson(str(device)), device, schedule.processes)
    if state.is_file():
        run.restore(state)
    yield Started(
        step=run.step,
        n_steps=settings.steps,
        n_parameters=sum(p.numel() for p in run.model.parameters()),
        n_photographs=run.lesson.source.n_photographs,
        n_holdout=run.lesson.n_holdout,
        skipped=run.lesson.source.skipped,
    )
    yield from _advance(run, state, schedule)
    if run.step < settings.steps:
        yield Stopped(run.step)
        return
    if run.processes.main:
        run.export(end)
    run.processes.wait()
    yield Finished(run.step, end)


def _advance(run: Run, state: Path, schedule: Schedule) -> Iterator[Event]:
    """Take steps until all are done or it is time to stop, and leave the state saved."""
    clock, stop = _Clock(schedule), schedule.stop
    kernels: Kernels = "compiled" if schedule.compile_network else "eager"
    main, told = run.processes.main, len(run.lesson.source.skipped)
    while run.step < run.settings.steps:
        with use_kernels(kernels):
            run.advance()
        last = run.step == run.settings.steps
        asked, due = run.processes.any(stop() or (main and clock.over()), main and clock.due())
        stopping = asked and not last
        saving = last or stopping or due
        if saving or run.step % _REPORT_STEPS == 0:
            yield run.report()
        if more := run.lesson.source.skipped[told:]:
            told += len(more)
            yield LeftOut(run.step, more)
        if saving:
            if main:
                run.save(state)
            yield Saved(run.step, state)
        if stopping:
            run.processes.wait()
            return
        if saving and main and (figures := run.lesson.figures(run.average)):
            yield Validated(run.step, figures, run.lesson.sheet(run.average))


AnySettings = TypeVar("AnySettings", bound=RunSettings)


def stage_runs(
    stages: Sequence[AnySettings], out: str | Path, result: str
) -> list[tuple[AnySettings, Path]]:
    """Return what to train for each stage of a recipe, one after the other, and in which folder.

    The last stage works in ``out`` itself, the others in ``out/stage-1`` and so on; a later stage
    that names no ``init`` starts from the ``result`` of the one before.

    >>> from sfumato.training import PriorSettings
    >>> stages = [PriorSettings(), PriorSettings()]
    >>> [str(folder) for _, folder in stage_runs(stages, "runs", "prior.safetensors")]
    ['runs/stage-1', 'runs']
    """
    folders = [Path(out) / f"stage-{n}" for n in range(1, len(stages))] + [Path(out)]
    runs = []
    for n, (settings, folder) in enumerate(zip(stages, folders, strict=True)):
        if n > 0 and settings.init is None:
            before = str(folders[n - 1] / result)
            settings = settings.model_copy(update={"init": before})
        runs.append((settings, folder))
    return runs


@final
class _Clock:
    """When to save, and when to stop: minutes of this call."""

    def __init__(self, schedule: Schedule) -> None:
        self._period = 60 * schedule.save_minutes
        self._end = time.monotonic() + 60 * schedule.stop_minutes
        self._next = time.monotonic() + self._period

    def over(self) -> bool:
        """Whether the time of this call is over."""
        return time.monotonic() >= self._end

    def due(self) -> bool:
        """Whether it is time to save; then the next time is set."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + self._period
        return True


def _is_result_of(settings: RunSettings, result: Path) -> bool:
    """Whether ``result`` is a model that a run with these ``settings`` has finished."""
    if not result.is_file():
        return False
    try:
        _, config = load_checkpoint(result)
    except ModelError:
        return False
    record = config.get("training")
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        return False
    return with_defaults(settings, record["settings"]) == settings.model_dump(mode="json")
