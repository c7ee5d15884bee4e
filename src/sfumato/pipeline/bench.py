"""How much the engine costs: memory and time at any size, and beside the network."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato._typing import Images
from sfumato.diffusion import NoiseField
from sfumato.guidance import DDNM
from sfumato.io.canvas import Canvas as StoredCanvas
from sfumato.io.masters import write_master
from sfumato.io.windows import PictureWindows, open_windows
from sfumato.operators import parse
from sfumato.pipeline.jobs import Streamed
from sfumato.pipeline.levels import Finisher
from sfumato.pipeline.report import Report
from sfumato.pipeline.resolve import resolve
from sfumato.pipeline.restore import Advanced, Event
from sfumato.pipeline.settings import Settings
from sfumato.pipeline.source import FileSource
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


def bench_engine(
    side: int, steps: int, kernel: str, *, folder: Path | None = None, tile: int = 512
) -> Events:
    """Stream a ``side`` x ``side`` result of 4x super-resolution with a stand-in for the network.

    It costs next to nothing, so that what is left is the engine: noise, projection, reading and
    writing. The input is noise; 64 pixels of overlap.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="sfumato-bench-") as place:
        source = Path(place) / "y.tif"
        _write_input(source, side // 4)
        word = "average_pool:4" if kernel == "box" else "bicubic:4"
        settings = Settings(
            steps=steps, stitch="mask-shift", tile=tile, overlap=min(64, tile // 4)
        )
        prior = replace(load_prior(), denoiser=_shrink, name="stand-in", digest="")
        return (yield from _run(source, Path(place) / "x.tif", word, prior, settings))


def bench_overhead(side: int, *, folder: Path | None = None) -> Events:
    """Restore a ``side`` x ``side`` result with the embedded prior, at the default settings."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="sfumato-bench-") as place:
        source = Path(place) / "y.tif"
        _write_input(source, side // 4)
        settings = Settings(stitch="mask-shift")
        target = Path(place) / "x.tif"
        return (yield from _run(source, target, "average_pool:4", load_prior(), settings))


def _run(source: Path, target: Path, word: str, prior: Prior, settings: Settings) -> Events:
    degradation = parse(word)
    timer = _Timer()
    prior = replace(prior, denoiser=timer.around("network", prior.denoiser))
    problem = FileSource(open_windows(source), degradation)
    streamed = Streamed(problem, target, resolve(settings, problem, prior), prior, "")
    evaluations, report = 0, None
    with timer.watching():
        started = time.perf_counter()
        work = streamed.restore()
        while True:
            try:
                event = next(work)
            except StopIteration as stop:
                report = stop.value
                break
            if isinstance(event, Advanced):
                timer.mark()
                evaluations = event.done
            yield event
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


def _shrink(x_t: Images, sigma: float) -> Images:
    """Estimate as for Gaussian data of standard deviation 0.5."""
    return x_t * (0.25 / (0.25 + sigma**2))


def _write_input(path: Path, side: int) -> None:
    """Write grey-levelled noise, made strip by strip, as a tiled TIFF."""

    class Noise:
        height = width = side
        channels, bits = 3, 8

        def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
            z = NoiseField(1)(draw=0, top=top, left=left, shape=(3, height, width))
            u = (127.5 + 40 * z).clamp(0, 255)
            return u.permute(1, 2, 0).numpy().astype(np.uint8)

    class Plain:
        icc = exif = xmp = resolution = None
        bits = 8

    write_master(Noise(), path, Plain())


def _peak_mb() -> float:
    """Return the largest resident memory of this process so far, in units of 2^20 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


class _Timer:
    """Adds up the seconds that are spent within some functions."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.first = self.last = time.perf_counter()
        self._inside: list[float] = []

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its own time counted; what it calls counts for itself."""

        def timed(*args: object, **kwargs: object) -> object:
            started = time.perf_counter()
            self._inside.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - started
                self.seconds[name] += took - self._inside.pop()
                if self._inside:
                    self._inside[-1] += took

        return timed

    def mark(self) -> None:
        """Note that a step of a tile is done."""
        self.last = time.perf_counter()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the parts of the engine."""
        parts: list[tuple[type, str, str]] = [
            (NoiseField, "__call__", "noise"),
            (DDNM, "correct", "projection"),
            (Finisher, "__call__", "settling"),
            (PictureWindows, "read", "reading"),
            (StoredCanvas, "read", "canvas, reading"),
            (StoredCanvas, "write", "canvas, writing"),
            (StoredCanvas, "sync", "canvas, to disk"),
        ]
        self.first = time.perf_counter()
        with ExitStack() as stack:
            for kind, method, name in parts:
                original = getattr(kind, method)
                setattr(kind, method, _bound(self.around(name, original)))
                stack.callback(setattr, kind, method, original)
            yield


def _bound(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: object, *args: object, **kwargs: object) -> object:
        return function(self, *args, **kwargs)

    return method
