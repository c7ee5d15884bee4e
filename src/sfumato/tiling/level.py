"""What a level of the image is to the engine: everything it may ask for, window by window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from sfumato._typing import CoarseImages, Images, Shape
from sfumato.diffusion import NoiseField
from sfumato.guidance import Measurement
from sfumato.operators import Bound, Window

#: Brings a restored window into its final form on the parts that will be kept.
Finish: TypeAlias = Callable[[Images, Sequence[Window]], Images]


@dataclass(frozen=True)
class Local:
    """What is known about one window.

    ``measurement`` is None where an image is made from nothing. ``start`` is the image that the
    starting noise is put on (None: zeros). ``guide`` is that part of the next coarser level's
    result, with the ratio of the two scales. ``finish`` acts on the window restored.
    ``condition`` is what the denoiser is given, if it wants something.
    """

    measurement: Measurement | None = None
    start: Images | None = None
    guide: tuple[CoarseImages, int] | None = None
    finish: Finish | None = None
    condition: Images | None = None


@runtime_checkable
class LevelSource(Protocol):
    """One level: its size, its noise, and what is known about each of its windows."""

    @property
    def shape(self) -> Shape:
        """Channels, height and width."""

    @property
    def field(self) -> NoiseField:
        """The noise."""

    @property
    def origin(self) -> tuple[int, int]:
        """Where its first pixel lies in the noise: (top, left)."""

    @property
    def start_sigma(self) -> float | None:
        """Noise to put on the start (None: that of the first step)."""

    def at(self, window: Window, free: Sequence[Window] = ()) -> Local:
        """Return what is known about ``window``, of which only ``free`` may change, if given."""


@dataclass(frozen=True)
class Level:
    """A level that is in memory as a whole."""

    shape: Shape
    field: NoiseField
    measurement: Measurement | None = None
    start: Images | None = None
    start_sigma: float | None = None
    guide: tuple[CoarseImages, int] | None = None
    origin: tuple[int, int] = (0, 0)

    def at(self, window: Window, free: Sequence[Window] = ()) -> Local:
        """Cut everything to ``window``."""
        m, whole = self.measurement, Window(0, 0, *self.shape[1:])
        if m is not None and window != whole:
            m = m.inside(window)
        if m is not None and free:
            m = replace(m, movable=Bound(m.A, free))
        return Local(
            m,
            None if self.start is None else window.of(self.start),
            None if self.guide is None else (cut_guide(*self.guide, window), self.guide[1]),
        )


def cut_guide(coarse: Tensor, ratio: int, window: Window) -> Tensor:
    """Return the part of a guide that belongs to an aligned window."""
    return coarser(window, ratio).of(coarse)


def coarser(window: Window, ratio: int) -> Window:
    """Return an aligned window in the pixels of a level coarser by ``ratio``."""
    return Window(*(n // ratio for n in (window.top, window.left, window.height, window.width)))


@runtime_checkable
class Canvas(Protocol):
    """The growing result: images in [-1, 1] or nearly so, read and written by windows."""

    def read(self, window: Window) -> Images:
        """Return what was written there."""

    def write(self, window: Window, x: Images) -> None:
        """Write there."""


class TensorCanvas:
    """A canvas in memory."""

    def __init__(self, shape: Shape, device: str | torch.device = "cpu") -> None:
        self.x: Tensor = torch.zeros((1, *shape), device=device)

    def read(self, window: Window) -> Images:
        """Return a copy of what was written there."""
        return window.of(self.x).clone()

    def write(self, window: Window, x: Images) -> None:
        """Write there."""
        window.of(self.x).copy_(x)
