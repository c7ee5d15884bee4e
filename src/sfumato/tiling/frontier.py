"""Which tile can be restored next: those whose neighbours are finished."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

from sfumato.tiling.plan import Tile


class Frontier:
    """The tiles left to do, each one as soon as it is ready.

    ``done`` are the numbers of tiles that an earlier run has finished. A tile that is not
    ``bound`` to its neighbours waits for none. Where one tile is at work ``at_once``, the lowest
    number goes first. Where several are, the tile does for which the longest chain of others
    waits, so that all have something to do until the end, but none that is more rows ahead of the
    lowest number left than tiles are at work: so the input is read from top to bottom, in a band.

    >>> from sfumato.tiling import TilePlan
    >>> frontier = Frontier(TilePlan(64, 64, tile=32, overlap=0).tiles)
    >>> [t.number for t in frontier.take(3)]
    [0, 1, 2]
    """

    def __init__(
        self,
        tiles: Sequence[Tile],
        *,
        done: Collection[int] = (),
        bound: bool = True,
        at_once: int = 1,
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
        self._finished: set[int] = set()
        row = max((k - n for k, missing in self._missing.items() for n in missing), default=0)
        self._ahead = at_once * row if at_once > 1 else 0
        self._chain = self._chains() if self._ahead else {}
        self._unfinished = sorted(self._tiles, reverse=True)

    @property
    def ready(self) -> int:
        """How many tiles are ready now."""
        return len(self._ready)

    def take(self, most: int) -> list[Tile]:
        """Take up to ``most`` tiles of one size that are ready now; none if none is."""
        taken: list[Tile] = []
        others: list[int] = []
        while self._ready and len(taken) < most:
            tile = self._tiles[self._next()]
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
        self._finished.add(tile.number)
        while self._unfinished and self._unfinished[-1] in self._finished:
            self._finished.remove(self._unfinished.pop())
        for k in self._dependents.pop(tile.number, ()):
            self._missing[k].discard(tile.number)
            if not self._missing[k]:
                heapq.heappush(self._ready, k)

    def _next(self) -> int:
        """Take the number of the tile that goes first."""
        if not self._ahead:
            return heapq.heappop(self._ready)
        end = self._unfinished[-1] + self._ahead
        near = [k for k in self._ready if k < end] or self._ready[:1]
        first = max(near, key=lambda k: (self._chain[k], -k))
        self._ready.remove(first)
        heapq.heapify(self._ready)
        return first

    def _chains(self) -> dict[int, int]:
        """Return for each tile how long the longest chain is of tiles that wait for the last."""
        chain: dict[int, int] = {}
        for k in sorted(self._tiles, reverse=True):
            chain[k] = 1 + max((chain[n] for n in self._dependents.get(k, ())), default=0)
        return chain
