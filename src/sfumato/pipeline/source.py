"""Problems read from a file, window by window."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from sfumato.errors import DegradationError
from sfumato.io.windows import PictureWindows, picture_shape
from sfumato.operators import Degradation, Operator, Window
from sfumato.pipeline.presets import task_of
from sfumato.pipeline.problem import (
    Problem,
    Source,
    by_windows,
    hole_radius,
    make_problem,
    measured_values,
    share_of,
)
from sfumato.tiling import coarse_operator

#: Side of the windows that a large picture is looked through with, in pixels.
_LOOK = 1024
#: Holes are measured on a map of at most about this many values.
_MAP = 1 << 22


@final
class FileSource(Source):
    """The problem of a picture on disk whose degradation is local.

    Masks are read by windows too. Where they are wanted as a map, it is thinned out. See
    ``Source`` for ``supersampling``.

    Raises DegradationError and ShapeError where the degradation does not fit the picture,
    ImageError where it cannot be read.
    """

    def __init__(
        self,
        picture: PictureWindows,
        degradation: Degradation,
        device: str = "cpu",
        supersampling: int = 1,
    ) -> None:
        self.picture = picture
        self.degradation = degradation
        self.device = device
        self.supersampling = supersampling
        words = degradation.finer(supersampling)
        self._A = words.operator(
            words.source_shape((picture.channels, picture.height, picture.width))
        )
        _, h, w = self._A.in_shape
        cell = self._A.locality.stride
        first = self.alone(Window(0, 0, min(cell, h), min(cell, w)))
        self.task = task_of(self._A)
        self.grey, self.exact = first.grey, first.exact
        self._sigma_y = first.sigma_y

    @property
    @override
    def A(self) -> Operator:
        return self._A

    @property
    @override
    def sigma_y(self) -> float:
        return self._sigma_y

    def asked(self) -> FileSource:
        """Return the problem of what was asked for, without supersampling."""
        return FileSource(self.picture, self.degradation, self.device)

    @override
    def at(self, window: Window) -> Problem:
        return self._read(*self.A.inside(window))

    @override
    def alone(self, window: Window) -> Problem:
        return self._read(self.A.crop(window), self.A.measured(window))

    @override
    def coarse(self, ratio: int) -> FileSource:
        other = copy(self)
        other._A = coarse_operator(self._A, ratio)
        return other

    def _read(self, A: Operator, m: Window) -> Problem:
        y = self.picture.read(m.top, m.left, m.height, m.width).to(self.device)
        problem = make_problem(
            y,
            self.degradation,
            bits=self.picture.bits,
            operator=A,
            part=True,
            supersampling=self.supersampling,
        )
        return replace(problem, task=task_of(self._A))

    def windows(self, side: int = _LOOK) -> Iterator[Window]:
        """Yield windows of whole cells, about ``side`` pixels wide and high, that cover all."""
        _, height, width = self.A.in_shape
        step = max(1, side // self.A.locality.stride) * self.A.locality.stride
        for top in range(0, height, step):
            for left in range(0, width, step):
                yield Window(top, left, min(step, height - top), min(step, width - left))

    @override
    def hole_radius(self) -> int:
        # Of a map that was thinned out: a place counts as known if any near it is.
        known, k = self._known()
        if not bool(known.any()):
            raise DegradationError(
                f"{self.A}: every pixel is missing",
                expected="a mask that leaves some pixels known (white marks what is missing)",
            )
        return hole_radius(known) * k

    @override
    def known(self, window: Window) -> float:
        return share_of(self._weight(window))

    def _weight(self, window: Window) -> Tensor:
        """Return which values of a window were measured; the picture is not read for it."""
        return measured_values(self.A.crop(window), torch.ones(()))

    def _known(self) -> tuple[Tensor, int]:
        """Return a map of what was measured, thinned out ``k`` times."""
        _, height, width = self.A.out_shape
        k = 1
        while height * width > _MAP * k * k:
            k += 1
        known = torch.zeros((-(-height // k), -(-width // k)))
        for window in self.windows():
            m = self.A.measured(window)
            part = self._weight(window).amax(0)
            # Its cells may begin between those of the map.
            before = (m.top % k, m.left % k)
            size = (-(-(n + b) // k) for n, b in zip((m.height, m.width), before, strict=True))
            there = Window(m.top // k, m.left // k, *size).of(known)
            if bool(part.all()):
                there.fill_(1)
                continue
            after = (-(m.height + before[0]) % k, -(m.width + before[1]) % k)
            padded = F.pad(part[None, None], (before[1], after[1], before[0], after[0]))
            thin = F.max_pool2d(padded, k)[0, 0].cpu()
            there.copy_(torch.maximum(there, thin))
        return known, k


def streams(path: Path, degradation: Degradation, stitch: str = "auto") -> bool:
    """Say whether the picture can be restored window by window: the degradation is local.

    Blurs are only where ``stitch`` asks for it. Only the picture's header is read.
    """
    if degradation.strokes() is not None:
        return False
    A = degradation.operator(degradation.source_shape(picture_shape(path)))
    return by_windows(A, asked=stitch in ("mask-shift", "independent"))
