"""How much the engine costs: memory and time at any size, and beside the network."""

from __future__ import annotations

import math
import resource
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue as Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato._events import Told, exhausted
from sfumato._typing import Images
from sfumato.diffusion import Denoiser, NoiseField
from sfumato.errors import SettingsError
from sfumato.guidance import DDNM
from sfumato.io.canvas import Canvas as StoredCanvas
from sfumato.io.masters import write_master
from sfumato.io.windows import PictureWindows, open_windows
from sfumato.operators import parse
from sfumato.pipeline import jobs
from sfumato.pipeline.jobs import Streamed
from sfumato.pipeline.levels import Finisher
from sfumato.pipeline.report import Report
from sfumato.pipeline.resolve import resolve
from sfumato.pipeline.restore import Advanced, Event, Started
from sfumato.pipeline.settings import Settings
from sfumato.pipeline.source import FileSource
from sfumato.tiling import Executor
from sfumato.zoo import Prior, load_prior


@dataclass(frozen=True)
class Figures:
    """What a run took: seconds in all and in each part, and the peak of resident memory."""

    side: int
    tiles: int
    evaluations: int
    seconds: float
    parts: dict[str, float]
    peak_mb: float
    consistency_rmse_255: float

    @property
    def seconds_per_megapixel(self) -> float:
        """Of the result."""
        return self.seconds / (self.side**2 / 1e6)


Events = Generator[Event, None, Figures]
Lines = Generator[Event, None, tuple[list[Figures], float, float]]
Rivals = Generator[Event, None, tuple[float, float]]

#: The input is made in strips of so many columns: what it takes is no part of the engine.
_STRIP = 512
#: Side of the result that workers are warmed up with.
_WARM = 256


def bench_engine(
    side: int, steps: int, kernel: str, *, folder: Path | None = None, tile: int = 512
) -> Events:
    """Stream a ``side`` x ``side`` result of 4x super-resolution with a stand-in for the network.

    It costs next to nothing, so that what is left is the engine: noise, projection, reading and
    writing. The input is noise; 64 pixels of overlap.
    """
    word = "average_pool:4" if kernel == "box" else "bicubic:4"
    settings = Settings(steps=steps, stitch="mask-shift", tile=tile, overlap=min(64, tile // 4))
    prior = replace(load_prior(), denoiser=_shrink, name="stand-in", digest="")
    return (yield from _restored(side, word, prior, settings, folder))


def bench_overhead(
    side: int,
    *,
    prior: Prior | None = None,
    device: str = "cpu",
    settings: Settings | None = None,
    folder: Path | None = None,
) -> Events:
    """Restore a ``side`` x ``side`` result, at the default settings; the embedded prior if None.

    On a GPU each evaluation is waited for, so that its time is its own.
    """
    settings = (settings or Settings()).model_copy(update={"stitch": "mask-shift"})
    prior = prior or load_prior(device=device)
    if prior.super_resolution is not None:
        raise SettingsError(
            f"{prior.name} sees the small picture", expected="a prior for any task"
        )
    return (yield from _restored(side, "average_pool:4", prior, settings, folder, device=device))


def bench_linear(
    sides: Sequence[int], steps: int, *, repeats: int = 1, folder: Path | None = None
) -> Lines:
    """Restore results of all ``sides`` with the embedded prior, and fit lines  a + b · pixels.

    Returns the fastest of ``repeats`` runs of each, and two R²: that of the seconds, and that of
    the cost in evaluations, seconds over those that the network took for one in the same run.
    The speed of a machine that others use drifts by more than what is looked for; in evaluations
    it cancels.
    """
    settings = Settings(stitch="mask-shift", steps=steps)
    word, prior = "average_pool:4", load_prior()
    runs: list[Figures] = []
    for side in (*sides,) * repeats:
        figures = yield from _restored(side, word, prior, settings, folder)
        runs.append(figures)
    best = [min((f for f in runs if f.side == side), key=_tiles_seconds) for side in sides]
    return best, _r_squared(best, _tiles_seconds), _r_squared(best, _cost)


def _r_squared(runs: Sequence[Figures], of: Callable[[Figures], float]) -> float:
    return float(np.corrcoef([f.side**2 for f in runs], [*map(of, runs)])[0, 1] ** 2)


def _cost(figures: Figures) -> float:
    """Return the seconds in units of an evaluation of the network in the same run."""
    return _tiles_seconds(figures) * figures.evaluations / figures.parts["network"]


def _tiles_seconds(figures: Figures) -> float:
    return figures.parts["first tile to last"]


def bench_workers(
    side: int, steps: int, n: int, executor: Executor, *, folder: Path | None = None
) -> Rivals:
    """Compare ``n`` workers on one picture with ``n`` processes on a picture each.

    All have one thread, and have restored a small picture before the time begins. Returns the
    seconds that the workers take for one result of ``side`` x ``side``, and those that the
    processes take for ``n``.
    """
    settings = Settings(stitch="mask-shift", steps=steps)
    word, prior = "average_pool:4", load_prior()
    yield from _restored(_WARM, word, prior, settings, folder, executor)
    figures = yield from _restored(side, word, prior, settings, folder, executor)
    together = figures.parts["first tile to last"]
    spawn = get_context("spawn")
    ready, results = spawn.Barrier(n), spawn.SimpleQueue()
    processes = [
        spawn.Process(target=_alone, args=(side, settings, folder, ready, results))
        for _ in range(n)
    ]
    for process in processes:
        process.start()
    try:
        apart = max(results.get() for _ in processes)
    finally:
        for process in processes:
            process.join()
    return together, apart


def _alone(
    side: int, settings: Settings, folder: Path | None, ready: Barrier, results: Queue[float]
) -> None:
    """Restore a picture as one of several processes that begin at the same moment."""
    torch.set_num_threads(1)
    prior = load_prior()
    for size in (_WARM, side):
        ready.wait()
        figures = exhausted(_restored(size, "average_pool:4", prior, settings, folder))
    results.put(figures.parts["first tile to last"])


def _restored(
    side: int,
    word: str,
    prior: Prior,
    settings: Settings,
    folder: Path | None,
    executor: Executor | None = None,
    device: str = "cpu",
) -> Events:
    with tempfile.TemporaryDirectory(dir=folder, prefix="sfumato-bench-") as place:
        source, target = Path(place) / "y.tif", Path(place) / "x.tif"
        _write_input(source, side // 4)
        return (yield from _run(source, target, word, prior, settings, executor, device))


def _run(
    source: Path,
    target: Path,
    word: str,
    prior: Prior,
    settings: Settings,
    executor: Executor | None,
    device: str,
) -> Events:
    degradation = parse(word)
    timer = _Timer()
    if executor is None:  # in other processes the network is timed by nobody
        network = timer.around("network", _waited_for(prior.denoiser, device))
        prior = replace(prior, denoiser=network)
    problem = FileSource(open_windows(source), degradation, device=device)
    r = resolve(settings, problem, prior)
    streamed = Streamed(problem, target, r, prior, "", executor)
    evaluations, report = 0, None
    with timer.watching():
        started = time.perf_counter()
        work = Told(streamed.restore())
        for event in work:
            if isinstance(event, Started):
                timer.begin()
            if isinstance(event, Advanced):
                timer.mark()
                evaluations = event.done
            yield event
        report = work.outcome
        seconds = time.perf_counter() - started
    assert isinstance(report, Report), "a restoration ends with its report"
    parts = dict(timer.seconds)
    parts["first tile to last"] = timer.last - timer.first
    return Figures(
        side=report.width,
        tiles=report.tiles,
        evaluations=evaluations,
        seconds=seconds,
        parts=parts,
        peak_mb=_peak_mb(),
        consistency_rmse_255=report.consistency_rmse_255,
    )


def _waited_for(denoiser: Denoiser, device: str) -> Denoiser:
    """Return a denoiser that returns when a GPU has done what it was told."""
    if torch.device(device).type != "cuda":
        return denoiser

    def waited(x_t: Images, sigma: float) -> Images:
        x_0 = denoiser(x_t, sigma)
        torch.cuda.synchronize(x_t.device)
        return x_0

    return waited


def _shrink(x_t: Images, sigma: float) -> Images:
    """Estimate as for Gaussian data of standard deviation 0.5."""
    return x_t * (0.25 / (0.25 + sigma**2))


def _write_input(path: Path, side: int) -> None:
    """Write faint noise about grey, made strip by strip, as a tiled TIFF.

    It is the measurement of an image in the gamut, as that of a photograph is.
    """

    class Noise:
        height = width = side
        channels, bits = 3, 8

        def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
            values = np.empty((height, width, 3), np.uint8)
            for x in range(0, width, _STRIP):
                wide = min(_STRIP, width - x)
                z = NoiseField(1)(draw=0, top=top, left=left + x, shape=(3, height, wide))
                values[:, x : x + wide] = (127.5 + 20 * z).clamp(0, 255).permute(1, 2, 0).numpy()
            return values

    class Plain:
        icc = exif = xmp = resolution = None
        bits = 8

    write_master(Noise(), path, Plain())


def _peak_mb() -> float:
    """Return the largest resident memory of this process so far, in units of 2^20 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


class _Timer:
    """Adds up the seconds that are spent within some functions, by any thread."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.first = self.last = math.inf
        self._lock = threading.Lock()
        self._own = threading.local()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its own time counted; what it calls counts for itself."""

        def timed(*args: object, **kwargs: object) -> object:
            inside: list[float] = self._own.__dict__.setdefault("inside", [])
            started = time.perf_counter()
            self.first = min(self.first, started)
            inside.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - started
                with self._lock:
                    self.seconds[name] += took - inside.pop()
                if inside:
                    inside[-1] += took

        return timed

    def begin(self) -> None:
        """Note that the next part is the first tile's: it reads what is known about it."""
        self.first = math.inf

    def mark(self) -> None:
        """Note that a step of a tile is done."""
        self.last = time.perf_counter()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the parts of the engine."""
        parts: list[tuple[Any, str, str]] = [
            (NoiseField, "__call__", "noise"),
            (DDNM, "correct", "projection"),
            (Finisher, "__call__", "settling"),
            (PictureWindows, "read", "reading"),
            (StoredCanvas, "read", "canvas, reading"),
            (StoredCanvas, "write", "canvas, writing"),
            (StoredCanvas, "sync", "canvas, to disk"),
            (jobs, "write_master", "writing"),
            (jobs, "_seams", "looking for seams"),
            (jobs, "_consistency", "consistency"),
        ]
        with ExitStack() as stack:
            for kind, method, name in parts:
                original = getattr(kind, method)
                around = self.around(name, original)
                setattr(kind, method, _bound(around) if isinstance(kind, type) else around)
                stack.callback(setattr, kind, method, original)
            yield


def _bound(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: object, *args: object, **kwargs: object) -> object:
        return function(self, *args, **kwargs)

    return method
