"""What a restoration will take, before anything starts: of the picture only the header is read.

Tiles and evaluations are exact. Memory, disk and time are "about": measured on a tile or two, or
counted, and scaled by pixels.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from sfumato.diffusion import Conditional, denoise, linearised
from sfumato.errors import SfumatoError
from sfumato.io._formats import NUMPY, read_head
from sfumato.io._read import is_tiled, read_header
from sfumato.io.windows import PictureWindows, picture_shape
from sfumato.operators import Degradation
from sfumato.pipeline.jobs import cache_bytes
from sfumato.pipeline.memory import images_bytes
from sfumato.pipeline.problem import Source, make_problem
from sfumato.pipeline.resolve import resolve
from sfumato.pipeline.restore import Run
from sfumato.pipeline.settings import Settings
from sfumato.pipeline.source import FileSource, streams
from sfumato.zoo import Prior

#: A network takes about so much more than its tensors, which are what can be counted.
_WORKSPACE = 1.8
#: What is held while the file is written.
_WRITING_BYTES = 32 << 20
#: Sides in pixels: of the tile that a network's memory is counted on, of the largest one timed.
_COUNTED, _TIMED = 128, 512


@dataclass(frozen=True)
class Level:
    """One level of a restoration: its size, and its tiles."""

    width: int
    height: int
    tiles: int


@dataclass(frozen=True)
class Estimate:
    """What a restoration takes.

    ``evaluations`` are those of the network. ``device_bytes`` are on the GPU, if there is one.
    ``job_bytes`` and ``output_bytes`` are the most that the disk must hold. ``seconds`` are the
    network's alone; where it ``solves``, equations for the measurement may take longer than that.
    """

    task: str
    width: int
    height: int
    levels: tuple[Level, ...]
    stitch: str
    tiles: int
    waves: int
    steps: int
    batch: int
    evaluations: int
    memory_bytes: int
    device_bytes: int
    job_bytes: int
    output_bytes: int
    seconds: float
    solves: bool
    settings: dict[str, object]


@dataclass(frozen=True)
class Outlook:
    """A restoration of a file of which only the header was read, with every choice made."""

    picture: PictureWindows
    degradation: Degradation
    run: Run
    prior: Prior
    device: str
    tiled_file: bool

    @classmethod
    def of(
        cls,
        path: Path,
        degradation: Degradation,
        *,
        prior: Prior,
        settings: Settings,
        device: str = "cpu",
    ) -> Outlook:
        """Read the header, and choose as a restoration would.

        Raises ImageError, DegradationError, ShapeError and SettingsError.
        """
        array = read_head(path).startswith(NUMPY)
        header = None if array else read_header(path, limit_pixels=None, windows=True)
        shape = picture_shape(path)
        bands = header.image.bands if header else shape[0]
        picture = PictureWindows(shape, _zeros(bands), header)
        source: Source
        if settings.samples == 1 and streams(path, degradation, settings.stitch):
            source = FileSource(picture, degradation, device)
        else:
            y = torch.zeros(picture.channels, picture.height, picture.width, device=device)
            source = make_problem(y, degradation, bits=picture.bits)
        run = Run(
            source, resolve(settings, source, prior), prior, bits=picture.bits, device=device
        )
        tiled = array or (header is not None and is_tiled(header.image))
        return cls(picture, degradation, run, prior, device, tiled)

    @property
    def streamed(self) -> bool:
        """Whether the picture goes from file to file, never in memory as a whole."""
        tile_by_tile = self.run.r.stitch in ("mask-shift", "independent")
        return tile_by_tile and isinstance(self.run.source, FileSource)

    def unlike(self, report: Mapping[str, Any]) -> str:
        """Say in what a report tells of another restoration than this one; "" if in nothing.

        The input's digest is not looked at. The batch makes no difference.
        """
        plan, settings = self.run.plans[-1], self.run.r.as_dict()
        now = {
            "model_digest": self.prior.digest,
            "degradation": str(self.degradation),
            "width": plan.width,
            "height": plan.height,
        }
        settings |= {"precision": self.prior.precision}
        settings.pop("batch")
        was = report.get("settings")
        pairs = [(k.replace("_digest", ""), report.get(k), v) for k, v in now.items()]
        pairs += [
            (k, was.get(k) if isinstance(was, dict) else None, v) for k, v in settings.items()
        ]
        for name, before, after in pairs:
            after = json.loads(json.dumps(after))
            if before != after:
                return f"{name} was {_short(before)}, is {_short(after)}"
        return ""

    def estimate(self, target: Path, trial: Trial, *, workers: int = 1) -> Estimate:
        """Estimate what it takes with ``workers`` processes."""
        run, r = self.run, self.run.r
        plan = run.plans[-1]
        workers = workers if self.streamed else 1
        here, there = self._memory(trial, workers)
        return Estimate(
            task=run.source.task,
            width=plan.width,
            height=plan.height,
            levels=tuple(Level(p.width, p.height, len(p.tiles)) for p in run.plans),
            stitch=r.stitch,
            tiles=len(plan.tiles),
            waves=len(plan.waves) if r.stitch == "mask-shift" else 1,
            steps=r.steps,
            batch=run.engine.restorer.room.most,
            evaluations=run.total * self._per_step,
            memory_bytes=here,
            device_bytes=there,
            job_bytes=self._job_bytes(target),
            output_bytes=self._output_bytes(target),
            seconds=self._seconds(trial, workers),
            solves=run.source.A.amplifies,
            settings=run.settings(),
        )

    @property
    def _per_step(self) -> int:
        """Evaluations of the network in a step of a tile."""
        return self.run.per_tile // self.run.engine.n_steps

    def _images_bytes(self, height: int, width: int, batch: int = 1) -> int:
        """Return what the images of a tile, or of the whole image, take while it is restored."""
        A, noisy = self.run.source.A, self.run.r.method != "ddnm"
        share = _size(A.out_shape) / _size(A.in_shape)
        n = height * width
        return int(batch * images_bytes((3, n, 1), (3, round(n * share), 1), noisy=noisy))

    def _memory(self, trial: Trial, workers: int) -> tuple[int, int]:
        """Return the peak of memory here and on the GPU, if there is one."""
        r, plan = self.run.r, self.run.plans[-1]
        height, width = min(plan.tile, plan.height), min(plan.tile, plan.width)
        restorer = self.run.engine.restorer
        batch = min(restorer.room.most, len(plan.tiles))
        work = int(trial.bytes_per_pixel(r.chosen.passes) * height * width * restorer.micro_batch)
        if self.streamed:
            work += self._images_bytes(height, width, batch)
            kept = _WRITING_BYTES
            for p in self.run.plans[-2:]:
                whole = _canvas_bytes(p.height, p.width, self._channels, 16)
                kept += min(cache_bytes(p, self._channels, 16), whole)
        else:
            work += self._images_bytes(plan.height, plan.width)
            kept = (r.samples - 1) * plan.height * plan.width * 3 * 4
        program = trial.program_bytes
        if torch.device(self.device).type == "cpu":
            return kept + (program + work) * workers + (program if workers > 1 else 0), 0
        here = kept + program * (workers + (workers > 1))
        return here, workers * (work + trial.weights_bytes)

    @property
    def _channels(self) -> int:
        return 1 if self.run.source.grey else self.run.source.A.in_shape[0]

    def _job_bytes(self, target: Path) -> int:
        """Return the most that the job's folder takes, with what is decoded for a while."""
        if not self.streamed:
            return 0
        p, plans = self.picture, self.run.plans
        n = sum(
            _canvas_bytes(v.height, v.width, self._channels, self.run.bits_of(i))
            for i, v in enumerate(plans)
        )
        if not self.tiled_file:
            n += _canvas_bytes(p.height, p.width, p.channels + p.has_alpha, p.bits)
        tiles = target.suffix.lower() in (".tif", ".tiff", ".zarr")
        return n if tiles else n + self._output_bytes(target)

    def _output_bytes(self, target: Path) -> int:
        plan, p = self.run.plans[-1], self.picture
        bits = p.bits if target.suffix.lower() in (".png", ".tif", ".tiff", ".zarr") else 8
        n = _canvas_bytes(plan.height, plan.width, self._channels + p.has_alpha, bits)
        return n * (1 if self.run.r.samples == 1 else self.run.r.samples + 2)

    def _seconds(self, trial: Trial, workers: int) -> float:
        """Return the time of the network; several processes work on one wave."""
        r, seconds = self.run.r, 0.0
        for plan in self.run.plans:
            tiles = plan.tiles
            largest = max(tiles, key=lambda t: t.size[0] * t.size[1]).size
            at_once = max(len(tiles) / workers, len(plan.waves) if workers > 1 else 0)
            micro_batch = self.run.engine.restorer.micro_batch
            seconds += at_once * trial.seconds(*largest, micro_batch, r.chosen.passes)
        return seconds * self.run.engine.n_steps * self._per_step * r.samples


def _zeros(n_bands: int) -> Callable[[int, int, int, int], Tensor]:
    """Stand for the pixels that were not read."""

    def fetch(left: int, top: int, width: int, height: int) -> Tensor:
        return torch.zeros(n_bands, height, width)

    return fetch


def _size(shape: Sequence[int]) -> int:
    return shape[0] * shape[1] * shape[2]


def _canvas_bytes(height: int, width: int, channels: int, bits: int) -> int:
    return height * width * channels * bits // 8


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:13].strip(chr(34))}…"


@final
class Trial:
    """What a prior takes for a tile: tried out for about a second, once for each size of tile.

    With ``once`` only the first size is tried, and others are scaled by their pixels.
    """

    def __init__(self, prior: Prior, device: str = "cpu", *, once: bool = False) -> None:
        self._denoiser, self._device, self._once = prior.denoiser, torch.device(device), once
        #: The one size that the network sees, if there is but one.
        self._side = prior.tile if prior.fixed_size else None
        self._seconds: dict[tuple[int, int, int, int], float] = {}
        self._bytes: dict[int, float] = {}
        #: What the program itself takes, with the prior.
        self.program_bytes = resident_bytes()

    def bytes_per_pixel(self, passes: int = 0) -> float:
        """Return what the network takes for each pixel of a tile, counted on a small one."""
        if passes not in self._bytes:
            live, side = LiveTensors(), self._side or _COUNTED
            with live:
                self._evaluate(side, side, 1, passes)
            self._bytes[passes] = _WORKSPACE * live.peak_bytes / side**2
        return self._bytes[passes]

    @property
    def weights_bytes(self) -> int:
        """What the network itself takes."""
        return sum(w.nbytes for net in networks_of(self._denoiser) for w in net.parameters())

    def seconds(self, height: int, width: int, batch: int = 1, passes: int = 0) -> float:
        """Return the seconds of one evaluation of a tile, of ``batch`` that are done together.

        With so many ``passes`` back through the network.
        """
        # One small tile does not keep a GPU busy; a CPU it does.
        batch = 1 if self._device.type == "cpu" else batch
        if self._side:
            height = width = self._side
        size = min(height, _TIMED), min(width, _TIMED), batch, passes
        if self._once and self._seconds:
            size = next(iter(self._seconds))
        if size not in self._seconds:
            self._seconds[size] = self._time(*size)
        share: float = height * width / (size[0] * size[1])
        return share * self._seconds[size]

    def _time(self, height: int, width: int, batch: int, passes: int) -> float:
        """Evaluate until a second is over; the first time does not count if there is another."""
        took: list[float] = []
        while sum(took) < 1 and len(took) < 10:
            began = time.perf_counter()
            self._evaluate(height, width, batch, passes)
            took.append(time.perf_counter() - began)
        counted = took[1:] or took
        each: int = getattr(self._denoiser, "evaluations", 1)
        return sum(counted) / len(counted) / batch / each

    def _evaluate(self, height: int, width: int, batch: int, passes: int) -> None:
        x = torch.full((batch, 3, height, width), 0.1, device=self._device)
        D, c = self._denoiser, x if isinstance(self._denoiser, Conditional) else None
        if passes:
            x_0, pull = linearised(lambda x_t, sigma: denoise(D, x_t, sigma, c), x, 1.0)
            for _ in range(passes):
                pull(x_0)
        else:
            denoise(D, x, 1.0, c)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def networks_of(denoiser: object) -> list[torch.nn.Module]:
    """Return the networks in a denoiser, also where guidance is wrapped around it."""
    if isinstance(denoiser, torch.nn.Module):
        return [denoiser]
    inner = [getattr(denoiser, name, None) for name in ("denoiser", "classifier")]
    return [net for part in inner if part is not None for net in networks_of(part)]


def resident_bytes() -> int:
    """Return the most memory that this process has had so far."""
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak << 10


@final
class LiveTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that are made within ``with`` and still there.

    >>> with LiveTensors() as live:
    ...     for _ in range(3):
    ...         x = torch.zeros(1000) + 1
    >>> live.peak_bytes
    12000
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = self._bytes = 0
        self._known: dict[int, object] = {}

    @override
    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        """Compute, and count what is new."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, n_bytes = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone(_: object) -> None:
            self._bytes -= n_bytes
            del self._known[key]

        self._known[key] = weakref.ref(storage, gone)
        self._bytes += n_bytes
        self.peak_bytes = max(self.peak_bytes, self._bytes)


#: Of many pictures the headers of so many are read ahead, for no longer than this at a time.
_SAMPLE, _SAMPLE_SECONDS = 64, 0.05


@final
class Pace:
    """The time left for pictures that are restored one after the other, by pixels.

    ``pixels_of(k)`` reads the size of picture ``k``; 0 where it cannot. Of many pictures some are
    asked, spread over all of them and a few at a time, and their mean stands for the others.
    """

    def __init__(
        self, n: int, pixels_of: Callable[[int], int], clock: Callable[[], float]
    ) -> None:
        self._n, self._pixels_of, self._clock = n, pixels_of, clock
        m = min(n, _SAMPLE)
        # Shuffled: the first few that are read are to stand for all.
        self._unread = sorted((i * n // m for i in range(m)), key=lambda k: k * 0.618 % 1)
        self._ahead: dict[int, int] = {}
        #: Pixels restored and the seconds it took; pixels and number of the pictures begun.
        self._done, self._begun = (0.0, 0.0), (0, 0)
        self.begin(0)

    def begin(self, k: int) -> None:
        """Take in that picture ``k`` is next, and that those before are done or left out."""
        self._k, self._start, self._size = k, self._clock(), 0
        self._first, self._second, self._share = 0.0, 0.0, 0.0
        self._ahead = {j: pixels for j, pixels in self._ahead.items() if j >= k}

    def advance(self, done: int, total: int) -> None:
        """Take in how far the picture is.

        It may begin with what an earlier run has done, which costs nothing now.
        """
        self._share = done / total
        if not self._first:
            self._first = self._share
        elif not self._second:
            self._second = self._share

    def left(self) -> float | None:
        """Return the seconds left; None where nobody knows yet."""
        pixels, seconds = self._worked() if self._second else self._done
        if not pixels:
            return None
        return seconds / pixels * (self._pixels() * (1 - self._share) + self._to_come())

    def finish(self) -> None:
        """Take in that the picture is done."""
        self._share = 1.0
        self._done = self._worked()

    def _worked(self) -> tuple[float, float]:
        """Return the pixels restored so far, and the seconds it took."""
        # One step before the first that was told of.
        before = max(0.0, 2 * self._first - self._second) if self._second else 0.0
        pixels, seconds = self._done
        pixels += self._pixels() * (self._share - before)
        return pixels, seconds + self._clock() - self._start

    def _pixels(self) -> int:
        """Return the size of this picture; the mean, where it does not tell."""
        if not self._size:
            pixels, n = self._begun
            size = self._ahead.pop(self._k, 0) or self._pixels_of(self._k)
            self._begun = (pixels + size, n + 1) if size else self._begun
            self._size = size or pixels // max(1, n) or 1
        return self._size

    def _to_come(self) -> float:
        """Return the pixels of all pictures after this one."""
        end = self._clock() + _SAMPLE_SECONDS
        while self._unread and self._clock() < end:
            k = self._unread.pop()
            if k > self._k and (size := self._pixels_of(k)):
                self._ahead[k] = size
        known = sum(self._ahead.values())
        pixels, n = self._begun
        mean = (pixels + known) / max(1, n + len(self._ahead))
        return known + mean * (self._n - 1 - self._k - len(self._ahead))


def pixels_of(path: Path) -> int:
    """Return the number of a picture's pixels, from its header; 0 where it cannot be read."""
    try:
        _, height, width = picture_shape(path)
    except (SfumatoError, OSError, UnicodeEncodeError):
        return 0
    return height * width
