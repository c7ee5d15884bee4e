"""From file to file: what came in goes out, with its proof beside it."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.diffusion import NoiseField
from sfumato.errors import (
    DegradationError,
    ImageError,
    OutputError,
    SettingsError,
    ShapeError,
)
from sfumato.io import (
    LIMIT_PIXELS,
    Picture,
    atomic_path,
    check_output,
    digest,
    read_measurement,
    read_picture,
    write_picture,
)
from sfumato.io._atomic import check_place
from sfumato.io._formats import NUMPY, read_head
from sfumato.io._read import is_tiled, read_header
from sfumato.io.job import Job
from sfumato.io.masters import check_master, is_opaque
from sfumato.io.windows import PictureWindows, open_windows, picture_shape
from sfumato.operators import BlockSensing, Degradation, WalshHadamard, links
from sfumato.pipeline.finish import quantise, settle
from sfumato.pipeline.jobs import Streamed, as_begun, job_of, plan_of, threads_of
from sfumato.pipeline.kept import kept_in
from sfumato.pipeline.memory import check_memory
from sfumato.pipeline.problem import Problem, Source, make_problem
from sfumato.pipeline.region import Region
from sfumato.pipeline.report import Report
from sfumato.pipeline.resolve import Resolved, resolve
from sfumato.pipeline.restore import Event, Result, Run, stream
from sfumato.pipeline.settings import Settings
from sfumato.pipeline.source import FileSource, streams
from sfumato.tiling import Executor
from sfumato.zoo import Prior

#: Restoring a file yields the events of the restoration and returns the report.
FileRestoration = Generator[Event, None, Report]


@dataclass(frozen=True)
class Read:
    """A measurement as it came from its file: the numbers, and the picture they belong to."""

    y: Tensor
    picture: Picture
    digest: str


def read_source(path: Path, *, limit_pixels: int | None = None) -> Read:
    """Read a picture, or a measurement that is none (a ``.npy`` array, a float TIFF).

    Raises ImageError where the file cannot be read.
    """
    limit = {} if limit_pixels is None else {"limit_pixels": limit_pixels}
    if path.suffix.lower() == ".npy":
        y = read_measurement(path, **limit)
        picture = Picture(y.new_zeros((3, 1, 1)), bits=8)
    else:
        picture = read_picture(path, **limit)
        y = picture.pixels
    return Read(y, picture, digest(path))


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
) -> FileRestoration:
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
    others = beside(target, settings.samples)
    proof_path = report or _json_beside(target)
    job = job or job_of(target)
    zarr = target.suffix.lower() == ".zarr"
    for path in () if zarr else (target, *others):
        check_output(path)
    _refuse_overwriting([target, *others, proof_path], [source, *_files_of(degradation)])
    _check_report(proof_path)
    limit_pixels = check_limit(source, limit_pixels)
    if region is not None:
        restored = _restore_region(
            source,
            target,
            degradation,
            region,
            prior,
            settings,
            proof_path,
            device,
            limit_pixels,
        )
        return (yield from restored)
    settings = as_begun(job, settings, restart=restart)
    picture, resolved = _by_tiles(source, target, degradation, prior, settings, device)
    if picture is not None and resolved is not None:
        _check_streamed(picture, target, job, restart=restart)
        streamed = Streamed(
            picture,
            target,
            resolved,
            prior,
            digest(source),
            executor,
            keep_job=keep_job,
            restart=restart,
            job=job,
        )
        like = picture.picture

        def finish(proof: Report) -> Report:
            noted = _with_notes(proof, like, target, degradation)
            noted.write(proof_path, token=streamed.token)
            return noted

        return (yield from streamed.restore(finish))
    if zarr:
        raise OutputError(
            f"{target}, a folder of chunks",
            expected="a picture, since this one is restored in memory",
            do="use --stitch mask-shift, or .png or .tif",
        )
    check_memory(
        picture_shape(source),
        degradation,
        limit_pixels=max(limit_pixels, LIMIT_PIXELS),
        samples=settings.samples,
        device=device,
    )
    read = read_source(source, limit_pixels=limit_pixels)
    channels, height, width = read.y.shape
    size = degradation.source_shape((channels, height, width))[1:]
    check_output(target, alpha=_see_through(read.picture), size=size)
    bits = read.picture.bits
    y = read.y.to(device)
    problem = make_problem(y, degradation, bits=bits)
    resolved = resolve(settings, problem, prior)
    yield Run(problem, resolved, prior, bits=bits, device=device).started()
    plan = plan_of(
        degradation,
        resolved,
        prior,
        read.digest,
        task=problem.task,
        device=device,
        threads=threads_of(job, torch.get_num_threads(), restart=restart),
    )
    with kept_in(job, plan, device=device, restart=restart, keep_job=keep_job) as kept:
        events = stream(y, degradation, prior=prior, settings=settings, bits=bits, kept=kept)
        next(events)  # that it starts was told before anything was written
        result = yield from events
        notes = _write_results(result, read.picture, target)
        problem = make_problem(read.y, degradation, bits=bits)
        proof = _proof(result.report, problem, target, read.digest)
        proof = _with_notes(proof, read.picture, target, degradation, notes)
        proof.write(proof_path)
    return proof


def _restore_region(
    path: Path,
    target: Path,
    degradation: Degradation,
    region: Region,
    prior: Prior,
    settings: Settings,
    proof_path: Path,
    device: str,
    limit_pixels: int,
) -> FileRestoration:
    """Restore a region of what would be the result."""
    settings = settings.model_copy(update={"samples": 1})
    if streams(path, degradation, settings.stitch):
        windows = open_windows(path, scratch=_scratch(target))
        source: Source = FileSource(windows, degradation, device)
        bits, notes, like = windows.bits, windows.notes, Picture(_nothing(), bits=windows.bits)
        like = replace(like, icc=windows.icc, resolution=windows.resolution)
    else:
        read = read_source(path, limit_pixels=limit_pixels)
        source = make_problem(read.y.to(device), degradation, bits=read.picture.bits)
        bits, notes, like = read.picture.bits, read.picture.notes, read.picture
    resolved = resolve(settings, source, prior)
    image, report = yield from region.restore(
        source, resolved, prior, degradation, bits=bits, device=device
    )
    write_picture(replace(like, pixels=image.cpu(), alpha=None), target)
    report = report.with_notes(*notes)
    report.write(proof_path)
    return report


def _nothing() -> Tensor:
    return torch.zeros(3, 1, 1)


def _by_tiles(
    path: Path,
    target: Path,
    degradation: Degradation,
    prior: Prior,
    settings: Settings,
    device: str,
) -> tuple[FileSource | None, Resolved | None]:
    """Return the source and all choices where the picture can be restored tile by tile."""
    if settings.samples > 1 or not streams(path, degradation, settings.stitch):
        return None, None
    source = FileSource(open_windows(path, scratch=_scratch(target)), degradation, device)
    resolved = resolve(settings, source, prior)
    if resolved.stitch not in ("mask-shift", "independent"):
        return None, None
    return source, resolved


def check_limit(path: Path, limit_pixels: int | None) -> int:
    """Refuse, by its header, a picture of more pixels than are wanted; return the limit.

    Where none is given it is LIMIT_PIXELS for what is decoded as a whole, to memory or to the
    disk, and for each tile of a tiled TIFF. Such a TIFF, or an array, may have any size.
    """
    limit = LIMIT_PIXELS if limit_pixels is None else limit_pixels
    _, height, width = picture_shape(path)
    if limit_pixels is None:
        height, width = _decoded_at_once(path, height, width)
    if height * width > limit:
        raise ImageError(
            f"{path} has {width} × {height} pixels",
            expected=f"at most {limit:,} pixels",
            do="raise --limit-pixels",
        )
    return limit


def _decoded_at_once(path: Path, height: int, width: int) -> tuple[int, int]:
    """Return the size of what cannot be decoded but together."""
    if read_head(path).startswith(NUMPY):
        return 1, 1
    image = read_header(path, limit_pixels=None).image
    if not is_tiled(image):
        return height, width
    return image.get("tile-height"), image.get("tile-width")


def _scratch(target: Path) -> Path | None:
    """Return where there must be room for the result anyway, if it is there already."""
    return target.parent if target.parent.is_dir() else None


def _check_streamed(source: FileSource, target: Path, job: str | Path, *, restart: bool) -> None:
    """Refuse what can be known to fail."""
    picture, (_, height, width) = source.picture, source.A.in_shape
    see_through = picture.has_alpha and not is_opaque(
        picture.read_alpha, (picture.height, picture.width)
    )
    there = target.suffix.lower() == ".zarr" and target.exists()
    if there and not restart and Job.plan_in(job):
        return  # the job knows whether it has written it
    check_master(target, (height, width), picture.bits, alpha=see_through)


def _with_notes(
    proof: Report,
    picture: Picture | PictureWindows,
    target: Path,
    degradation: Degradation,
    notes: Sequence[str] = (),
) -> Report:
    if degradation.noise:
        notes = [*notes, f"The noise of the input is {255 * degradation.noise:.3g}/255."]
    return proof.with_notes(*picture.notes, *notes, *_losses(picture, target))


def beside(target: Path, n_samples: int) -> list[Path]:
    """Return where the other samples, their mean and their standard deviation are written."""
    return [_beside(target, word) for word in _words_beside(n_samples)]


def _words_beside(n_samples: int) -> list[str]:
    """Name what is written besides the first of several samples."""
    if n_samples == 1:
        return []
    return [*(f"sample-{k}" for k in range(2, n_samples + 1)), "mean", "std"]


def _json_beside(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _see_through(picture: Picture) -> bool:
    return picture.alpha is not None and bool((picture.alpha < 1).any())


def _files_of(degradation: Degradation) -> list[Path]:
    """List the files that a degradation names: masks, strokes, kernels."""
    return [link.file for link in degradation.links if link.file is not None]


def _refuse_overwriting(targets: list[Path], sources: list[Path]) -> None:
    """Refuse an output that is one of the inputs: what is lost there cannot be made again."""
    for target in targets:
        for source in sources:
            if target.exists() and source.exists() and target.samefile(source):
                raise SettingsError(
                    f"the output {target} is the input {source} itself",
                    expected="another name",
                    do="inputs are never overwritten",
                )


def _check_report(path: Path) -> None:
    """Refuse a place where no report can be written."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder", expected="the name of a file for the report")
    check_place(path)


def _proof(report: Report, problem: Problem, target: Path, input_digest: str) -> Report:
    """Return the report with the consistency of the file that was written."""
    height, width = problem.measurement.A.in_shape[1:]
    stored = read_picture(target, limit_pixels=height * width).pixels[None]
    rmse = 255 * problem.residual_rmse(stored.expand(1, 3, -1, -1))
    return replace(report, input_digest=input_digest, consistency_rmse_255=rmse)


def _losses(picture: Picture | PictureWindows, target: Path) -> list[str]:
    """Say what the format of the target cannot keep."""
    kind = target.suffix.lower()
    notes = []
    if kind in (".jpg", ".jpeg"):
        notes.append("JPEG is lossy: in .png, .webp or .tif the result agrees better.")
    if picture.bits == 16 and kind not in (".png", ".tif", ".tiff", ".zarr"):
        notes.append("16 bits became 8: .png and .tif keep them.")
    return notes


def _write_results(result: Result, picture: Picture, target: Path) -> list[str]:
    """Write the first sample to ``target`` and the others beside it; return notes."""
    write_picture(_like(picture, result.image), target)
    if result.mean is None or result.std is None:
        return []
    largest = float(result.std.max())
    spread = result.std / largest if largest else result.std
    pictures = [_like(picture, u) for u in (*result.samples[1:], result.mean)]
    pictures.append(Picture(spread, bits=picture.bits))
    words = _words_beside(len(result.samples))
    for word, other in zip(words, pictures, strict=True):
        write_picture(other, _beside(target, word))
    if not largest:
        return ["All samples are the same: these settings leave nothing to chance."]
    return [f"White in {_beside(target, 'std').name} is a standard deviation of {largest:.4f}."]


def _beside(target: Path, word: str) -> Path:
    return target.with_name(f"{target.stem}.{word}{target.suffix}")


def _like(picture: Picture, pixels: Tensor) -> Picture:
    """Return ``pixels`` with everything else of ``picture``; alpha follows the new size."""
    alpha = picture.alpha
    if alpha is not None and alpha.shape[1:] != pixels.shape[1:]:
        size = tuple(pixels.shape[1:])
        alpha = F.interpolate(alpha[None], size=size, mode="bilinear")[0].clamp(0, 1)
    return replace(picture, pixels=pixels, alpha=alpha)


def degrade_file(
    source: Path,
    target: Path,
    degradation: Degradation,
    *,
    seed: int = 0,
    limit_pixels: int | None = None,
) -> str:
    """Make a measurement for experiments:  ``y = A u + n``, with the noise of ``seed``.

    The picture is cropped at the right and the bottom where the operator needs multiples. A
    target ``.npy`` takes the numbers as they are; a picture takes them rounded and clipped to the
    bits of the source, and coefficients are refused there. Returns a sentence on what was written.
    """
    as_numbers = target.suffix.lower() == ".npy"
    check_output(target.with_suffix(".png") if as_numbers else target)
    _refuse_overwriting([target], [source, *_files_of(degradation)])
    if degradation.strokes() is not None:
        raise DegradationError(
            "a measurement with painted strokes", do="use grayscale; strokes belong to restoring"
        )
    read = read_source(source, limit_pixels=limit_pixels)
    u, note = _cropped(read.y, degradation)
    A = degradation.operator((u.shape[0], *u.shape[1:]))
    y = A(u[None])[0]
    if degradation.noise:
        z = NoiseField(seed, level=255)(draw=0, top=0, left=0, shape=A.out_shape)
        y = y + degradation.noise * z
    said = f"{target}: {y.shape[2]} x {y.shape[1]}, {degradation}{note}"
    if as_numbers:
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            np.save(file, y.numpy(), allow_pickle=False)
        return said
    if any(isinstance(part, BlockSensing | WalshHadamard) for part in links(A)):
        raise ImageError(
            f"coefficients of {degradation} in {target.name}",
            expected="a .npy file: they are no picture",
        )
    picture = read.picture
    alpha = picture.alpha if tuple(y.shape[1:]) == tuple(picture.pixels.shape[1:]) else None
    write_picture(replace(picture, pixels=quantise(y, picture.bits), alpha=alpha), target)
    clipped = float(((y < -1e-6) | (y > 1 + 1e-6)).float().mean())
    return said + (f"; {clipped:.2%} of its values were clipped" if clipped else "")


def _cropped(u: Tensor, degradation: Degradation) -> tuple[Tensor, str]:
    """Crop to a size that the degradation can measure."""
    s = degradation.source_shape((1, 1, 1))[1]
    h, w = (n - n % s for n in u.shape[1:])
    if min(h, w) == 0:
        raise ShapeError(
            f"a picture of {u.shape[2]} x {u.shape[1]} pixels", expected=f"at least {s} x {s}"
        )
    if u.shape[0] == 1 and any(word.text.startswith("grayscale") for word in degradation.links):
        u = u.expand(3, -1, -1)
    if (h, w) == tuple(u.shape[1:]):
        return u, ""
    return u[:, :h, :w].contiguous(), f" (cropped to {w} x {h}, a multiple of {s})"


def project_file(
    result: Path,
    measurement: Path,
    target: Path,
    degradation: Degradation,
    *,
    prior: Prior | None = None,
    settings: Settings | None = None,
    refine: float = 0.0,
    limit_pixels: int | None = None,
    device: str = "cpu",
) -> FileRestoration:
    """Make any program's output agree exactly with the measurement it was made from.

    ``x ← P_gamut(x + A⁺ (y − A x))`` until both hold. With ``refine`` (a noise level on the [0, 1]
    scale; needs a prior, which is on ``device``) the picture is first restored from that noise
    level on.
    """
    t_0 = time.perf_counter()
    check_output(target)
    inputs = [result, measurement, *_files_of(degradation)]
    _refuse_overwriting([target, _json_beside(target)], inputs)
    _check_report(_json_beside(target))
    if degradation.noise and not refine:
        raise SettingsError(
            "a projection on a measurement with noise", do="leave out the noise, or use --refine"
        )
    read = read_source(measurement, limit_pixels=limit_pixels)
    limit = {} if limit_pixels is None else {"limit_pixels": limit_pixels}
    theirs = read_picture(result, **limit)
    height, width = theirs.pixels.shape[1:]
    check_output(target, alpha=_see_through(theirs), size=(height, width))
    problem = make_problem(read.y, degradation, bits=read.picture.bits)
    _check_size(result, theirs, measurement, problem)
    u_0 = theirs.pixels.expand(3, -1, -1)
    before = 255 * problem.residual_rmse(u_0[None])
    if refine:
        s = (settings or Settings()).model_copy(update={"start_noise": refine})
        answer = yield from stream(
            read.y.to(device),
            degradation,
            prior=prior,
            settings=s,
            bits=read.picture.bits,
            out_bits=theirs.bits,
            start=u_0.to(device),
        )
        u, report = answer.image, answer.report
    else:
        u = quantise((settle(2 * u_0[None] - 1, problem)[0] + 1) / 2, theirs.bits)
        if problem.grey and len(theirs.pixels) == 1:
            u = quantise(u.mean(0, keepdim=True), theirs.bits)
        report = _projection_report(problem.task, degradation, u, time.perf_counter() - t_0)
    write_picture(replace(theirs, pixels=u), target)
    proof = _proof(report, problem, target, read.digest).with_notes(
        f"consistency before: {before:.3f}/255", *theirs.notes, *_losses(theirs, target)
    )
    proof.write(_json_beside(target))
    return proof


def _check_size(result: Path, theirs: Picture, measurement: Path, problem: Problem) -> None:
    """Refuse a result of another size than the measurement tells."""
    (_, h, w), A = theirs.pixels.shape, problem.measurement.A
    if (h, w) != A.in_shape[1:]:
        raise ShapeError(
            f"{result} of {w} x {h} pixels",
            expected=f"{A.in_shape[2]} x {A.in_shape[1]}, what {A} makes {measurement} from",
        )


def _projection_report(task: str, degradation: Degradation, u: Tensor, seconds: float) -> Report:
    return Report(
        task=task,
        degradation=str(degradation),
        consistency_rmse_255=float("nan"),
        seam_score=None,
        seam_band=None,
        tiles=0,
        waves=0,
        network_evaluations=0,
        evaluations_per_tile=0,
        levels=[],
        seconds=round(seconds, 2),
        width=int(u.shape[2]),
        height=int(u.shape[1]),
        settings={},
        model="none",
        model_digest="",
    )
