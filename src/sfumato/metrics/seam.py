"""Whether the borders of the tiles can be seen.

The *seam score* is the mean absolute jump across the borders of the tiles over that of the lines
beside them: about 1 where the borders are like any other line, more where they show. Photographs
vary by themselves, so the score is judged by its *band*: the same score of the same picture for
the same grid of tiles, shifted at random by multiples of ``phase`` pixels (the scale of
super-resolution, whose estimates repeat with it). Invisible means: inside the band.

A line ``i`` is the one between the pixels ``i − 1`` and ``i``.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sfumato.errors import SettingsError, ShapeError
from sfumato.metrics._pictures import Pictures, check_pictures

Axis = Literal["row", "column"]

#: A border is compared with the lines so many pixels beside it, on both sides.
BESIDE = (3, 4, 5, 6)
#: Share of the shifted grids below the band, and above it.
TAIL = 0.025
#: Lines this near to a border of the grid itself tell of its seams, and are no part of the band.
#: The second is taken where the tiles are so small that the first leaves no other lines.
GUARDS = (max(BESIDE), 0)
#: Values that are looked at in one go, 4 MB of float64: they stay in the cache.
BLOCK = 2**19


@dataclass(frozen=True)
class Border:
    """A stretch of a line at which two tiles meet.

    ``axis="row"``: between the pixel rows ``at − 1`` and ``at``, in columns ``start .. stop``;
    ``axis="column"``: between the pixel columns ``at − 1`` and ``at``, in rows ``start .. stop``.

    Raises SettingsError where that is no line between pixels, or has no length.
    """

    axis: Axis
    at: int
    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.axis not in ("row", "column") or self.at < 1 or not 0 <= self.start < self.stop:
            raise SettingsError(
                f"{self}", expected='axis "row" or "column", at >= 1 and 0 <= start < stop'
            )


@dataclass(frozen=True)
class SeamReport:
    """A seam score and the band of 95 %; ``score`` is None where there is no border to see."""

    score: float | None
    low: float | None
    high: float | None

    @property
    def inside(self) -> bool | None:
        """Whether the borders are like other lines of the picture; None where it has no others."""
        if self.score is None:
            return True
        if self.low is None or self.high is None:
            return None
        return self.low <= self.score <= self.high


def grid_borders(
    height: int, width: int, *, rows: Sequence[int], columns: Sequence[int]
) -> list[Border]:
    """Return the borders of a grid of tiles that meet at the lines ``rows`` and ``columns``.

    Raises SettingsError where one of them is no line of an image of that size.

    >>> grid_borders(64, 96, rows=[32], columns=[])
    [Border(axis='row', at=32, start=0, stop=96)]
    """
    if any(at >= height for at in rows) or any(at >= width for at in columns):
        raise SettingsError(
            f"borders at rows {list(rows)}, columns {list(columns)}",
            expected=f"lines inside of {height} x {width} pixels",
        )
    return [Border("row", at, 0, width) for at in rows] + [
        Border("column", at, 0, height) for at in columns
    ]


def seam_score(image: Pictures, borders: Sequence[Border]) -> float | None:
    """Return the seam score of ``image``, or None where there are no borders.

    ``score = Σ_b |x[at] − x[at − 1]| / Σ_b mean_{k = ±3..±6} |x[at + k] − x[at + k − 1]|``, summed
    over all borders ``b``, the positions along them, and the channels. Of the lines beside, those
    count that are inside the image. A batch is scored as one. Where all is flat the score is 1;
    where only the lines beside are, it is infinite.

    Raises ShapeError for a border outside of the image, ImageError for integer values.

    >>> ramp = torch.linspace(0, 1, 64).expand(1, 64, 64)
    >>> borders = grid_borders(64, 64, rows=[], columns=[32])
    >>> round(seam_score(ramp, borders), 3)
    1.0
    >>> round(seam_score(ramp + 0.1 * (torch.arange(64) >= 32), borders), 3)
    7.3
    """
    return _metered(image, borders, phase=1).score()


def seam_band(
    image: Pictures, borders: Sequence[Border], *, phase: int, n: int = 200, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 2.5 % and 97.5 % quantiles of the seam score over ``n`` randomly shifted grids.

    All borders of an axis are shifted together, around the image, by a multiple of ``phase``
    pixels. Places within 6 pixels of the grid's own lines are left out, and shifts of which that
    leaves less than half: the band is the picture's, not its seams'. The result is None where
    there are no borders, or no other lines of the same phase.

    Raises ShapeError for a border outside of the image, ImageError for integer values,
    SettingsError for ``phase`` or ``n`` below 1.

    >>> noise = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0))
    >>> low, high = seam_band(noise, grid_borders(128, 128, rows=[64], columns=[64]), phase=4)
    >>> 0.9 < low < 1 < high < 1.1
    True
    """
    return _metered(image, borders, phase).band(n, seed)


def seam_report(
    image: Pictures, borders: Sequence[Border], phase: int, *, n: int = 200, seed: int = 0
) -> SeamReport:
    """Return the seam score with its band; arguments and errors are those of ``seam_band``.

    >>> seam_report(torch.zeros(3, 64, 64), [], phase=4)
    SeamReport(score=None, low=None, high=None)
    """
    return _metered(image, borders, phase).report(n, seed)


class SeamMeter:
    """The seam report of a picture that comes in bands of rows, from top to bottom.

    It is what ``seam_report`` returns for the whole picture. What is kept is a sum of jumps for
    every line and every piece of it between two ends of borders, in float64, on the CPU.

    Raises ShapeError for a border outside of the picture, SettingsError for ``phase`` below 1.

    >>> meter = SeamMeter(64, 64, grid_borders(64, 64, rows=[], columns=[32]), phase=4)
    >>> for top in (0, 16, 32, 48):
    ...     meter.add(top, torch.linspace(0, 1, 64).expand(1, 16, 64))
    >>> round(meter.report().score, 3)
    1.0
    """

    def __init__(self, height: int, width: int, borders: Sequence[Border], phase: int) -> None:
        if phase < 1:
            raise SettingsError(f"phase={phase}", expected="at least 1")
        self.height, self.width, self.phase = height, width, phase
        self._lines: dict[Axis, _Lines] = {}
        sizes: dict[Axis, tuple[int, int]] = {"row": (height, width), "column": (width, height)}
        for axis, size in sizes.items():
            if own := [b for b in borders if b.axis == axis and _comparable(b, *size)]:
                self._lines[axis] = _Lines(own, size[0])
        self._n_rows = 0
        self._above: Float[Tensor, "channels 1 width"] | None = None

    def add(self, top: int, band: Float[Tensor, "channels rows width"]) -> None:
        """Take in the rows from ``top`` on: those that follow the last band.

        Raises ShapeError for other rows, columns or channels, ImageError for integer values.
        """
        self._check(top, band, 0, self.width)
        self.add_strips(top, [band])

    def add_strips(
        self, top: int, strips: Iterable[Float[Tensor, "channels rows columns"]]
    ) -> None:
        """Take in a band that comes in strips, from left to right: no more is held than one.

        Errors are those of ``add``; after one the meter is of no use any more.
        """
        left, rows, below = 0, 0, []
        beside: Tensor | None = None
        for strip in strips:
            self._check(top, strip, left, strip.shape[-1], rows)
            self._add(top, left, strip.detach().cpu(), beside)
            beside, rows = strip[..., -1:].detach().cpu(), strip.shape[1]
            below.append(strip[:, -1:].detach().cpu().double())
            left += strip.shape[2]
        if left < self.width:
            raise ShapeError(f"strips of {left} columns", expected=f"{self.width}")
        self._above, self._n_rows = torch.cat(below, dim=2), top + rows

    def _add(self, top: int, left: int, strip: Tensor, beside: Tensor | None) -> None:
        """Take in a strip, with the last column of the one before it."""
        rows, columns = self._lines.get("row"), self._lines.get("column")
        channels, height, width = strip.shape
        above = None if self._above is None else self._above[..., left : left + width]
        for first, stop in self._blocks(top, channels, height, width):
            here = slice(first - top, stop - top)
            block = strip[:, here]
            x = torch.empty(channels, stop - first + 1, width + 1, dtype=torch.float64)
            x[:, 1:, 1:] = block
            x[:, :1, 1:] = block[:, :1] if above is None else above
            x[:, 1:, :1] = block[..., :1] if beside is None else beside[:, here]
            if rows:
                rows.add_lines(first, left, x[..., 1:].diff(dim=1).abs_().sum(dim=0))
            if columns:
                columns.add_along(first, left, x[:, 1:].diff(dim=2).abs_().sum(dim=(0, 1)))
            above = block[:, -1:]

    def report(self, n: int = 200, seed: int = 0) -> SeamReport:
        """Return the seam score with its band; errors are those of ``band``."""
        low, high = self.band(n, seed) or (None, None)
        return SeamReport(self.score(), low, high)

    def score(self) -> float | None:
        """Return what ``seam_score`` does. Raises ShapeError where rows are missing."""
        self._check_all()
        own = [lines.own() for lines in self._lines.values()]
        return float(_ratio(torch.stack(own).sum(dim=0))) if own else None

    def band(self, n: int = 200, seed: int = 0) -> tuple[float, float] | None:
        """Return what ``seam_band`` does.

        Raises ShapeError where rows are missing, SettingsError for ``n`` below 1.
        """
        self._check_all()
        if n < 1:
            raise SettingsError(f"n={n}", expected="at least 1")
        generator = torch.Generator().manual_seed(seed)
        shifted = [lines.shifted(self.phase, n, generator) for lines in self._lines.values()]
        sums = [s for s in shifted if s is not None]
        if not sums or len(sums) < len(shifted):
            return None
        scores = _ratio(torch.stack(sums).sum(dim=0))
        low = torch.quantile(scores, TAIL, interpolation="lower")
        high = torch.quantile(scores, 1 - TAIL, interpolation="higher")
        return float(low), float(high)

    def _blocks(
        self, top: int, channels: int, rows: int, columns: int
    ) -> Iterable[tuple[int, int]]:
        """Cut the next ``rows`` into blocks of bounded size, each in one piece of the columns."""
        stop, step = top + rows, max(1, BLOCK // max(1, channels * columns))
        cuts = self._lines["column"].cuts if "column" in self._lines else []
        ends = {*range(top, stop, step), stop, *(c for c in cuts if top < c < stop)}
        return pairwise(sorted(ends))

    def _check(self, top: int, band: Tensor, left: int, columns: int, rows: int = 0) -> None:
        """Refuse all but the next ``columns``; of as many ``rows``, if these are not 0."""
        check_pictures(band)
        most = rows or self.height - self._n_rows
        channels = len(band if self._above is None else self._above)
        fits = band.dim() == 3 and band.shape[::2] == (channels, columns)
        fits = fits and 1 <= columns <= self.width - left
        if not fits or top != self._n_rows or not max(1, rows) <= band.shape[1] <= most:
            what = f"{rows}" if rows else f"at most {most}"
            raise ShapeError(
                f"a band of shape {tuple(band.shape)} at row {top}",
                expected=f"({channels}, {what}, {self.width - left}) at row {self._n_rows}"
                + (f", column {left}" if left else ""),
            )

    def _check_all(self) -> None:
        if self._n_rows < self.height:
            raise ShapeError(
                f"{self._n_rows} of {self.height} rows", expected="all before a report"
            )


def _metered(image: Pictures, borders: Sequence[Border], phase: int) -> SeamMeter:
    check_pictures(image)
    height, width = image.shape[-2:]
    meter = SeamMeter(height, width, borders, phase)
    meter.add(0, image.flatten(end_dim=-3))
    return meter


def _comparable(border: Border, lines: int, positions: int) -> bool:
    """Whether a line beside the border is inside the image.

    Raises ShapeError where the border itself is not.
    """
    if border.at >= lines or border.stop > positions:
        raise ShapeError(
            f"{border}", expected=f"a border inside of {lines - 1} lines of {positions} pixels"
        )
    return border.at > min(BESIDE) or border.at + min(BESIDE) < lines


class _Lines:
    """The lines of one axis: which are borders, ``at``, and what the picture does at them all.

    The lines are cut into pieces at ``cuts``, where borders begin or end: not where one goes on as
    another. ``cover`` counts the borders at each line of ``at`` and each piece; ``jump`` holds
    ``Σ |x[i] − x[i − 1]|`` over channels and piece, for every line ``i``, and 0 for ``i = 0``.
    """

    def __init__(self, borders: Sequence[Border], lines: int) -> None:
        self.at, at = torch.tensor([b.at for b in borders]).unique(return_inverse=True)
        ends = torch.tensor([[b.start, b.stop] for b in borders])
        cuts, ends = ends.unique(return_inverse=True)
        steps = torch.zeros(len(self.at), len(cuts), dtype=torch.float64)
        steps.index_put_((at[:, None], ends), steps.new_tensor([1, -1]), accumulate=True)
        needed = (steps != 0).any(dim=0)
        self.cuts: list[int] = cuts[needed].tolist()
        self.cover = steps[:, needed].cumsum(dim=1)[:, :-1]
        self.length: Float[Tensor, " pieces"] = cuts[needed].diff().to(steps.dtype)
        self.jump = torch.zeros(lines, len(self.length), dtype=steps.dtype)

    def add_lines(self, first: int, left: int, jumps: Float[Tensor, "lines positions"]) -> None:
        """Take in the positions from ``left`` on of all lines from ``first`` on."""
        stop = left + jumps.shape[1]
        pieces = [k for k, (a, b) in enumerate(pairwise(self.cuts)) if a < stop and b > left]
        if pieces:
            own = slice(pieces[0], pieces[-1] + 1)
            starts = [max(a - left, 0) for a in self.cuts[own]]
            end = min(self.cuts[own.stop], stop) - left
            sums = np.add.reduceat(jumps[:, :end].numpy(), starts, axis=1)
            self.jump[first : first + len(sums), own] += torch.from_numpy(sums)

    def add_along(self, position: int, left: int, jumps: Float[Tensor, " lines"]) -> None:
        """Take in a stretch of all lines from ``left`` on, from ``position`` on in one piece."""
        piece = bisect_right(self.cuts, position) - 1
        if 0 <= piece < len(self.length):
            self.jump[left : left + len(jumps), piece] += jumps

    def own(self) -> Float[Tensor, " 2"]:
        """Jump and beside, summed over the borders where they are."""
        everywhere = torch.ones(1, dtype=torch.bool).expand(self.jump.shape)
        return self.sums(self.at[None], everywhere)[:2, 0]

    def shifted(
        self, phase: int, n: int, generator: torch.Generator
    ) -> Float[Tensor, "2 {n}"] | None:
        """Jump and beside of ``n`` random shifts, for as much length as the borders have."""
        lines = _shifted_lines(self.at, len(self.jump), phase, 4 * n, generator)
        if lines is None:
            return None
        length = (self.cover @ self.length).sum()
        for guard in GUARDS:
            sums = self.sums(lines, self.away(guard))
            share = sums[2] / length
            if (share > 0.5).any():
                found = (sums[:2] / share)[:, share > 0.5]
                return found[:, torch.arange(n) % found.shape[1]]
        return None

    def away(self, guard: int) -> Bool[Tensor, "lines pieces"]:
        """Where no border is within ``guard`` lines."""
        lines, pieces = self.jump.shape
        away = torch.ones(lines + 2 * guard, pieces, dtype=torch.bool)
        for k in range(2 * guard + 1):
            away[self.at + k] &= self.cover == 0
        return away[guard : guard + lines]

    def sums(
        self, lines: Int[Tensor, "shifts borders"], where: Bool[Tensor, "lines pieces"]
    ) -> Float[Tensor, "3 shifts"]:
        """Jump, beside and length, summed over the borders where ``lines`` puts them."""
        total = torch.zeros(3, len(lines), dtype=torch.float64)
        step = max(1, BLOCK // (len(self.at) + 2 * len(BESIDE) * len(self.length)))
        for block in torch.arange(len(self.jump)).split(step):
            here = (lines >= block[0]) & (lines <= block[-1])
            if here.any():
                length = self.length.expand(len(block), -1)
                kinds = torch.stack([self.jump[block], self.beside(block), length])
                each = (kinds * where[block]) @ self.cover.T
                place = (lines - block[0]).where(here, 0).expand(3, -1, -1)
                total += each.gather(1, place).where(here, 0).sum(dim=-1)
        return total

    def beside(self, block: Int[Tensor, " lines"]) -> Float[Tensor, "lines pieces"]:
        """Return the mean jump at the lines 3 to 6 beside, of those inside the picture."""
        around = block[:, None] + torch.tensor([k for b in BESIDE for k in (-b, b)])
        inside = (around >= 1) & (around < len(self.jump))
        total = self.jump[around.where(inside, 0)].sum(dim=1)
        return total / inside.sum(dim=1, keepdim=True).clamp_min(1)


def _shifted_lines(
    at: Int[Tensor, " borders"], lines: int, phase: int, n: int, generator: torch.Generator
) -> Int[Tensor, "{n} borders"] | None:
    """Shift all borders together, around the image, by ``n`` random multiples of ``phase``.

    Every border goes round the lines ``1 .. lines − 1`` that have its own phase. None where no
    border has another to go to.
    """
    first = (at - 1) % phase + 1
    n_places = (lines - 1 - first) // phase + 1
    if int(n_places.max()) < 2:
        return None
    shift = torch.randint(1, int(n_places.max()), (n, 1), generator=generator)
    return first + phase * (((at - first) // phase + shift) % n_places)


def _ratio(sums: Float[Tensor, " 2 *shifts"]) -> Float[Tensor, "*shifts"]:
    """Jump over beside; 1 where both vanish."""
    jump, beside = sums
    flat = torch.where(jump > 0, math.inf, 1.0).to(jump.dtype)
    return torch.where(beside > 0, jump / beside, flat)
