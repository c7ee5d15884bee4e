"""How a training run goes, for those who watch it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from rich.progress import Progress

    from sfumato.training import Event, LeftOut, Started

_FEW_PHOTOGRAPHS = 100


@contextmanager
def training_progress(shown: bool) -> Iterator[Progress]:
    """Show bars on the terminal for a while, where ``shown``."""
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
class Display:
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
