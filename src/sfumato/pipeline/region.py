"""One window of a large result, as a preview: the settings and the noise of the full run."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import final

from torch import Tensor
from typing_extensions import override

from sfumato.diffusion import repeated
from sfumato.errors import SettingsError
from sfumato.metrics import seam_report
from sfumato.operators import Degradation, Operator, Window
from sfumato.pipeline.problem import Problem, Source
from sfumato.pipeline.report import Report
from sfumato.pipeline.resolve import Resolved
from sfumato.pipeline.restore import Advanced, Run, Started
from sfumato.tiling import coarser, level_ratios
from sfumato.zoo import Prior

#: What lies so near around the region is restored with it, and thrown away.
_AROUND = 48


@dataclass(frozen=True)
class Region:
    """A window of the result, in its pixels."""

    window: Window

    @classmethod
    def parse(cls, text: str) -> Region:
        """Read ``X,Y,W,H``: the left upper corner, width and height.

        >>> Region.parse("100,200,64,32").window
        Window(top=200, left=100, height=32, width=64)
        """
        if not re.fullmatch(r"\d+,\d+,[1-9]\d*,[1-9]\d*", text):
            raise SettingsError(
                f"the region '{text}'", expected="X,Y,W,H in pixels of the result: 100,200,640,480"
            )
        x, y, w, h = (int(n) for n in text.split(","))
        return cls(Window(y, x, h, w))

    def restore(
        self,
        source: Source,
        r: Resolved,
        prior: Prior,
        degradation: Degradation,
        *,
        bits: int,
        device: str,
    ) -> Generator[Started | Advanced, None, tuple[Tensor, Report]]:
        """Restore the region with what lies around it; return the picture and its report.

        Near its borders it differs from the full run, whose tiles lie elsewhere.
        """
        t_0 = time.perf_counter()
        around = self._around(source, r)
        problem: Problem = source.at(around)
        n = source.supersampling
        cut = _Cut(source, around)
        run = Run(cut, r, prior, bits=bits, device=device, place=(around.top, around.left))
        yield run.started()
        x = yield from run.sample(0)
        u = run.asked_for(x)
        # The means of repeated pixels are these pixels.
        shown = repeated(u[None], n)
        image = self.window.within(coarser(around, n)).of(u).contiguous()
        report = run.report(
            degradation,
            consistency=255 * problem.residual_rmse(shown.expand(1, *problem.A.in_shape)),
            seam=seam_report(u, run.borders(), max(1, problem.A.ratio // n)),
            seconds=time.perf_counter() - t_0,
        )
        w = self.window
        _, height, width = (size // n for size in source.A.in_shape)
        place = f"region {w.left},{w.top},{w.width},{w.height} of {width} x {height} pixels"
        report = replace(report, width=w.width, height=w.height)
        return image, report.with_notes(place)

    def _around(self, source: Source, r: Resolved) -> Window:
        """Return the region with its surroundings, on whole cells of all levels."""
        A, w, n = source.A, self.window, source.supersampling
        _, height, width = A.in_shape
        if n * (w.top + w.height) > height or n * (w.left + w.width) > width:
            raise SettingsError(
                f"the region {w.left},{w.top},{w.width},{w.height}",
                expected=f"one inside of the result's {width // n} x {height // n} pixels",
            )
        w = Window(n * w.top, n * w.left, n * w.height, n * w.width)
        if A.locality.stride == 0:
            raise SettingsError(
                f"a region with {A}, whose measured values reach across the image",
                expected="a local operator",
                do="leave out --region",
            )
        cell = math.lcm(A.locality.stride, 2 * level_ratios(r.levels)[0])
        top, left = ((max(0, n - _AROUND) // cell) * cell for n in (w.top, w.left))
        bottom = min(height, -(-(w.top + w.height + _AROUND) // cell) * cell)
        right = min(width, -(-(w.left + w.width + _AROUND) // cell) * cell)
        return Window(top, left, bottom - top, right - left)


@final
class _Cut(Source):
    """A window of a source as an image of its own, of which windows may be taken again.

    The values whose support reaches beyond it are missing: it is no border of the image.
    """

    def __init__(self, whole: Source, window: Window) -> None:
        self._whole, self._window = whole, window
        self.task, self.grey, self.exact = whole.task, whole.grey, whole.exact
        self.supersampling = whole.supersampling

    @property
    @override
    def A(self) -> Operator:
        return self._whole.A.crop(self._window)

    @property
    @override
    def sigma_y(self) -> float:
        return self._whole.sigma_y

    @override
    def at(self, window: Window) -> Problem:
        return self._whole.at(self._placed(window))

    @override
    def alone(self, window: Window) -> Problem:
        return self._whole.alone(self._placed(window))

    @override
    def coarse(self, ratio: int) -> _Cut:
        return _Cut(self._whole.coarse(ratio), coarser(self._window, ratio))

    @override
    def hole_radius(self) -> int:
        return self._whole.at(self._window).hole_radius()

    @override
    def known(self, window: Window) -> float:
        return self._whole.known(self._placed(window))

    def _placed(self, window: Window) -> Window:
        w = self._window
        return replace(window, top=w.top + window.top, left=w.left + window.left)
