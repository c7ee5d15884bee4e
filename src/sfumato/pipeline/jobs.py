"""Restorations that stream from file to file, and go on after a kill."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sfumato._version import __version__
from sfumato.errors import OutputError
from sfumato.io import digest
from sfumato.io.canvas import Canvas as StoredCanvas
from sfumato.io.job import Job
from sfumato.io.masters import AlphaWindows, write_master
from sfumato.io.windows import PictureWindows, open_windows
from sfumato.metrics import Border, SeamMeter, SeamReport
from sfumato.operators import Degradation, Window
from sfumato.pipeline.canvas import GridCanvas
from sfumato.pipeline.levels import grown
from sfumato.pipeline.report import Report
from sfumato.pipeline.resolve import Resolved
from sfumato.pipeline.restore import Advanced, Event, Run
from sfumato.pipeline.settings import Settings
from sfumato.pipeline.source import FileSource
from sfumato.pipeline.supersampling import Means
from sfumato.tiling import Canvas, Executor, Tile, TilePlan
from sfumato.tiling.heap import Trimmer
from sfumato.tiling.thread import own_executor
from sfumato.zoo import Prior

#: Finished tiles are made durable about this often, in seconds; a kill loses no more.
_COMMIT_SECONDS = 5.0
#: Of a canvas, kept in memory whatever its width, and the least number of chunks: twice what a
#: tile meets. A row of tiles need not fit: what is above a tile is soon read again.
_CACHE_BYTES, _CHUNKS = 16 * 2**20, 8
#: Side of the windows that the written file is looked through with.
_LOOK = 512

Events = Generator[Event, None, Report]


def job_of(target: Path) -> Path:
    """Return the folder of the job that makes ``target``: beside it."""
    return target.with_name(target.name + ".job")


def plan_of(
    degradation: Degradation,
    r: Resolved,
    prior: Prior,
    input_digest: str,
    *,
    task: str,
    device: str,
    threads: int,
) -> dict[str, Any]:
    """Return all that the bits of a restoration depend on, as plain values."""
    settings = r.as_dict()
    settings.pop("batch")
    return {
        "version": __version__,
        "task": task,
        "degradation": str(degradation),
        "files": {x.text: digest(x.file) for x in degradation.links if x.file},
        "input": input_digest,
        "model": prior.digest,
        "settings": settings,
        "precision": prior.precision,
        "device": torch.device(device).type,
        "threads": threads,
    }


def threads_of(folder: str | Path, otherwise: int, *, restart: bool = False) -> int:
    """Return the threads that a job was begun with, which it goes on with; else ``otherwise``."""
    found = None if restart else Job.plan_in(folder).get("threads")
    return found if isinstance(found, int) else otherwise


def as_begun(folder: str | Path, settings: Settings, *, restart: bool = False) -> Settings:
    """Return ``settings`` with the kernels that a job was begun with, where none are asked for."""
    begun = {} if restart else Job.plan_in(folder).get("settings")
    kernels = begun.get("kernels") if isinstance(begun, dict) else None
    if settings.kernels == "auto" and kernels in ("eager", "compiled"):
        return settings.model_copy(update={"kernels": kernels})
    return settings


@dataclass(frozen=True)
class Streamed:
    """A restoration from file to file: what, with what, to where.

    ``job`` is where it keeps how far it is: a folder, or an address; None is beside the target.
    """

    source: FileSource
    target: Path
    r: Resolved
    prior: Prior
    input_digest: str
    executor: Executor | None = None
    keep_job: bool = False
    restart: bool = False
    job: str | Path | None = None

    @property
    def folder(self) -> str | Path:
        """The job's folder."""
        return self.job or job_of(self.target)

    def plan(self, threads: int) -> dict[str, Any]:
        """Return all that the result's bits depend on, as plain values."""
        return plan_of(
            self.source.degradation,
            self.r,
            self.prior,
            self.input_digest,
            task=self.source.task,
            device=self.source.device,
            threads=threads,
        )

    @property
    def token(self) -> str:
        """What a run of this job that was killed while it wrote is known by."""
        return hashlib.sha256(os.fsencode(os.path.realpath(self.target))).hexdigest()[:16]

    def restore(self, finish: Callable[[Report], Report] = lambda report: report) -> Events:
        """Restore, or go on where an earlier run was stopped; write the file; return the report.

        What ``finish`` makes of the report is returned; the job is removed after that only.

        The seconds in the report are those of all runs together.
        """
        executor = self.executor or own_executor(self.source.device)
        threads = threads_of(self.folder, executor.threads, restart=self.restart)
        run = Run(
            self.source,
            self.r,
            self.prior,
            bits=self.source.picture.bits,
            device=self.source.device,
            executor=executor,
            threads=threads,
        )
        yield run.started()
        with Job.open(self.folder, self.plan(threads), restart=self.restart) as job:
            try:
                canvas = yield from self._levels(run, job)
            except BaseException:
                if not any(job.done(_stage(i)) for i in range(len(run.plans))):
                    job.remove()
                raise
            like, n = self.source.picture, self.r.supersampling
            shown = canvas if n == 1 else Means(canvas, n, like.bits)
            seam = _seams(shown, run.borders(), max(1, self.source.A.ratio // n))
            self._make_way(job)
            write_master(shown, self.target, like, alpha=_alpha(like, shown), token=self.token)
            report = run.report(
                self.source.degradation,
                consistency=255 * _consistency(self.source.asked(), self.target),
                seam=seam,
                seconds=job.seconds,
            )
            report = finish(replace(report, input_digest=self.input_digest))
            if not self.keep_job:
                job.remove()
        return report

    def _make_way(self, job: Job) -> None:
        """Remove a folder that an earlier run of this job has written; write down that one comes.

        Files are replaced when the new one is complete, folders cannot be.
        """
        # A job at an address may have written on another machine, to another folder.
        here = {} if isinstance(job.folder, Path) else {"on": os.uname().nodename}
        if self.target.suffix.lower() == ".zarr" and self.target.exists():
            if here not in job.notes("writing"):
                raise OutputError(f"{self.target} exists already", do="choose another name")
            shutil.rmtree(self.target)
        job.note("writing", here)

    def _levels(self, run: Run, job: Job) -> Generator[Event, None, StoredCanvas]:
        """Restore all levels on canvases in the job's folder; return the last one."""
        done = 0
        guide: Canvas | None = None
        stored: StoredCanvas | None = None
        for i, plan in enumerate(run.plans):
            level = run.level(i, 0, guide)
            stage = _stage(i)
            channels = 1 if self.source.grey else level.shape[0]
            stored = _open_canvas(job, stage, plan, channels, run.bits_of(i))
            ledger = _Ledger(job, stage, stored)
            canvas = GridCanvas(stored, run.bits_of(i), channels=level.shape[0])
            work = run.engine.tile_by_tile(
                level,
                plan,
                canvas,
                paste=self.r.stitch == "mask-shift",
                done=job.done(stage),
                written=ledger.written,
            )
            try:
                for progress in work:
                    yield Advanced(done + progress.done, run.total, run.stage(i, 0))
            finally:
                ledger.commit()
            done += run.engine.n_steps * len(plan.tiles)
            guide = canvas
        assert stored is not None, "there is a level"
        return stored


def _stage(i: int) -> str:
    return f"level {i}"


def _chunk(plan: TilePlan) -> tuple[int, int]:
    """Return height and width of a canvas's chunks: a step of the tiles."""
    step = max(plan.stride, (plan.tile - plan.overlap) // plan.stride * plan.stride)
    return min(step, plan.height), min(step, plan.width)


def cache_bytes(plan: TilePlan, channels: int, bits: int) -> int:
    """Return how much of a canvas is kept in memory at most."""
    height, width = _chunk(plan)
    return max(_CACHE_BYTES, _CHUNKS * height * width * channels * bits // 8)


def _open_canvas(job: Job, stage: str, plan: TilePlan, channels: int, bits: int) -> StoredCanvas:
    """Open the canvas that a run before this one has begun, or make one."""
    name = stage.replace(" ", "-") + ".zarr"
    where = job.path(name)
    chunk, kept = _chunk(plan), cache_bytes(plan, channels, bits)
    if job.done(stage):
        return StoredCanvas.open(where, writable=True, cache_bytes=kept)
    job.drop(name)
    shape = plan.height, plan.width, channels
    return StoredCanvas.create(where, shape, bits, chunk, cache_bytes=kept)


class _Ledger:
    """Writes down which tiles are finished, once their pixels are durable."""

    def __init__(self, job: Job, stage: str, canvas: StoredCanvas) -> None:
        self._job, self._stage, self._canvas = job, stage, canvas
        self._pending: list[int] = []
        self._last = time.monotonic()
        self._trimmer = Trimmer()

    def written(self, tiles: Sequence[Tile]) -> None:
        """Note tiles that are on the canvas."""
        self._pending += [t.number for t in tiles]
        self._trimmer.trim()
        if time.monotonic() - self._last > _COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Make them durable, then write them down."""
        if self._pending:
            self._job.check()
            self._canvas.sync()
            self._job.record_all(self._stage, self._pending)
            self._pending = []
        self._last = time.monotonic()


def _alpha(like: PictureWindows, canvas: StoredCanvas | Means) -> AlphaWindows | None:
    """Return windows of the source's alpha, as large as the result."""
    if not like.has_alpha:
        return None
    if (like.height, like.width) == (canvas.height, canvas.width):
        return like.read_alpha
    down, across = canvas.height / like.height, canvas.width / like.width

    def window(top: int, left: int, height: int, width: int) -> torch.Tensor:
        """Interpolate between the four nearest, at the centres of the pixels."""
        rows = ((torch.arange(top, top + height) + 0.5) / down - 0.5).clamp(0, like.height - 1)
        cols = ((torch.arange(left, left + width) + 0.5) / across - 0.5).clamp(0, like.width - 1)
        y, x = int(rows[0]), int(cols[0])
        last_y = min(int(rows[-1]) + 2, like.height)
        last_x = min(int(cols[-1]) + 2, like.width)
        part = like.read_alpha(y, x, last_y - y, last_x - x)[0]
        rows, cols = rows - y, cols - x
        y_0, x_0 = rows.long(), cols.long()
        y_1 = (y_0 + 1).clamp(max=part.shape[0] - 1)
        x_1 = (x_0 + 1).clamp(max=part.shape[1] - 1)
        f, g = (rows - y_0)[:, None], (cols - x_0)[None]
        upper = part[y_0][:, x_0] * (1 - g) + part[y_0][:, x_1] * g
        lower = part[y_1][:, x_0] * (1 - g) + part[y_1][:, x_1] * g
        return (upper * (1 - f) + lower * f)[None].clamp(0, 1)

    return window


def _seams(canvas: StoredCanvas | Means, borders: Sequence[Border], phase: int) -> SeamReport:
    """Measure the seams of the finished canvas, chunk by chunk."""
    meter = SeamMeter(canvas.height, canvas.width, borders, phase)
    top, (high, wide), trimmer = float(2**canvas.bits - 1), canvas.chunk, Trimmer()

    def strip(y: int, x: int) -> torch.Tensor:
        trimmer.trim()
        values = canvas.read(y, x, min(high, canvas.height - y), min(wide, canvas.width - x))
        return torch.from_numpy(values.astype("float32")).permute(2, 0, 1) / top

    for y in range(0, canvas.height, high):
        meter.add_strips(y, (strip(y, x) for x in range(0, canvas.width, wide)))
    return meter.report()


def _consistency(source: FileSource, target: Path) -> float:
    """Return the RMSE between ``A`` of the file that was written and the measurement."""
    if target.suffix.lower() == ".zarr":
        stored = StoredCanvas.open(target)
        top = float(2**stored.bits - 1)

        def read(w: Window) -> torch.Tensor:
            values = stored.read(w.top, w.left, w.height, w.width).astype("float32")
            return torch.from_numpy(values).permute(2, 0, 1) / top

    else:
        picture = open_windows(target, scratch=target.parent)

        def read(w: Window) -> torch.Tensor:
            return picture.read(w.top, w.left, w.height, w.width)

    squares = weights = 0.0
    A, trimmer = source.A, Trimmer()
    reach = -(-A.locality.halo // A.locality.stride) * A.locality.stride
    whole = Window(0, 0, *A.in_shape[1:])
    for window in source.windows(_LOOK):
        trimmer.trim()
        around = grown(window, reach, whole)
        problem = source.at(around)
        u = read(around)[None, : A.in_shape[0]].to(source.device)
        part = A.measured(window).within(A.inside(around)[1])
        s, n = problem.residual_squares(u.expand(1, *problem.A.in_shape), part)
        squares, weights = squares + s, weights + n
    if not weights:
        return 0.0  # an image made from nothing agrees with it
    return float((squares / weights) ** 0.5)
