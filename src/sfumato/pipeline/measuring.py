"""Measurements for experiments, and other programs' results made to agree with theirs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from sfumato.diffusion import NoiseField
from sfumato.errors import DegradationError, ImageError, SettingsError, ShapeError
from sfumato.io import Picture, atomic_path, check_output, read_picture, write_picture
from sfumato.operators import BlockSensing, Degradation, WalshHadamard, links
from sfumato.pipeline.finish import quantise, settle
from sfumato.pipeline.jobs import Events
from sfumato.pipeline.places import (
    check_report,
    files_of,
    json_beside,
    losses,
    proven,
    read_source,
    refuse_overwriting,
    see_through,
)
from sfumato.pipeline.problem import Problem, make_problem
from sfumato.pipeline.report import Report
from sfumato.pipeline.restore import stream
from sfumato.pipeline.settings import Settings
from sfumato.zoo import Prior


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
    refuse_overwriting([target], [source, *files_of(degradation)])
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
) -> Events:
    """Make any program's output agree exactly with the measurement it was made from.

    ``x ← P_gamut(x + A⁺ (y − A x))`` until both hold. With ``refine`` (a noise level on the [0, 1]
    scale; needs a prior, which is on ``device``) the picture is first restored from that noise
    level on.
    """
    t_0 = time.perf_counter()
    check_output(target)
    inputs = [result, measurement, *files_of(degradation)]
    refuse_overwriting([target, json_beside(target)], inputs)
    check_report(json_beside(target))
    if degradation.noise and not refine:
        raise SettingsError(
            "a projection on a measurement with noise", do="leave out the noise, or use --refine"
        )
    read = read_source(measurement, limit_pixels=limit_pixels)
    limit = {} if limit_pixels is None else {"limit_pixels": limit_pixels}
    theirs = read_picture(result, **limit)
    height, width = theirs.pixels.shape[1:]
    check_output(target, alpha=see_through(theirs), size=(height, width))
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
    proof = proven(report, problem, target, read.digest).with_notes(
        f"consistency before: {before:.3f}/255", *theirs.notes, *losses(theirs, target)
    )
    proof.write(json_beside(target))
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
