"""From file to file: what came in goes out, with its proof beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.errors import OutputError
from sfumato.io import LIMIT_PIXELS, Picture, check_output, digest, write_picture
from sfumato.io.job import Job
from sfumato.io.masters import check_master, is_opaque
from sfumato.io.windows import PictureWindows, open_windows, picture_shape
from sfumato.operators import Degradation
from sfumato.pipeline.jobs import Events, Streamed, as_begun, job_of, plan_of, threads_of
from sfumato.pipeline.kept import kept_in
from sfumato.pipeline.memory import check_memory
from sfumato.pipeline.places import (
    beside,
    check_limit,
    check_report,
    companion,
    files_of,
    json_beside,
    losses,
    proven,
    read_source,
    refuse_overwriting,
    see_through,
    words_beside,
)
from sfumato.pipeline.problem import Source, make_problem
from sfumato.pipeline.region import Region
from sfumato.pipeline.report import Report
from sfumato.pipeline.resolve import Resolved, resolve
from sfumato.pipeline.restore import Result, Run, stream
from sfumato.pipeline.settings import Settings
from sfumato.pipeline.source import FileSource, streams
from sfumato.pipeline.supersampling import supersampling
from sfumato.tiling import Executor
from sfumato.zoo import Prior


def restore_file(
    source: Path,
    target: Path,
    degradation: Degradation,
    *,
    prior: Prior,
    settings: Settings,
    report: Path | None = None,
    limit_pixels: int | None = None,
    device: str = "cpu",
    keep_job: bool = False,
    restart: bool = False,
    region: Region | None = None,
    executor: Executor | None = None,
    job: str | Path | None = None,
) -> Events:
    """Restore one file, or a ``region`` of the result: bits, profile, EXIF and alpha are kept.

    Tile by tile the picture streams from file to file in bounded memory, by way of the folder
    ``TARGET.job``, and a run that was killed goes on there (``restart`` begins anew). All other
    ways hold the picture in memory, and keep in that folder how far they have come. ``job`` is
    another place for it, which may be an address.

    The consistency in the report is measured on the file that was written. With several samples
    the others, their mean and the map of their standard deviation (stretched to white at its
    maximum) are written beside the first, as ``NAME.sample-2.png``, ``NAME.mean.png``, ….

    ``report`` None puts it beside the target, as ``TARGET.json``. ``device`` is where ``prior``
    is. All that can be known to fail is refused before the network is asked for the first time,
    and what `check_limit` refuses before it is decoded.
    Raises ImageError, DegradationError, SettingsError and OutputError.
    """
    proof = report or json_beside(target)
    pictures = [target, *beside(target, settings.samples)]
    if not _is_zarr(target):
        for path in pictures:
            check_output(path)
    refuse_overwriting([*pictures, proof], [source, *files_of(degradation)])
    check_report(proof)
    request = _Request(
        source,
        target,
        proof,
        degradation,
        prior,
        settings,
        limit_pixels=check_limit(source, limit_pixels),
        device=device,
        job=job or job_of(target),
        keep_job=keep_job,
        restart=restart,
    )
    if region is not None:
        return (yield from request.restore_region(region))
    request = replace(request, settings=as_begun(request.job, settings, restart=restart))
    if tiles := request.by_tiles():
        return (yield from request.restore_by_tiles(*tiles, executor))
    return (yield from request.restore_in_memory())


@dataclass(frozen=True)
class _Request:
    """What is to be made of which file, and the three ways to make it."""

    source: Path
    target: Path
    proof: Path
    degradation: Degradation
    prior: Prior
    settings: Settings
    limit_pixels: int
    device: str
    job: str | Path
    keep_job: bool
    restart: bool

    def restore_region(self, region: Region) -> Events:
        """Restore a region of what would be the result."""
        settings = self.settings.model_copy(update={"samples": 1})
        if streams(self.source, self.degradation, settings.stitch):
            windows = self._windows()
            source: Source = FileSource(windows, self.degradation, self.device, self._times)
            bits, notes = windows.bits, windows.notes
            like = Picture(torch.zeros(3, 1, 1), bits=bits)
            like = replace(like, icc=windows.icc, resolution=windows.resolution)
        else:
            read = read_source(self.source, limit_pixels=self.limit_pixels)
            like, bits, notes = read.picture, read.picture.bits, read.picture.notes
            y = read.y.to(self.device)
            source = make_problem(y, self.degradation, bits=bits, supersampling=self._times)
        resolved = resolve(settings, source, self.prior)
        image, report = yield from region.restore(
            source, resolved, self.prior, self.degradation, bits=bits, device=self.device
        )
        write_picture(replace(like, pixels=image.cpu(), alpha=None), self.target)
        report = report.with_notes(*notes)
        report.write(self.proof)
        return report

    def by_tiles(self) -> tuple[FileSource, Resolved] | None:
        """Return the source and all choices where the picture can be restored tile by tile."""
        settings = self.settings
        if settings.samples > 1 or not streams(self.source, self.degradation, settings.stitch):
            return None
        source = FileSource(self._windows(), self.degradation, self.device, self._times)
        resolved = resolve(settings, source, self.prior)
        if resolved.stitch not in ("mask-shift", "independent"):
            return None
        return source, resolved

    def restore_by_tiles(
        self, source: FileSource, resolved: Resolved, executor: Executor | None
    ) -> Events:
        """Stream from file to file, by way of the job."""
        self._check_streamed(source)
        streamed = Streamed(
            source,
            self.target,
            resolved,
            self.prior,
            digest(self.source),
            executor,
            keep_job=self.keep_job,
            restart=self.restart,
            job=self.job,
        )

        def finish(report: Report) -> Report:
            noted = self._with_notes(report, source.picture)
            noted.write(self.proof, token=streamed.token)
            return noted

        return (yield from streamed.restore(finish))

    def restore_in_memory(self) -> Events:
        """Hold the picture in memory, and keep in the job how far it has come."""
        degradation, device = self.degradation, self.device
        prior, settings = self.prior, self.settings
        self._check_in_memory()
        read = read_source(self.source, limit_pixels=self.limit_pixels)
        channels, height, width = read.y.shape
        size = degradation.source_shape((channels, height, width))[1:]
        check_output(self.target, alpha=see_through(read.picture), size=size)
        bits = read.picture.bits
        y = read.y.to(device)
        problem = make_problem(y, degradation, bits=bits, supersampling=self._times)
        resolved = resolve(settings, problem, prior)
        yield Run(problem, resolved, prior, bits=bits, device=device).started()
        plan = plan_of(
            degradation,
            resolved,
            prior,
            read.digest,
            task=problem.task,
            device=device,
            threads=threads_of(self.job, torch.get_num_threads(), restart=self.restart),
        )
        with kept_in(
            self.job, plan, device=device, restart=self.restart, keep_job=self.keep_job
        ) as kept:
            events = stream(y, degradation, prior=prior, settings=settings, bits=bits, kept=kept)
            next(events)  # that it starts was told before anything was written
            result = yield from events
            notes = _write_results(result, read.picture, self.target)
            problem = make_problem(read.y, degradation, bits=bits)
            report = proven(result.report, problem, self.target, read.digest)
            report = self._with_notes(report, read.picture, notes)
            report.write(self.proof)
        return report

    @property
    def _times(self) -> int:
        return supersampling(self.prior, self.degradation)

    def _windows(self) -> PictureWindows:
        """Open the source; there must be room for the result beside it, so there is for this."""
        folder = self.target.parent
        return open_windows(self.source, scratch=folder if folder.is_dir() else None)

    def _check_streamed(self, source: FileSource) -> None:
        """Refuse what can be known to fail."""
        picture, n = source.picture, source.supersampling
        height, width = (side // n for side in source.A.in_shape[1:])
        transparent = picture.has_alpha and not is_opaque(
            picture.read_alpha, (picture.height, picture.width)
        )
        there = _is_zarr(self.target) and self.target.exists()
        if there and not self.restart and Job.plan_in(self.job):
            return  # the job knows whether it has written it
        check_master(self.target, (height, width), picture.bits, alpha=transparent)

    def _check_in_memory(self) -> None:
        if _is_zarr(self.target):
            raise OutputError(
                f"{self.target}, a folder of chunks",
                expected="a picture, since this one is restored in memory",
                do="use --stitch mask-shift, or .png or .tif",
            )
        check_memory(
            picture_shape(self.source),
            self.degradation,
            limit_pixels=max(self.limit_pixels, LIMIT_PIXELS),
            samples=self.settings.samples,
            device=self.device,
            supersampling=self._times,
        )

    def _with_notes(
        self, report: Report, picture: Picture | PictureWindows, notes: Sequence[str] = ()
    ) -> Report:
        if noise := self.degradation.noise:
            notes = [*notes, f"The noise of the input is {255 * noise:.3g}/255."]
        return report.with_notes(*picture.notes, *notes, *losses(picture, self.target))


def _is_zarr(target: Path) -> bool:
    return target.suffix.lower() == ".zarr"


def _write_results(result: Result, picture: Picture, target: Path) -> list[str]:
    """Write the first sample to ``target`` and the others beside it; return notes."""
    write_picture(_like(picture, result.image), target)
    if result.mean is None or result.std is None:
        return []
    largest = float(result.std.max())
    spread = result.std / largest if largest else result.std
    pictures = [_like(picture, u) for u in (*result.samples[1:], result.mean)]
    pictures.append(Picture(spread, bits=picture.bits))
    words = words_beside(len(result.samples))
    for word, other in zip(words, pictures, strict=True):
        write_picture(other, companion(target, word))
    if not largest:
        return ["All samples are the same: these settings leave nothing to chance."]
    return [f"White in {companion(target, 'std').name} is a standard deviation of {largest:.4f}."]


def _like(picture: Picture, pixels: Tensor) -> Picture:
    """Return ``pixels`` with everything else of ``picture``; alpha follows the new size."""
    alpha = picture.alpha
    if alpha is not None and alpha.shape[1:] != pixels.shape[1:]:
        size = tuple(pixels.shape[1:])
        alpha = F.interpolate(alpha[None], size=size, mode="bilinear")[0].clamp(0, 1)
    return replace(picture, pixels=pixels, alpha=alpha)
