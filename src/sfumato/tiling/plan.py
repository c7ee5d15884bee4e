"""Geometry of tiles: where they lie, who owns which pixel, who waits for whom.

No pixel is touched here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.metrics import Border
from sfumato.operators import Window

Order = Literal["raster", "reverse", "centre", "known-first"]


def positions(size: int, tile: int, overlap: int, stride: int = 1) -> list[tuple[int, int]]:
    """Return ``(start, length)`` of the tiles along one axis.

    Starts are multiples of ``stride`` and spread evenly, so that the surplus is shared by all
    overlaps. Each is at least ``overlap`` (less what alignment takes) and every tile has ``tile``
    pixels, except that the last one takes what is left of an unaligned side.

    >>> positions(1000, 256, 64)
    [(0, 256), (186, 256), (372, 256), (558, 256), (744, 256)]
    """
    if tile >= size:
        return [(0, size)]
    tile -= tile % stride
    step = (tile - overlap) // stride * stride
    if step < 1 or overlap < 0:
        raise SettingsError(
            f"tiles of {tile} with an overlap of {overlap} and cells of {stride} pixels",
            expected=f"an overlap of at least 0 and tiles of at least {overlap + stride}",
            do="take larger tiles or a smaller overlap",
        )
    last = (size - tile) // stride
    if last == 0:
        return [(0, size)]
    n = -(-last * stride // step)
    starts = [round(i * last / n) * stride for i in range(n + 1)]
    return [(s, (size - s) if s == starts[-1] else tile) for s in starts]


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: its window, its number in the order, and the wave it runs in.

    ``free`` are the parts of the window that it writes, ``bound`` those that earlier tiles have
    written and it is bound to. What is left is the margin towards later tiles: it is restored for
    context, and thrown away.
    """

    number: int
    window: Window
    wave: int
    free: tuple[Window, ...] = field(repr=False)
    bound: tuple[Window, ...] = field(repr=False)
    #: The numbers of the tiles that own what it is bound to.
    needs: tuple[int, ...] = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the window."""
        return self.window.height, self.window.width

    @property
    def movable(self) -> tuple[Window, ...]:
        """All of the window that it is not bound to, as rectangles in the window's own pixels.

        In raster order what it is bound to is a strip at the top, and one at the left that ends
        at the lower margin. The last rectangle holds ``free``.
        """
        w = self.window
        top = min(part.top for part in self.free) - w.top
        left = min(part.left for part in self.free) - w.left
        beside = [p.top + p.height - w.top for p in self.bound if p.left - w.left < left]
        end = max(beside, default=w.height) if left else w.height
        below = (Window(end, 0, w.height - end, w.width),) if end < w.height else ()
        return *below, Window(top, left, w.height - top, w.width - left)

    def frozen(self, device: str | torch.device = "cpu") -> Tensor:
        """Return a mask (1, height, width), true on the pixels that the tile is bound to."""
        w = self.window
        mask = torch.zeros((1, w.height, w.width), dtype=torch.bool, device=device)
        for part in self.bound:
            part.within(w).of(mask).fill_(True)
        return mask


@dataclass(frozen=True)
class TilePlan:
    """Tiles of an image of ``height`` x ``width`` pixels.

    A tile reaches over its window, but for ``margin`` pixels towards neighbours that come later:
    there it has seen too little on one side. The first tile that reaches a pixel, in the order,
    owns it. A tile waits for those that own pixels in its reach; its wave is one more than the
    latest of theirs. In raster order the waves are the anti-diagonals ``i + j``.

    Where measured values look over the borders of cells (``corners``), a tile is bound to all of
    its window that is finished: its upper right neighbour matters too, and in raster order, the
    only one then, the waves are those of ``2 i + j``.

    >>> plan = TilePlan(1024, 1024, tile=256, overlap=128)
    >>> len(plan.tiles), len(plan.waves)
    (49, 13)
    """

    height: int
    width: int
    tile: int
    overlap: int
    stride: int = 1
    order: Order = "raster"
    #: For ``known-first``: the share of known pixels of a window.
    known: Callable[[Window], float] | None = field(default=None, repr=False, compare=False)
    #: A multiple of ``stride``, at most half of ``overlap``.
    margin: int = 0
    corners: bool = False

    def __post_init__(self) -> None:
        if self.corners and self.order != "raster":
            raise SettingsError(
                f"order {self.order} with an operator that looks over the borders of cells",
                expected="raster",
            )
        if self.margin % self.stride or not 0 <= 2 * self.margin <= self.overlap:
            raise SettingsError(
                f"a margin of {self.margin} pixels",
                expected=f"a multiple of {self.stride}, at most half of the overlap",
            )

    @cached_property
    def windows(self) -> list[Window]:
        """All windows, row by row."""
        rows = positions(self.height, self.tile, self.overlap, self.stride)
        cols = positions(self.width, self.tile, self.overlap, self.stride)
        return [Window(y, x, h, w) for y, h in rows for x, w in cols]

    @cached_property
    def _ranked(self) -> list[Window]:
        ws = self.windows
        if self.order == "reverse":
            return ws[::-1]
        if self.order == "centre":
            return sorted(ws, key=self._rings.__getitem__)
        if self.order == "known-first" and self.known is not None:
            share = [self.known(w) for w in ws]
            return [ws[k] for k in sorted(range(len(ws)), key=lambda k: -share[k])]
        return ws

    @cached_property
    def _rings(self) -> dict[Window, int]:
        """How many tiles lie between each window and the centre, rows plus columns."""
        rows = {y: i for i, y in enumerate(sorted({w.top for w in self.windows}))}
        cols = {x: i for i, x in enumerate(sorted({w.left for w in self.windows}))}
        i, j = len(rows) // 2, len(cols) // 2
        return {w: abs(rows[w.top] - i) + abs(cols[w.left] - j) for w in self.windows}

    @cached_property
    def _reach(self) -> dict[Window, Window]:
        """Each window without its margins towards later neighbours."""
        rank = {(w.top, w.left): k for k, w in enumerate(self._ranked)}
        rows = sorted({w.top for w in self.windows})
        cols = sorted({w.left for w in self.windows})
        index = {(y, x): (i, j) for i, y in enumerate(rows) for j, x in enumerate(cols)}

        def margin(i: int, j: int, own: int) -> int:
            inside = 0 <= i < len(rows) and 0 <= j < len(cols)
            return self.margin if inside and rank[rows[i], cols[j]] > own else 0

        reach = {}
        for w in self.windows:
            i, j = index[w.top, w.left]
            own = rank[w.top, w.left]
            top, bottom = margin(i - 1, j, own), margin(i + 1, j, own)
            left, right = margin(i, j - 1, own), margin(i, j + 1, own)
            reach[w] = Window(
                w.top + top, w.left + left, w.height - top - bottom, w.width - left - right
            )
        return reach

    @cached_property
    def _cuts(self) -> tuple[list[int], list[int]]:
        """The lines where some reach begins or ends: between two of them one tile owns all."""
        reach = [*self._reach.values(), *(self.windows if self.corners else ())]
        ys = {v for w in reach for v in (w.top, w.top + w.height)}
        xs = {v for w in reach for v in (w.left, w.left + w.width)}
        return sorted(ys), sorted(xs)

    def _cells(self, w: Window) -> list[tuple[int, int]]:
        ys, xs = self._index
        rows = range(ys[w.top], ys[w.top + w.height])
        cols = range(xs[w.left], xs[w.left + w.width])
        return [(i, j) for i in rows for j in cols]

    @cached_property
    def _index(self) -> tuple[dict[int, int], dict[int, int]]:
        ys, xs = self._cuts
        return {v: i for i, v in enumerate(ys)}, {v: i for i, v in enumerate(xs)}

    @cached_property
    def _owned(self) -> tuple[list[Tile], NDArray[Any]]:
        ys, xs = self._cuts
        owner = np.full((len(ys) - 1, len(xs) - 1), -1, np.int32)
        tiles: list[Tile] = []
        for k, w in enumerate(self._ranked):
            cells = self._cells(self._reach[w])
            bound = [c for c in (self._cells(w) if self.corners else cells) if owner[c] >= 0]
            free = [c for c in cells if owner[c] < 0]
            needs = sorted({int(owner[c]) for c in bound})
            wave = 1 + max((tiles[n].wave for n in needs), default=-1) if free else -1
            for c in free:
                owner[c] = k
            free_parts, bound_parts = (
                tuple(Window(ys[i], xs[j], ys[i + 1] - ys[i], xs[j + 1] - xs[j]) for i, j in part)
                for part in (free, bound)
            )
            tiles.append(Tile(k, w, wave, free_parts, bound_parts, tuple(needs)))
        return tiles, owner

    @property
    def tiles(self) -> list[Tile]:
        """The tiles in their order; those left with nothing to write are dropped."""
        return [t for t in self._owned[0] if t.free]

    @cached_property
    def waves(self) -> list[list[Tile]]:
        """Tiles that can run together, wave after wave."""
        waves: dict[int, list[Tile]] = defaultdict(list)
        for t in self.tiles:
            waves[t.wave].append(t)
        return [waves[k] for k in sorted(waves)]

    def borders(self) -> list[Border]:
        """Return the lines where ownership changes: the seams that could show."""
        ys, xs = self._cuts
        owner = self._owned[1]
        n, m = len(ys) - 1, len(xs) - 1
        rows = [
            Border("row", ys[i], xs[j], xs[j + 1])
            for i in range(1, n)
            for j in range(m)
            if owner[i, j] != owner[i - 1, j]
        ]
        cols = [
            Border("column", xs[j], ys[i], ys[i + 1])
            for i in range(n)
            for j in range(1, m)
            if owner[i, j] != owner[i, j - 1]
        ]
        return rows + cols


def batches(tiles: Sequence[Tile], size: int) -> list[list[Tile]]:
    """Group tiles of one wave by the size of their windows, at most ``size`` to a batch."""
    groups: dict[tuple[int, int], list[Tile]] = defaultdict(list)
    for t in tiles:
        groups[t.size].append(t)
    return [g[i : i + size] for g in groups.values() for i in range(0, len(g), size)]
