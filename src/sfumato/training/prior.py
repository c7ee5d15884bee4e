"""Train a prior, a denoiser of photographs for any noise level, as a generator of events.

A run keeps its whole state in one file of its folder, so that one that was interrupted ends with
the same weights as one that was not: bit for bit on the same CPU with as many threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from sfumato.errors import ModelError
from sfumato.io.checkpoints import load_checkpoint
from sfumato.training.data import load_photographs
from sfumato.training.events import Event, Finished, Saved, Started, Stopped, Validated
from sfumato.training.run import Run
from sfumato.training.settings import PriorSettings
from sfumato.training.validation import denoising_psnr, load_holdout
from sfumato.zoo.prior import as_device

#: The files of a run in its folder.
STATE, RESULT = "state.safetensors", "prior.safetensors"

_REPORT_STEPS = 10


def train_prior(
    settings: PriorSettings,
    data: str | Path,
    out: str | Path,
    *,
    holdout: str | Path | None = None,
    device: str | torch.device = "cpu",
    save_minutes: float = 10.0,
    stop_minutes: float = math.inf,
    stop: Callable[[], bool] = lambda: False,
    compile_network: bool = False,
) -> Iterator[Event]:
    """Train on the photographs in ``data``, resuming what ``out`` holds; yield events.

    Every ``save_minutes`` the state is saved in ``out`` and the averaged weights are validated on
    the photographs in ``holdout``. When ``stop()`` is true after a step, or ``stop_minutes`` have
    passed in this call, the state is saved and the run ends with ``Stopped``: the same call goes
    on from there. At the end the averaged weights are exported as ``out/prior.safetensors``, which
    ``load_prior`` takes; a run that was finished yields ``Finished`` at once. ``compile_network``
    compiles the network, which pays on CUDA.

    Raises SettingsError where the photographs are too few or too small, or ``out`` holds a run
    with other settings or photographs; ModelError where the loss is no longer finite, or ``out``
    or ``settings.init`` hold something else.

    >>> for event in train_prior(PriorSettings(), "photos", "runs/prior"):  # doctest: +SKIP
    ...     print(event)
    """
    state, result = Path(out) / STATE, Path(out) / RESULT
    if _is_result_of(settings, result):
        yield Finished(settings.steps, result)
        return
    photographs = load_photographs(
        Path(data), min_side=max(settings.crop_cycle), halvings=settings.halvings
    )
    pictures = [] if holdout is None else load_holdout(Path(holdout))
    run = Run(settings, photographs, as_device(device))
    if state.is_file():
        run.restore(state)
    if compile_network:
        run.model.net.compile(dynamic=False)
    yield Started(
        step=run.step,
        n_steps=settings.steps,
        n_parameters=sum(p.numel() for p in run.model.parameters()),
        n_photographs=photographs.n_photographs,
        n_holdout=len(pictures),
        skipped=photographs.skipped,
    )
    yield from _advance(run, pictures, state, _Clock(save_minutes, stop_minutes), stop)
    if run.step < settings.steps:
        yield Stopped(run.step)
        return
    run.export(result)
    yield Finished(run.step, result)


def _advance(
    run: Run,
    pictures: Sequence[Tensor],
    state: Path,
    clock: _Clock,
    stop: Callable[[], bool],
) -> Iterator[Event]:
    """Take steps until all are done or it is time to stop, and leave the state saved."""
    while run.step < run.settings.steps:
        run.advance()
        last = run.step == run.settings.steps
        stopping = not last and (stop() or clock.over())
        saving = last or stopping or clock.due()
        if saving or run.step % _REPORT_STEPS == 0:
            yield run.report()
        if saving:
            run.save(state)
            yield Saved(run.step, state)
        if stopping:
            return
        if saving and pictures:
            yield Validated(run.step, denoising_psnr(run.average, pictures, device=run.device))


def stage_runs(
    stages: Sequence[PriorSettings], out: str | Path
) -> list[tuple[PriorSettings, Path]]:
    """Return what to train for each stage of a recipe, one after the other, and in which folder.

    The last stage works in ``out`` itself, the others in ``out/stage-1`` and so on; a later stage
    that names no ``init`` starts from the weights of the one before.

    >>> [str(folder) for _, folder in stage_runs([PriorSettings(), PriorSettings()], "runs")]
    ['runs/stage-1', 'runs']
    """
    folders = [Path(out) / f"stage-{n}" for n in range(1, len(stages))] + [Path(out)]
    runs = []
    for n, (settings, folder) in enumerate(zip(stages, folders, strict=True)):
        if n > 0 and settings.init is None:
            before = str(folders[n - 1] / RESULT)
            settings = settings.model_copy(update={"init": before})
        runs.append((settings, folder))
    return runs


@final
class _Clock:
    """When to save, and when to stop: minutes of this call."""

    def __init__(self, save_minutes: float, stop_minutes: float) -> None:
        self._period = 60 * save_minutes
        self._end = time.monotonic() + 60 * stop_minutes
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


def _is_result_of(settings: PriorSettings, result: Path) -> bool:
    """Whether ``result`` is a prior that a run with these ``settings`` has finished."""
    if not result.is_file():
        return False
    try:
        _, config = load_checkpoint(result)
    except ModelError:
        return False
    record = config.get("training")
    return isinstance(record, dict) and record.get("settings") == settings.model_dump(mode="json")
