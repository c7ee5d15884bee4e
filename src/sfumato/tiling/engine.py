"""The engine: one level of an image, restored tile by tile or all tiles together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from sfumato._events import Told
from sfumato._typing import Images
from sfumato.diffusion import Step
from sfumato.operators import Window
from sfumato.samplers import Position, go_on
from sfumato.tiling.executor import Executor, InProcess
from sfumato.tiling.frontier import Frontier
from sfumato.tiling.fused import TiledDenoiser
from sfumato.tiling.level import Canvas, LevelSource, TensorCanvas
from sfumato.tiling.plan import Tile, TilePlan
from sfumato.tiling.tasks import Restorer, TileTask

Stitch = Literal["mask-shift", "joint", "independent", "whole"]


@dataclass(frozen=True)
class Progress:
    """So many tile evaluations of the network are done at this level."""

    done: int
    total: int


#: Long work is a generator: it yields progress and returns the image.
Restoration: TypeAlias = Generator[Progress, None, Images]


@runtime_checkable
class Keeper(Protocol):
    """Keeps where a walk stands, so that it goes on from there after a kill."""

    def last(self) -> Position | None:
        """Return what was kept last, if anything."""

    def keep(self, at: Position) -> None:
        """Keep this instead, now or a little later."""


class Forgetful:
    """Keeps nothing."""

    def last(self) -> Position | None:
        """Return None."""

    def keep(self, at: Position) -> None:
        """Do nothing."""


def _nothing(tiles: Sequence[Tile]) -> None:
    del tiles


@dataclass(frozen=True)
class Engine:
    """Everything that stays the same from tile to tile and from level to level.

    Neither the executor nor how many tiles it restores at once changes the result.
    """

    restorer: Restorer
    executor: Executor = field(default_factory=InProcess)

    @property
    def n_steps(self) -> int:
        """Network evaluations for each tile."""
        return self.restorer.n_steps

    def restore(self, level: LevelSource, plan: TilePlan, stitch: Stitch) -> Restoration:
        """Restore one level in memory, over the tiles of ``plan``."""
        if stitch in ("joint", "whole"):
            return (yield from self.all_together(level, plan))
        canvas = TensorCanvas(level.shape, self.restorer.device)
        yield from self.tile_by_tile(level, plan, canvas, paste=stitch == "mask-shift")
        return canvas.x

    def all_together(
        self, level: LevelSource, plan: TilePlan, keeper: Keeper | None = None
    ) -> Restoration:
        """Joint restoration: all tiles advance together.

        In each step their estimates are fused, and the data term acts on the whole image.
        ``keeper`` has the last word on where to begin.
        """
        r, keeper = self.restorer, keeper or Forgetful()
        whole = Window(0, 0, *level.shape[1:])
        local = level.at(whole)
        start = keeper.last() or Position(0, r.start(level, whole, local), ((),))
        total = self.n_steps * len(plan.tiles)
        done = [sum(isinstance(m, Step) for m in r.moves[: start.made]) * len(plan.tiles)]

        def count(n: int) -> None:
            done[0] += n

        condition = r.conditions([local])
        tiled = TiledDenoiser(
            r.network, plan, batch=r.micro_batch, counted=count, condition=condition
        )
        walk = go_on(
            tiled,
            r.sampler,
            [r.guidance(local)],
            r.moves,
            start,
            noise=lambda draw: r.noise(level, whole, draw),
        )
        x = start.x
        with r.own_threads():
            for at in walk:
                x = at.x
                keeper.keep(at)
                yield Progress(done[0], total)
        return x

    def tile_by_tile(
        self,
        level: LevelSource,
        plan: TilePlan,
        canvas: Canvas,
        *,
        paste: bool = True,
        done: Collection[int] = (),
        written: Callable[[Sequence[Tile]], None] = _nothing,
    ) -> Generator[Progress, None, None]:
        """Mask-shift restoration: each tile is bound to what its neighbours have finished.

        Tiles numbered in ``done`` are on the canvas already. ``written`` is told of the others,
        as soon as they are. Without ``paste`` the tiles are independent.
        """
        tiles = {t.number: t for t in plan.tiles}
        total = self.n_steps * len(tiles)
        workers = self.executor
        workers.begin(self.restorer)
        try:
            at_once = self.restorer.room.most * workers.free()
            frontier = Frontier(plan.tiles, done=done, bound=paste, at_once=at_once)
            evaluations = total - self.n_steps * frontier.left
            while frontier.left:
                while tiles_now := frontier.take(self._share(frontier.ready, workers.free())):
                    bound_to = canvas if paste else None
                    workers.submit([_task(level, t, bound_to, plan.corners) for t in tiles_now])
                waiting = Told(workers.wait())
                for n in waiting:
                    evaluations += n
                    yield Progress(evaluations, total)
                for task, x in waiting.outcome:
                    for part in task.free:
                        canvas.write(part, part.within(task.window).of(x))
                    frontier.finish(tiles[task.number])
                written([tiles[task.number] for task, _ in waiting.outcome])
        finally:
            workers.close()

    def _share(self, ready: int, batches: int) -> int:
        """Return how many of the tiles that are ready the next of so many batches gets.

        No fewer than the network sees at once: it would see others in their place.
        """
        r = self.restorer
        return min(r.room.most, max(r.micro_batch, -(-ready // batches))) if batches else 0


def _task(level: LevelSource, tile: Tile, canvas: Canvas | None, corners: bool) -> TileTask:
    bound = canvas is not None and bool(tile.bound)
    return TileTask(
        number=tile.number,
        window=tile.window,
        free=tile.free,
        shape=level.shape,
        field=level.field,
        local=level.at(tile.window, tile.movable if bound and corners else ()),
        origin=level.origin,
        start_sigma=level.start_sigma,
        restored=canvas.read(tile.window) if bound and canvas is not None else None,
        frozen=tile.frozen() if bound else None,
    )
