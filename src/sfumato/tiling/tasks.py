"""The work on tiles: all that a worker needs to know, and what it does with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from sfumato._events import Told
from sfumato._typing import Images, Shape
from sfumato.diffusion import Chain, Denoiser, Guidance, NoiseField, Step
from sfumato.diffusion.arithmetic import Kernels
from sfumato.guidance import Guide, Measurement, Paste
from sfumato.operators import Window
from sfumato.samplers import Jump, Sampler, sample
from sfumato.tiling.level import LevelSource, Local
from sfumato.tiling.room import InMicroBatches, Room

#: Work on tiles yields how many evaluations it has done more, and returns the images.
TileWork: TypeAlias = Generator[int, None, list[Images]]


@dataclass(frozen=True)
class TileTask:
    """One tile to restore, with everything that the result depends on.

    ``restored`` and ``frozen`` are what its neighbours have finished, and where. ``free`` are the
    parts of the window that will be kept. Nothing here refers to the rest of the image, so that a
    task can be sent to another process.
    """

    number: int
    window: Window
    free: tuple[Window, ...]
    shape: Shape
    field: NoiseField
    local: Local
    origin: tuple[int, int] = (0, 0)
    start_sigma: float | None = None
    restored: Images | None = None
    frozen: Tensor | None = None


class ShortOfMemoryWarning(UserWarning):
    """A device has less memory than was asked for."""


@dataclass(frozen=True)
class Restorer:
    """What is done with every tile: the same network, sampler and method.

    The network sees ``micro_batch`` tiles at once, whatever the batch.
    """

    denoiser: Denoiser
    sampler: Sampler
    moves: Sequence[Step | Jump]
    #: Makes the guidance of a measurement (DDNM, say).
    method: Callable[[Measurement], Guidance]
    #: The noise level below which a guide lets go.
    guide_until: float = 0.3
    device: str = "cpu"
    micro_batch: int = 1
    #: The most tiles to restore at once (None: as many as there is room for).
    batch: int | None = None
    #: Threads of an evaluation (None: as many as the process has).
    threads: int | None = None
    kernels: Kernels = "eager"

    @cached_property
    def room(self) -> Room:
        """How many tiles are restored at once."""
        return Room(self.device, self.batch)

    @cached_property
    def network(self) -> InMicroBatches:
        """The denoiser, in batches of one size."""
        return InMicroBatches(self.denoiser, self.micro_batch, kernels=self.kernels)

    @contextmanager
    def own_threads(self) -> Iterator[None]:
        """Let this process have the restorer's threads for a while."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    @property
    def n_steps(self) -> int:
        """Network evaluations for each tile."""
        return sum(isinstance(m, Step) for m in self.moves)

    def restore(self, tasks: Sequence[TileTask]) -> TileWork:
        """Restore tiles of one size, at once if the device has room, else half after half."""
        most = self.room.most
        if len(tasks) > most:
            first = yield from self.restore(tasks[:most])
            return first + (yield from self.restore(tasks[most:]))
        told = 0
        try:
            work = Told(self._at_once(tasks))
            for n in work:
                told += n
                yield n
            self.room.fitted()
            return work.outcome
        except torch.OutOfMemoryError:
            if len(tasks) == 1:
                raise
        self.room.halve(len(tasks))
        warnings.warn(
            f"{self.device} has no memory for {len(tasks)} tiles at once: "
            f"{self.room.most} at once from now on",
            ShortOfMemoryWarning,
            stacklevel=2,
        )
        return (yield from _after(told, self.restore(tasks)))

    def _at_once(self, tasks: Sequence[TileTask]) -> TileWork:
        walk = sample(
            self.network.given(self.conditions([t.local for t in tasks])),
            self.sampler,
            [self.guidance_of(t) for t in tasks],
            self.moves,
            x_T=torch.cat([self.start(t, t.window, t.local) for t in tasks]),
            noise=lambda draw: torch.cat([self.noise(t, t.window, draw) for t in tasks]),
        )
        x = torch.empty(0)
        for move, after in walk:
            x = after
            yield len(tasks) * isinstance(move, Step)
        return [_finished(t, x[i : i + 1]) for i, t in enumerate(tasks)]

    def conditions(self, of: Sequence[Local]) -> Images | None:
        """Return the conditions of some windows as a batch; None where the denoiser wants none."""
        given = [local.condition for local in of if local.condition is not None]
        return torch.cat(given).to(self.device) if given else None

    def noise(self, of: LevelSource | TileTask, window: Window, draw: int) -> Tensor:
        """Return one draw of the noise of a window, with a batch axis."""
        top, left = of.origin[0] + window.top, of.origin[1] + window.left
        shape = (of.shape[0], window.height, window.width)
        return of.field(draw=draw, top=top, left=left, shape=shape, device=self.device)[None]

    def start(self, of: LevelSource | TileTask, window: Window, local: Local) -> Images:
        """``x_T = start + σ_T z``  with draw 0 of the noise.

        It is drawn anew for every tile, never taken from a finished one.
        """
        sigma = self.moves[0].sigma if of.start_sigma is None else of.start_sigma
        shape = (1, of.shape[0], window.height, window.width)
        z = self.noise(of, window, 0) if sigma else torch.zeros(shape, device=self.device)
        x = sigma * z
        return x if local.start is None else x + local.start.to(x)

    def guidance(self, local: Local) -> Guidance:
        """Chain what is known about a window: the guide first, then the measurement."""
        links: list[Guidance] = []
        if local.guide is not None:
            links.append(Guide(*local.guide, self.guide_until))
        if local.measurement is not None:
            links.append(self.method(local.measurement))
        return links[0] if len(links) == 1 else Chain(links)

    def guidance_of(self, task: TileTask) -> Guidance:
        """Bind what is known about a tile to what its neighbours have finished."""
        inner = self.guidance(task.local)
        if task.restored is None or task.frozen is None:
            return inner
        return Paste(inner, task.restored.to(self.device), task.frozen.to(self.device))


def _finished(task: TileTask, x: Images) -> Images:
    if task.local.finish is None:
        return x
    return task.local.finish(x, [part.within(task.window) for part in task.free])


def _after(told: int, work: TileWork) -> TileWork:
    """Do work whose first ``told`` evaluations were counted before, in vain."""
    done = 0
    again = Told(work)
    for n in again:
        news = max(0, min(n, done + n - told))
        done += n
        if news:
            yield news
    return again.outcome
