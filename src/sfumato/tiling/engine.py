"""The engine: one level of an image, restored tile by tile or all tiles together."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sfumato._typing import CoarseImages, Images, Shape
from sfumato.diffusion import Chain, Denoiser, Guidance, NoiseField, Step
from sfumato.guidance import Guide, Measurement, Paste
from sfumato.operators import Window
from sfumato.samplers import Jump, Sampler, sample
from sfumato.tiling.fused import TiledDenoiser
from sfumato.tiling.plan import Tile, TilePlan, batches

Stitch = Literal["mask-shift", "joint", "independent", "whole"]


@dataclass(frozen=True)
class Progress:
    """So many tile evaluations of the network are done at this level."""

    done: int
    total: int


#: Long work is a generator: it yields progress and returns the image.
Restoration: TypeAlias = Generator[Progress, None, Images]


@dataclass(frozen=True)
class Level:
    """What is known about the image at one scale.

    ``measurement`` is None where an image is made from nothing. ``start`` (1, channels, height,
    width) is the image that the starting noise is put on (None: zeros). ``guide`` is the next
    coarser level's result with the ratio of the two scales.
    """

    shape: Shape
    field: NoiseField
    measurement: Measurement | None = None
    start: Images | None = None
    start_sigma: float | None = None
    guide: tuple[CoarseImages, int] | None = None


@dataclass(frozen=True)
class Engine:
    """Everything that stays the same from tile to tile and from level to level."""

    denoiser: Denoiser
    sampler: Sampler
    moves: Sequence[Step | Jump]
    #: Makes the guidance of a measurement (DDNM, say).
    method: Callable[[Measurement, NoiseField], Guidance]
    batch: int = 1
    #: The noise level below which a guide lets go.
    guide_until: float = 0.3
    device: str = "cpu"

    @property
    def n_steps(self) -> int:
        """Network evaluations for each tile."""
        return sum(isinstance(m, Step) for m in self.moves)

    def restore(self, level: Level, plan: TilePlan, stitch: Stitch) -> Restoration:
        """Restore one level, over the tiles of ``plan``."""
        if stitch in ("mask-shift", "independent"):
            return self._tile_by_tile(level, plan, paste=stitch == "mask-shift")
        return self._all_together(level, plan)

    def _all_together(self, level: Level, plan: TilePlan) -> Restoration:
        """Joint restoration: all tiles advance together.

        In each step their estimates are fused, and the data term acts on the whole image.
        """
        done = [0]

        def count(n: int) -> None:
            done[0] += n

        tiled = TiledDenoiser(self.denoiser, plan, batch=self.batch, counted=count)
        total = self.n_steps * len(plan.tiles)
        whole = Window(0, 0, *level.shape[1:])
        x = self._start(level, [whole])
        walk = sample(
            tiled,
            self.sampler,
            [self._guidance(level, whole)],
            self.moves,
            x_T=x,
            noise=self._noise(level, [whole]),
        )
        for _, after in walk:
            x = after
            yield Progress(done[0], total)
        return x

    def _tile_by_tile(self, level: Level, plan: TilePlan, *, paste: bool) -> Restoration:
        """Mask-shift restoration: waves of tiles, each bound to what earlier ones finished."""
        canvas = torch.zeros((1, *level.shape), device=self.device)
        done, total = 0, self.n_steps * len(plan.tiles)
        for wave in plan.waves:
            for tiles in batches(wave, self.batch):
                guidances = [
                    self._tile_guidance(level, t, canvas if paste else None) for t in tiles
                ]
                windows = [t.window for t in tiles]
                x = self._start(level, windows)
                for move, after in sample(
                    self.denoiser,
                    self.sampler,
                    guidances,
                    self.moves,
                    x_T=x,
                    noise=self._noise(level, windows),
                ):
                    x = after
                    done += len(tiles) * isinstance(move, Step)
                    yield Progress(done, total)
                _write(canvas, tiles, x)
        return canvas

    def _noise(self, level: Level, windows: Sequence[Window]) -> Callable[[int], Tensor]:
        def noise(draw: int) -> Tensor:
            fields = [
                level.field(
                    draw=draw,
                    top=w.top,
                    left=w.left,
                    shape=(level.shape[0], w.height, w.width),
                    device=self.device,
                )
                for w in windows
            ]
            return torch.stack(fields) if len(fields) > 1 else fields[0][None]

        return noise

    def _start(self, level: Level, windows: Sequence[Window]) -> Images:
        """``x_T = start + σ_T z``  with draw 0 of the noise.

        It is drawn anew for every tile, never taken from a finished one.
        """
        sigma = self.moves[0].sigma if level.start_sigma is None else level.start_sigma
        x = sigma * self._noise(level, windows)(0)
        if level.start is not None:
            x += torch.cat([w.of(level.start) for w in windows])
        return x

    def _guidance(self, level: Level, window: Window) -> Guidance:
        links: list[Guidance] = []
        if level.guide is not None:
            coarse, r = level.guide
            part = Window(window.top // r, window.left // r, window.height // r, window.width // r)
            links.append(Guide(part.of(coarse), r, self.guide_until))
        if level.measurement is not None:
            whole = (window.height, window.width) == level.shape[1:]
            measurement = level.measurement if whole else level.measurement.crop(window)
            links.append(self.method(measurement, level.field))
        return links[0] if len(links) == 1 else Chain(links)

    def _tile_guidance(self, level: Level, tile: Tile, canvas: Tensor | None) -> Guidance:
        inner = self._guidance(level, tile.window)
        if canvas is None or tile.wave == 0:
            return inner
        return Paste(inner, tile.window.of(canvas).clone(), tile.frozen(self.device))


def _write(canvas: Tensor, tiles: Sequence[Tile], x: Images) -> None:
    """Write the pixels that each tile owns."""
    for t, image in zip(tiles, x, strict=True):
        for part in t.free:
            part.of(canvas)[0].copy_(part.within(t.window).of(image))
