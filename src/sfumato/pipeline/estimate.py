"""What a restoration will take, before anything starts: of the picture only the header is read.

Tiles and evaluations are exact. Memory, disk and time are "about": measured on a tile or two, or
counted, and scaled by pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.diffusion.collaborative import working_bytes
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
from sfumato.pipeline.supersampling import supersampling
from sfumato.pipeline.trial import Trial
from sfumato.zoo import Prior

#: What is held while the file is written.
_WRITING_BYTES = 32 << 20


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
    network's, and those of filtering after it; where it ``solves``, equations for the measurement
    may take longer than that.
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
        n = supersampling(prior, degradation)
        if settings.samples == 1 and streams(path, degradation, settings.stitch):
            source = FileSource(picture, degradation, device, n)
        else:
            y = torch.zeros(picture.channels, picture.height, picture.width, device=device)
            source = make_problem(y, degradation, bits=picture.bits, supersampling=n)
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
        (height, width), settings = self.run.size, self.run.r.as_dict()
        now = {
            "model_digest": self.prior.digest,
            "degradation": str(self.degradation),
            "width": width,
            "height": height,
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
        plan, (height, width) = run.plans[-1], run.size
        workers = workers if self.streamed else 1
        here, there = self._memory(trial, workers)
        return Estimate(
            task=run.source.task,
            width=width,
            height=height,
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
        if r.collaborative:
            work = max(work, working_bytes(height, width))
        if self.streamed:
            work += self._images_bytes(height, width, batch)
            kept = _WRITING_BYTES
            for p in self.run.plans[-2:]:
                whole = _canvas_bytes(p.height, p.width, self._channels, 16)
                kept += min(cache_bytes(p, self._channels, 16), whole)
        else:
            work += self._images_bytes(plan.height, plan.width)
            height, width = self.run.size
            kept = (r.samples - 1) * height * width * 3 * 4
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
        (height, width), p = self.run.size, self.picture
        bits = p.bits if target.suffix.lower() in (".png", ".tif", ".tiff", ".zarr") else 8
        n = _canvas_bytes(height, width, self._channels + p.has_alpha, bits)
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
        seconds *= self.run.engine.n_steps * self._per_step * r.samples
        if r.collaborative:
            plan = self.run.plans[-1]
            each = trial.filter_seconds(min(plan.tile, plan.height), min(plan.tile, plan.width))
            seconds += each * len(plan.tiles) / workers * r.samples
        return seconds


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
