"""Which tile can be restored next: those whose neighbours are finished."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

from sfumato.tiling.plan import Tile


class Frontier:
    """The tiles left to do, in the order of the plan, each one as soon as it is ready.

    ``done`` are the numbers of tiles that an earlier run has finished. A tile that is not
    ``bound`` to its neighbours waits for none. The lowest number goes first: in raster order the
    tiles that run together form a band of rows, so the input is read from top to bottom.

    >>> from sfumato.tiling import TilePlan
    >>> frontier = Frontier(TilePlan(64, 64, tile=32, overlap=0).tiles)
    >>> [t.number for t in frontier.take(3)]
    [0, 1, 2]
    """

    def __init__(
        self, tiles: Sequence[Tile], *, done: Collection[int] = (), bound: bool = True
    ) -> None:
        done = set(done)
        self._tiles = {t.number: t for t in tiles if t.number not in done}
        self._missing = {
            k: {n for n in t.needs if n not in done} if bound else set()
            for k, t in self._tiles.items()
        }
        self._dependents: dict[int, list[int]] = {}
        for k, missing in self._missing.items():
            for n in missing:
                self._dependents.setdefault(n, []).append(k)
        self._ready = [k for k, missing in self._missing.items() if not missing]
        heapq.heapify(self._ready)
        self.left = len(self._tiles)

    @property
    def ready(self) -> int:
        """How many tiles are ready now."""
        return len(self._ready)

    def take(self, most: int) -> list[Tile]:
        """Take up to ``most`` tiles of one size that are ready now; none if none is."""
        taken: list[Tile] = []
        others: list[int] = []
        while self._ready and len(taken) < most:
            tile = self._tiles[heapq.heappop(self._ready)]
            if taken and tile.size != taken[0].size:
                others.append(tile.number)
            else:
                taken.append(tile)
        for k in others:
            heapq.heappush(self._ready, k)
        return taken

    def give_back(self, tiles: Sequence[Tile]) -> None:
        """Put tiles back that were taken but could not be finished."""
        for tile in tiles:
            heapq.heappush(self._ready, tile.number)

    def finish(self, tile: Tile) -> None:
        """Note that ``tile`` is on the canvas."""
        self.left -= 1
        for k in self._dependents.pop(tile.number, ()):
            self._missing[k].discard(tile.number)
            if not self._missing[k]:
                heapq.heappush(self._ready, k)
