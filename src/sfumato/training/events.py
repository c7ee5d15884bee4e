"""What a training run tells while it goes: the values that its generator yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from sfumato.training.pictures import Skipped


@dataclass(frozen=True)
class Started:
    """The photographs are read and the network stands; training goes on from ``step``."""

    step: int
    n_steps: int
    n_parameters: int
    n_photographs: int
    n_holdout: int
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Stepped:
    """``step`` steps are done; ``loss`` is the mean over those since the last such event."""

    step: int
    loss: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Validated:
    """What was measured of the averaged weights on the held-out photographs, by name.

    ``sheet`` shows what they do on a few of these: (3, height, width) in [0, 1], or None.
    """

    step: int
    figures: dict[str, float]
    sheet: Tensor | None = field(default=None, compare=False)


@dataclass(frozen=True)
class LeftOut:
    """More pictures turned out to be of no use, as shards were decoded."""

    step: int
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Saved:
    """All that a resume needs is on the disk."""

    step: int
    path: Path


@dataclass(frozen=True)
class Stopped:
    """The run was asked to stop, or its time is over, and has saved its state."""

    step: int


@dataclass(frozen=True)
class Finished:
    """All steps are done and the averaged weights are exported, as a model that can be loaded."""

    step: int
    path: Path


Event: TypeAlias = Started | Stepped | Validated | LeftOut | Saved | Stopped | Finished
