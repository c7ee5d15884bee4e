"""The levels of a restoration, as the engine asks for them: window by window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from sfumato._typing import Images, Shape
from sfumato.diffusion import NoiseField
from sfumato.diffusion.sr3 import Enlarge
from sfumato.errors import SettingsError
from sfumato.guidance import Measurement, start_image
from sfumato.operators import Bound, GrayscaleWithHints, Operator, Window
from sfumato.pipeline.finish import quantise, settle
from sfumato.pipeline.problem import Problem, Source
from sfumato.pipeline.resolve import Resolved
from sfumato.tiling import Canvas, Local, coarser

#: Bits of a coarse level's canvas: nothing of it reaches the result but as a guide.
COARSE_BITS = 16
#: A start is computed with so many of the operator's cells around it.
_CONTEXT = 2


@dataclass(frozen=True)
class Finisher:
    """Makes a window of the last level final: it agrees with the measurement, on the grid.

    A picture in one channel has three equal ones here. Without ``consistent`` it is only brought
    on the grid.
    """

    problem: Problem
    bits: int
    consistent: bool = True

    def __call__(self, x: Images, parts: Sequence[Window]) -> Images:
        """Settle the parts that will be kept."""
        x = x.clone()
        if not self.consistent:
            return self._on_grid(x.clamp(-1, 1))
        if not self.problem.A.locality.tileable:
            return self._on_grid(settle(x, self.problem))
        for part in _joined(parts):
            part.of(x).copy_(self._on_grid(settle(part.of(x), self.problem.at(part))))
        return x

    def _on_grid(self, x: Images) -> Images:
        if self.problem.grey:
            x = x.mean(1, keepdim=True).expand_as(x)
        return 2 * quantise((x + 1) / 2, self.bits) - 1


def _joined(parts: Sequence[Window]) -> Sequence[Window]:
    """Return the rectangle that the parts fill, if they fill one."""
    top, left = min(p.top for p in parts), min(p.left for p in parts)
    height = max(p.top + p.height for p in parts) - top
    width = max(p.left + p.width for p in parts) - left
    filled = sum(p.height * p.width for p in parts) == height * width
    return [Window(top, left, height, width)] if filled else parts


@dataclass(frozen=True)
class RestoredLevel:
    """One level of a problem, coarser by ``ratio``; see ``LevelSource``.

    ``guide`` is the canvas of the next coarser level, ``given`` an image to begin from (1,
    channels, height, width of the whole image). ``bits`` are the result's, and
    ``place`` is where the image begins in a larger one that it is a part of. With
    ``enlarged`` the denoiser is given what was measured, made large by it.
    """

    source: Source
    ratio: int
    r: Resolved
    field: NoiseField
    bits: int
    guide: Canvas | None = None
    given: Images | None = None
    place: tuple[int, int] = (0, 0)
    enlarged: Enlarge | None = None

    @property
    def origin(self) -> tuple[int, int]:
        """Where its first pixel lies in the noise."""
        return self.place[0] // self.ratio, self.place[1] // self.ratio

    @property
    def shape(self) -> Shape:
        """Channels, height and width of this level."""
        c, h, w = self.source.A.in_shape
        return c, h // self.ratio, w // self.ratio

    @property
    def start_sigma(self) -> float:
        """Noise to put on the start: none for rounds; a noisy image to be denoised has its own."""
        if self.r.sampler == "rounds":
            return 0.0
        if self.source.task == "denoise" and self.given is None:
            return math.sqrt(max(0.0, self.r.sigma_max**2 - self.source.sigma_y**2))
        return self.r.sigma_max

    @cached_property
    def _scaled(self) -> Source | None:
        """The source at this level's scale, if it is read by windows as it is at the last one.

        An operator with a halo is cut at the scale where it is wanted, not before.
        """
        if self.ratio == 1:
            return self.source
        by_windows = self.r.stitch == "mask-shift" and self.source.A.locality.halo > 0
        return self.source.coarse(self.ratio) if by_windows else None

    def operator(self) -> Operator:
        """Return an operator with the locality of this level's."""
        if self._scaled is not None:
            return self._scaled.A
        A = self.source.A
        h, w = (n * self.ratio for n in self.shape[1:])
        if min(h, w) == 0:
            raise SettingsError(
                f"a level coarser by {self.ratio} of an image of {A.in_shape[2]} x "
                f"{A.in_shape[1]} pixels",
                expected="at least one pixel there",
                do="use fewer --levels",
            )
        cell = A.locality.stride * self.ratio if A.locality.tileable else max(h, w)
        return self.problem(Window(0, 0, min(h, cell), min(w, cell))).coarser(self.ratio).A

    def problem(self, window: Window) -> Problem:
        """Return the problem of a window of the full image."""
        return self.source.at(window)

    def alone(self, window: Window) -> Measurement:
        """Return what was measured of a window of this level, as if it were the whole."""
        scaled = self._scaled
        if scaled is not None and not scaled.A.locality.tileable:
            return scaled.alone(window).measurement
        return self.measurement(window)

    def measurement(self, window: Window) -> Measurement:
        """Return what was measured of a window of this level."""
        if self._scaled is not None:
            return self._scaled.at(window).measurement
        k = self.ratio
        fine = Window(window.top * k, window.left * k, window.height * k, window.width * k)
        return self.problem(fine).coarser(k)

    def at(self, window: Window, free: Sequence[Window] = ()) -> Local:
        """Return what is known about a window, of which only ``free`` may change."""
        problem = self.problem(window) if self.ratio == 1 else None
        if problem is not None and free:
            problem = problem.given(free)
        m = problem.measurement if problem else self.measurement(window)
        if problem is None and free:
            m = replace(m, movable=Bound(m.A, free))
        guide = None if self.guide is None else (self.guide.read(coarser(window, 2)), 2)
        finish = Finisher(problem, self.bits, self.r.method != "none") if problem else None
        start = self._start(window, m)
        condition = self._condition(window)
        return Local(m, start, guide, finish, condition)

    def _condition(self, window: Window) -> Images | None:
        """Return what was measured, made large: by windows as in the whole image."""
        if self.enlarged is None:
            return None
        whole, cell = Window(0, 0, *self.shape[1:]), self.source.A.ratio
        around = grown(window, _CONTEXT * cell, whole)
        y = self.source.alone(around).measurement.y
        return window.within(around).of(self.enlarged(y, cell))

    def _start(self, window: Window, m: Measurement) -> Images | None:
        if self.given is not None:
            k = self.ratio
            fine = Window(window.top * k, window.left * k, window.height * k, window.width * k)
            return torch.nn.functional.avg_pool2d(fine.of(self.given), k)
        if self.source.task == "denoise":
            return m.y + self._colour_noise(window, m) if self.source.grey else m.y
        if not self.r.known_start:
            return None
        if self.enlarged is not None:
            return self._condition(window)
        whole, locality = Window(0, 0, *self.shape[1:]), self.source.A.locality
        fill = self.source.task == "inpaint"
        if window == whole:
            return start_image(m, fill=fill)
        if isinstance(m.A, GrayscaleWithHints):
            return window.of(start_image(self.measurement(whole)))
        cell = max(1, locality.stride // self.ratio)
        around = grown(window, _CONTEXT * cell, whole)
        return window.within(around).of(start_image(self.alone(around), fill=fill))

    def _colour_noise(self, window: Window, m: Measurement) -> Images:
        """Noise that a grey picture in three channels lacks: across (1, 1, 1), as along it."""
        field = replace(self.field, level=254)
        shape = (self.shape[0], window.height, window.width)
        top, left = self.origin[0] + window.top, self.origin[1] + window.left
        z = field(draw=0, top=top, left=left, shape=shape, device=m.y.device)[None]
        return m.sigma_y * (z - z.mean(1, keepdim=True))


def grown(window: Window, by: int, whole: Window) -> Window:
    """Return a window with ``by`` more pixels on each side, as far as the image goes."""
    top, left = max(0, window.top - by), max(0, window.left - by)
    bottom = min(whole.height, window.top + window.height + by)
    right = min(whole.width, window.left + window.width + by)
    return Window(top, left, bottom - top, right - left)
