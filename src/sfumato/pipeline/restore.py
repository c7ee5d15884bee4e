"""An image and settings become a restored image, as a stream of events."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato._typing import Images
from sfumato.diffusion import Denoiser, NoiseField
from sfumato.errors import ShapeError
from sfumato.guidance import Measurement
from sfumato.metrics import SeamReport, seam_report
from sfumato.operators import Degradation, as_degradation
from sfumato.pipeline.augment import (
    AlternatingOrientation,
    OrientationEnsemble,
    Unclipped,
    clipped,
)
from sfumato.pipeline.finish import quantise, settle
from sfumato.pipeline.problem import Problem, make_problem
from sfumato.pipeline.report import Report
from sfumato.pipeline.resolve import Resolved, resolve
from sfumato.pipeline.settings import Settings
from sfumato.pipeline.start import start_image
from sfumato.samplers import walk
from sfumato.tiling import Engine, Level, Restorer, TilePlan, coarsen, level_ratios
from sfumato.zoo import Prior, load_prior


@dataclass(frozen=True)
class Started:
    """Every choice is made; ``evaluations`` tile evaluations of the network lie ahead."""

    task: str
    settings: dict[str, object]
    tiles: int
    waves: int
    evaluations: int


@dataclass(frozen=True)
class Advanced:
    """So many of all evaluations are done."""

    done: int
    total: int
    stage: str


@dataclass(frozen=True, eq=False)
class Result:
    """The restored image (channels, height, width) in [0, 1], rounded to its bits, and the proof.

    With several samples, ``image`` is the first one; ``samples`` holds all, ``mean`` and ``std``
    their statistics.
    """

    image: Tensor
    report: Report
    samples: tuple[Tensor, ...]
    mean: Tensor | None = None
    std: Tensor | None = None


Event: TypeAlias = Started | Advanced
Stream: TypeAlias = Generator[Event, None, Result]


def restore(
    image: Tensor,
    degradation: str | Degradation,
    *,
    prior: Prior | None = None,
    settings: Settings | None = None,
    bits: int = 8,
) -> Result:
    """Restore a measured image: find a natural one, for the prior, that agrees with it.

    Args:
        image: the measurement, (channels, height, width) in [0, 1].
        degradation: what happened to it, as text or parsed.
        prior: the denoiser; the embedded one if None.
        settings: see ``Settings``; noise levels are standard deviations on the [0, 1] scale.
        bits: of the measurement's values, and of those that the result is rounded to.

    Raises DegradationError, ShapeError and SettingsError, each with one line on what to do.

    >>> import torch
    >>> result = restore(torch.rand(3, 8, 8), "average_pool:2", settings=Settings(steps=2))
    >>> tuple(result.image.shape), result.report.consistency_rmse_255 < 0.5
    ((3, 16, 16), True)
    """
    events = stream(image, degradation, prior=prior, settings=settings, bits=bits)
    while True:
        try:
            next(events)
        except StopIteration as stop:
            result: Result = stop.value
            return result


def stream(
    image: Tensor,
    degradation: str | Degradation,
    *,
    prior: Prior | None = None,
    settings: Settings | None = None,
    bits: int = 8,
    start: Tensor | None = None,
    out_bits: int | None = None,
) -> Stream:
    """Restore as a generator: yield ``Started`` and ``Advanced``, and return the ``Result``.

    Arguments and errors are those of ``restore``; ``start`` (channels, height, width) in [0, 1] is
    an image to begin from, with ``Settings.start_noise`` put on it; ``out_bits`` are the result's
    where they differ from the measurement's. Closing the generator stops the work.
    """
    t_0 = time.perf_counter()
    _check_image(image)
    prior = prior or load_prior()
    problem = make_problem(image.float(), as_degradation(degradation), bits=bits)
    resolved = resolve(settings or Settings(), problem, prior)
    run = Run(problem, resolved, prior, None if start is None else 2 * start[None] - 1)
    yield Started(
        problem.task,
        resolved.as_dict(),
        len(run.plans[-1].tiles),
        len(run.plans[-1].waves),
        run.total,
    )
    samples = []
    for k in range(resolved.samples):
        x = yield from run.sample(k)
        samples.append(_to_picture(settle(x, problem), problem, out_bits or bits))
    report = run.report(samples[0], degradation, time.perf_counter() - t_0)
    if len(samples) == 1:
        return Result(samples[0], report, tuple(samples))
    stack = torch.stack(samples)
    return Result(samples[0], report, tuple(samples), stack.mean(0), stack.std(0))


def _check_image(image: Tensor) -> None:
    if image.ndim != 3 or not image.is_floating_point():
        raise ShapeError(
            f"an image of shape {tuple(image.shape)} and {image.dtype}",
            expected="floats in [0, 1], (channels, height, width)",
            do="divide by 255, and put the channels first",
        )


def _to_picture(x: Images, problem: Problem, bits: int) -> Tensor:
    u = (x[0] + 1) / 2
    return quantise(u.mean(0, keepdim=True) if problem.grey else u, bits)


class Run:
    """One problem with its levels, plans and engine."""

    def __init__(
        self, problem: Problem, r: Resolved, prior: Prior, start: Images | None = None
    ) -> None:
        self.problem = problem
        self.start = start
        self.r = r
        self.prior = prior
        self.ratios = level_ratios(r.levels)
        m = problem.measurement
        self.measurements = [m if k == 1 else coarsen(m, k) for k in self.ratios]
        self.plans = [self._plan(i) for i in range(r.levels)]
        sampler = r.sampler_object()
        length, repeats = r.time_travel
        moves = walk(sampler, r.sigmas(), travel_length=length, travel_repeats=repeats)
        denoiser = self._denoiser()
        restorer = Restorer(denoiser, sampler, moves, r.guidance, device=str(m.y.device))
        self.engine = Engine(restorer, r.batch)
        self.per_tile = self.engine.n_steps * getattr(denoiser, "evaluations", 1)
        self.total = r.samples * self.engine.n_steps * sum(len(p.tiles) for p in self.plans)

    def _denoiser(self) -> Denoiser:
        """Turn the image from step to step, or, where there is but one step, in it."""
        denoiser, r = self.prior.denoiser, self.r
        if r.objective != "distortion":
            return denoiser
        if r.steps > 1:
            return AlternatingOrientation(denoiser, r.sigmas())
        if self.problem.task == "denoise" and bool(clipped(self.problem.measurement.y).any()):
            return Unclipped(denoiser, grey=self.problem.grey)
        return OrientationEnsemble(denoiser)

    def _plan(self, i: int) -> TilePlan:
        """Lay tiles on the cells of the operator and, but for the coarsest, of the guide."""
        A = self.measurements[i].A
        stride = A.locality.stride if A.locality.tileable else 1
        if i > 0:
            stride = stride * 2 if stride % 2 else stride
        whole = self.problem if i == len(self.ratios) - 1 else None
        return self.r.plan(A.in_shape, stride, whole)

    def sample(self, k: int) -> Generator[Advanced, None, Images]:
        """Restore one sample through all levels, coarsest first."""
        before = k * self.total // self.r.samples
        guide: Images | None = None
        x = torch.empty(0)
        for i, (m, plan) in enumerate(zip(self.measurements, self.plans, strict=True)):
            level = Level(
                shape=m.A.in_shape,
                field=NoiseField(self.r.seed, sample=k, level=i),
                measurement=m,
                start=self._start(m, self.ratios[i], k),
                start_sigma=self._start_sigma(m),
                guide=None if guide is None else (guide, 2),
            )
            stage = (
                f"sample {k + 1}, level {i + 1}"
                if self.r.samples > 1
                else f"level {i + 1} of {len(self.plans)}"
            )
            done = before
            restoration = self.engine.restore(level, plan, self.r.stitch)
            while True:
                try:
                    progress = next(restoration)
                except StopIteration as stop:
                    x = stop.value
                    break
                done = before + progress.done
                yield Advanced(done, self.total, stage)
            before += self.engine.n_steps * len(plan.tiles)
            guide = x
        return x

    def _start(self, m: Measurement, ratio: int, sample: int) -> Images | None:
        if self.start is not None:
            _, h, w = m.A.in_shape
            return F.avg_pool2d(self.start, ratio)[..., :h, :w]
        if self.problem.task == "denoise":
            return m.y + self._colour_noise(m, sample) if self.problem.grey else m.y
        return start_image(m) if self.r.known_start else None

    def _colour_noise(self, m: Measurement, sample: int) -> Images:
        """Noise that a grey picture in three channels lacks: across (1, 1, 1), as along it."""
        field = NoiseField(self.r.seed, sample=sample, level=254)
        z = field(draw=0, top=0, left=0, shape=m.A.in_shape, device=m.y.device)[None]
        return m.sigma_y * (z - z.mean(1, keepdim=True))

    def _start_sigma(self, m: Measurement) -> float:
        """Noise to put on the start: none for rounds; a noisy image to be denoised has its own."""
        if self.r.sampler == "rounds":
            return 0.0
        if self.problem.task == "denoise" and self.start is None:
            return math.sqrt(max(0.0, self.r.sigma_max**2 - m.sigma_y**2))
        return self.r.sigma_max

    def report(self, image: Tensor, degradation: str | Degradation, seconds: float) -> Report:
        """Measure the result and write down what was done."""
        plan = self.plans[-1]
        seam = seam_report(image, plan.borders(), max(1, self.problem.measurement.A.ratio))
        u = (
            image[None]
            if image.shape[0] == self.problem.measurement.A.in_shape[0]
            else image[None].expand(1, 3, -1, -1)
        )
        return Report(
            task=self.problem.task,
            degradation=str(degradation),
            consistency_rmse_255=255 * self.problem.residual_rmse(u),
            seam_score=seam.score,
            seam_band=_band(seam),
            tiles=len(plan.tiles),
            waves=len(plan.waves) if self.r.stitch == "mask-shift" else 1,
            network_evaluations=self.total * self.per_tile // self.engine.n_steps,
            evaluations_per_tile=self.per_tile,
            levels=[
                {"width": p.width, "height": p.height, "tiles": len(p.tiles), "ratio": k}
                for p, k in zip(self.plans, self.ratios, strict=True)
            ],
            seconds=round(seconds, 2),
            width=int(image.shape[2]),
            height=int(image.shape[1]),
            settings=self.r.as_dict() | {"precision": self.prior.precision},
            model=self.prior.name,
            model_digest=self.prior.digest,
        )


def _band(seam: SeamReport) -> tuple[float, float] | None:
    return None if seam.low is None or seam.high is None else (seam.low, seam.high)
