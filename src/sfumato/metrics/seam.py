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
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

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
#: Positions along the lines that are looked at in one go: bounds the memory.
STRIP = 256


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
    return _score(_sides(image, borders))


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
    return _band(_sides(image, borders), phase, n, seed)


def seam_report(
    image: Pictures, borders: Sequence[Border], phase: int, *, n: int = 200, seed: int = 0
) -> SeamReport:
    """Return the seam score with its band; arguments and errors are those of ``seam_band``.

    >>> seam_report(torch.zeros(3, 64, 64), [], phase=4)
    SeamReport(score=None, low=None, high=None)
    """
    sides = _sides(image, borders)
    low, high = _band(sides, phase, n, seed) or (None, None)
    return SeamReport(_score(sides), low, high)


@dataclass(frozen=True)
class _Side:
    """The borders of one axis, and what the image does at every line of that axis.

    The positions along the lines are cut at the ends of all borders; ``lo`` and ``hi`` count those
    cuts. ``jump`` and ``beside`` hold a sum for every line and every piece between two cuts, so
    that a shifted grid costs no more than it has borders. They are on the CPU, in float64.
    """

    at: Int[Tensor, " borders"]
    lo: Int[Tensor, " borders"]
    hi: Int[Tensor, " borders"]
    jump: Float[Tensor, "lines pieces"]
    beside: Float[Tensor, "lines pieces"]
    length: Float[Tensor, " pieces"]

    def own(self) -> Float[Tensor, " 2"]:
        """Jump and beside, summed over the borders where they are."""
        return self.sum(torch.stack([self.jump, self.beside]), self.at[None])[:, 0]

    def shifted(
        self, phase: int, n: int, generator: torch.Generator
    ) -> Float[Tensor, "2 {n}"] | None:
        """Jump and beside of ``n`` random shifts, for as much length as the borders have."""
        lines = _shifted_lines(self.at, len(self.jump), phase, 4 * n, generator)
        if lines is None:
            return None
        table = torch.stack([self.jump, self.beside, self.length.expand_as(self.jump)])
        full = self.sum(table[2:], self.at[None])
        for guard in GUARDS:
            sums = self.sum(table * self.away(guard), lines)
            share = sums[2] / full[0]
            if (share > 0.5).any():
                found = (sums[:2] / share)[:, share > 0.5]
                return found[:, torch.arange(n) % found.shape[1]]
        return None

    def away(self, guard: int) -> Float[Tensor, "lines pieces"]:
        """1 more than ``guard`` lines away from every border, 0 elsewhere."""
        lines, pieces = self.jump.shape
        ends = torch.zeros(lines, pieces + 1, dtype=self.jump.dtype)
        one = torch.ones(len(self.at), dtype=self.jump.dtype)
        ends.index_put_((self.at, self.lo), one, accumulate=True)
        ends.index_put_((self.at, self.hi), -one, accumulate=True)
        covered = (ends.cumsum(dim=1)[:, :pieces] > 0).to(self.jump.dtype)
        near = functional.max_pool1d(covered.T, kernel_size=2 * guard + 1, stride=1, padding=guard)
        return 1 - near.T

    def sum(
        self, table: Float[Tensor, "kinds lines pieces"], lines: Int[Tensor, "shifts borders"]
    ) -> Float[Tensor, "kinds shifts"]:
        """Sum ``table`` over the borders, each put at its line of ``lines``."""
        until = functional.pad(table.cumsum(dim=-1), (1, 0))
        return (until[:, lines, self.hi] - until[:, lines, self.lo]).sum(dim=-1)


def _sides(image: Pictures, borders: Sequence[Border]) -> list[_Side]:
    """Return the axes that have borders, each with its lines first."""
    check_pictures(image)
    x = image.flatten(end_dim=-3)
    planes: dict[Axis, Tensor] = {"row": x, "column": x.mT}
    return [
        _side(plane, own)
        for axis, plane in planes.items()
        if (own := [b for b in borders if b.axis == axis and _comparable(b, plane.shape)])
    ]


def _comparable(border: Border, shape: torch.Size) -> bool:
    """Whether a line beside the border is inside the image.

    Raises ShapeError where the border itself is not.
    """
    _, lines, positions = shape
    if border.at >= lines or border.stop > positions:
        raise ShapeError(
            f"{border}", expected=f"a border inside of {lines - 1} lines of {positions} pixels"
        )
    return border.at > min(BESIDE) or border.at + min(BESIDE) < lines


def _side(x: Float[Tensor, "planes lines positions"], borders: list[Border]) -> _Side:
    cuts = sorted({b.start for b in borders} | {b.stop for b in borders})
    index = {cut: i for i, cut in enumerate(cuts)}
    jump = torch.stack([_jumps(x, *piece) for piece in pairwise(cuts)], dim=1)
    beside = _means_beside(jump)
    return _Side(
        at=torch.tensor([b.at for b in borders]),
        lo=torch.tensor([index[b.start] for b in borders]),
        hi=torch.tensor([index[b.stop] for b in borders]),
        jump=jump,
        beside=beside,
        length=torch.tensor(cuts, dtype=jump.dtype).diff(),
    )


def _jumps(x: Float[Tensor, "planes lines positions"], start: int, stop: int) -> Tensor:
    """Σ |x[i] − x[i − 1]| over planes and positions ``start .. stop``, for every line ``i``."""
    total = torch.zeros(x.shape[1], dtype=torch.float64)
    for first in range(start, stop, STRIP):
        strip = x[:, :, first : min(first + STRIP, stop)]
        strip = strip.to(torch.promote_types(x.dtype, torch.float32))
        total[1:] += strip.diff(dim=1).abs().sum(dim=(0, 2)).cpu()
    return total


def _means_beside(jump: Float[Tensor, "lines pieces"]) -> Float[Tensor, "lines pieces"]:
    """Return the mean of ``jump`` over the lines 3 to 6 beside, of those inside the image."""
    inside = torch.ones(len(jump), 1, dtype=jump.dtype)
    inside[0] = 0
    return _sum_beside(jump) / _sum_beside(inside).clamp_min(1)


def _sum_beside(values: Float[Tensor, "lines pieces"]) -> Float[Tensor, "lines pieces"]:
    """Sum over the lines 3 to 6 beside; lines outside count as 0."""
    lines, reach = len(values), max(BESIDE)
    padded = functional.pad(values, (0, 0, reach, reach))
    total = torch.zeros_like(values)
    for k in BESIDE:
        total += padded[reach - k :][:lines] + padded[reach + k :][:lines]
    return total


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


def _score(sides: list[_Side]) -> float | None:
    if not sides:
        return None
    return float(_ratio(torch.stack([side.own() for side in sides]).sum(dim=0)))


def _band(sides: list[_Side], phase: int, n: int, seed: int) -> tuple[float, float] | None:
    if phase < 1 or n < 1:
        raise SettingsError(f"phase={phase}, n={n}", expected="both at least 1")
    generator = torch.Generator().manual_seed(seed)
    shifted = [side.shifted(phase, n, generator) for side in sides]
    sums = [s for s in shifted if s is not None]
    if not sums or len(sums) < len(sides):
        return None
    scores = _ratio(torch.stack(sums).sum(dim=0))
    low = torch.quantile(scores, TAIL, interpolation="lower")
    high = torch.quantile(scores, 1 - TAIL, interpolation="higher")
    return float(low), float(high)
