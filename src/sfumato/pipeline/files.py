"""From file to file: what came in goes out, with its proof beside it."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from sfumato.diffusion import NoiseField
from sfumato.errors import ImageError, ShapeError
from sfumato.io import (
    Picture,
    atomic_path,
    check_output,
    digest,
    read_measurement,
    read_picture,
    write_picture,
)
from sfumato.operators import Degradation
from sfumato.pipeline.finish import quantise, settle
from sfumato.pipeline.presets import task_of
from sfumato.pipeline.problem import make_problem
from sfumato.pipeline.report import Report
from sfumato.pipeline.restore import Event, Result, stream
from sfumato.pipeline.settings import Settings
from sfumato.zoo import Prior

#: Restoring a file yields the events of the restoration and returns the report.
FileRestoration = Generator[Event, None, Report]


@dataclass(frozen=True)
class Source:
    """A measurement as it came from its file: the numbers, and the picture they belong to."""

    y: Tensor
    picture: Picture
    digest: str


def read_source(path: Path, *, limit_pixels: int | None = None) -> Source:
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
    return Source(y, picture, digest(path))


def restore_file(
    source: Path,
    target: Path,
    degradation: Degradation,
    *,
    prior: Prior,
    settings: Settings,
    report: Path | None = None,
    limit_pixels: int | None = None,
) -> FileRestoration:
    """Restore one file: bits, profile, EXIF and alpha of the source are kept.

    The consistency in the report is measured on the file that was written. With several samples
    the others, their mean and the map of their standard deviation (stretched to white at its
    maximum) are written beside the first, as ``NAME.sample-2.png``, ``NAME.mean.png``, ….

    ``report`` None puts it beside the target, as ``TARGET.json``. Raises ImageError,
    DegradationError, SettingsError and OutputError.
    """
    check_output(target)
    read = read_source(source, limit_pixels=limit_pixels)
    bits = read.picture.bits
    result = yield from stream(read.y, degradation, prior=prior, settings=settings, bits=bits)
    written = _write_results(result, read.picture, target)
    problem = make_problem(read.y, degradation, bits=bits)
    stored = read_picture(target).pixels[None]
    proof = replace(
        result.report,
        input_digest=read.digest,
        consistency_rmse_255=255 * problem.residual_rmse(stored.expand(1, 3, -1, -1)),
    ).with_notes(*read.picture.notes, *written)
    proof.write(report or target.with_name(target.name + ".json"))
    return proof


def _write_results(result: Result, picture: Picture, target: Path) -> list[str]:
    """Write the first sample to ``target`` and the others beside it; return notes."""
    write_picture(_like(picture, result.image), target)
    if result.mean is None or result.std is None:
        return []
    for k, sample in enumerate(result.samples[1:], start=2):
        write_picture(_like(picture, sample), _beside(target, f"sample-{k}"))
    write_picture(_like(picture, result.mean), _beside(target, "mean"))
    largest = float(result.std.max())
    spread = result.std / largest if largest else result.std
    write_picture(Picture(spread, bits=picture.bits), _beside(target, "std"))
    return [f"white in {_beside(target, 'std').name} is a standard deviation of {largest:.4f}"]


def _beside(target: Path, word: str) -> Path:
    return target.with_name(f"{target.stem}.{word}{target.suffix}")


def _like(picture: Picture, pixels: Tensor) -> Picture:
    """Return ``pixels`` with everything else of ``picture``; alpha follows the new size."""
    alpha = picture.alpha
    if alpha is not None and alpha.shape[1:] != pixels.shape[1:]:
        size = tuple(pixels.shape[1:])
        alpha = F.interpolate(alpha[None], size=size, mode="bilinear")[0].clamp(0, 1)
    return replace(picture, pixels=pixels, alpha=alpha)


def degrade_file(source: Path, target: Path, degradation: Degradation, *, seed: int = 0) -> str:
    """Make a measurement for experiments:  ``y = A u + n``, with the noise of ``seed``.

    The picture is cropped at the right and the bottom where the operator needs multiples. Images
    are written as pictures, rounded and clipped to the bits of the source; coefficients as a
    ``.npy`` array. Returns a sentence on what was written.
    """
    picture = read_picture(source)
    u, note = _cropped(picture.pixels, degradation)
    A = degradation.operator((u.shape[0], *u.shape[1:]))
    y = A(u[None])[0]
    if degradation.noise:
        z = NoiseField(seed, level=255)(draw=0, top=0, left=0, shape=A.out_shape)
        y = y + degradation.noise * z
    said = f"{target}: {y.shape[2]} x {y.shape[1]}, {degradation}{note}"
    if task_of(A) == "sense":
        if target.suffix.lower() != ".npy":
            raise ImageError(
                f"coefficients of {degradation} in {target.name}",
                expected="a .npy file: they are no picture",
            )
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            np.save(file, y.numpy(), allow_pickle=False)
        return said
    alpha = picture.alpha if tuple(y.shape[1:]) == tuple(picture.pixels.shape[1:]) else None
    write_picture(replace(picture, pixels=quantise(y, picture.bits), alpha=alpha), target)
    return said


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
) -> FileRestoration:
    """Make any program's output agree exactly with the measurement it was made from.

    ``x ← P_gamut(x + A⁺ (y − A x))`` until both hold. With ``refine`` (a noise level on the [0, 1]
    scale; needs a prior) the picture is first restored from that noise level on.
    """
    t_0 = time.perf_counter()
    check_output(target)
    read, theirs = read_source(measurement), read_picture(result)
    problem = make_problem(read.y, degradation, bits=read.picture.bits)
    shape = problem.measurement.A.in_shape
    if tuple(theirs.pixels.shape[1:]) != shape[1:]:
        h, w = theirs.pixels.shape[1:]
        raise ShapeError(
            f"{result} of {w} x {h} pixels",
            expected=f"{shape[2]} x {shape[1]}, what {degradation} makes {measurement} from",
        )
    x = 2 * theirs.pixels.expand(3, -1, -1)[None] - 1
    before = 255 * problem.residual_rmse((x + 1) / 2)
    if refine:
        s = (settings or Settings()).model_copy(update={"start_noise": refine})
        events = stream(
            read.y, degradation, prior=prior, settings=s, bits=theirs.bits, start=(x[0] + 1) / 2
        )
        answer = yield from events
        u, report = answer.image, answer.report
    else:
        u = quantise((settle(x, problem)[0] + 1) / 2, theirs.bits)
        report = _projection_report(problem.task, degradation, u, time.perf_counter() - t_0)
    write_picture(replace(theirs, pixels=u), target)
    stored = read_picture(target).pixels[None].expand(1, 3, -1, -1)
    proof = replace(
        report, input_digest=read.digest, consistency_rmse_255=255 * problem.residual_rmse(stored)
    ).with_notes(f"RMSE against the measurement before: {before:.3f}/255")
    proof.write(target.with_name(target.name + ".json"))
    return proof


def _projection_report(
    task: str, degradation: Degradation, u: Tensor, seconds: float
) -> Report:
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

