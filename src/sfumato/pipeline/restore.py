"""An image and settings become a restored image, as a stream of events."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from sfumato._events import exhausted
from sfumato._typing import Images
from sfumato.diffusion import Denoiser, NoiseField, repeated
from sfumato.diffusion.classifier import ClassifierGuided
from sfumato.errors import ShapeError
from sfumato.metrics import Border, SeamReport, seam_report
from sfumato.operators import Degradation, Window, as_degradation
from sfumato.pipeline.augment import (
    AlternatingOrientation,
    OrientationEnsemble,
    Unclipped,
    evaluations_of,
)
from sfumato.pipeline.canvas import ArrayStore, GridCanvas
from sfumato.pipeline.kept import Kept
from sfumato.pipeline.levels import COARSE_BITS, RestoredLevel
from sfumato.pipeline.presets import PRESETS
from sfumato.pipeline.problem import Source, by_windows, make_problem
from sfumato.pipeline.refinement import Regression, embedded_for, enlarged_by
from sfumato.pipeline.report import Report
from sfumato.pipeline.resolve import Resolved, resolve
from sfumato.pipeline.settings import Settings
from sfumato.pipeline.supersampling import FINE_BITS, means, supersampling
from sfumato.samplers import walk
from sfumato.tiling import (
    Canvas,
    Engine,
    Executor,
    Keeper,
    Progress,
    Restorer,
    TilePlan,
    level_ratios,
    micro_batch_on,
)
from sfumato.tiling.thread import own_executor
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
    prior: Prior | str | Path | None = None,
    settings: Settings | None = None,
    bits: int = 8,
) -> Result:
    """Restore a measured image: find a natural one, for the prior, that agrees with it.

    Args:
        image: the measurement, (channels, height, width) in [0, 1].
        degradation: what happened to it, as text or parsed.
        prior: the denoiser, or its name or file; if None an embedded one, which depends on the
            task (``embedded_for``).
        settings: see ``Settings``; noise levels are standard deviations on the [0, 1] scale.
        bits: of the measurement's values, and of those that the result is rounded to.

    Raises DegradationError, ShapeError, SettingsError and ModelError, each with one line on what
    to do.

    >>> import torch
    >>> result = restore(torch.rand(3, 8, 8), "average_pool:2", settings=Settings(steps=2))
    >>> tuple(result.image.shape), result.report.consistency_rmse_255 < 0.5
    ((3, 16, 16), True)
    """
    return exhausted(stream(image, degradation, prior=prior, settings=settings, bits=bits))


def stream(
    image: Tensor,
    degradation: str | Degradation,
    *,
    prior: Prior | str | Path | None = None,
    settings: Settings | None = None,
    bits: int = 8,
    start: Tensor | None = None,
    out_bits: int | None = None,
    kept: Kept | None = None,
) -> Stream:
    """Restore as a generator: yield ``Started`` and ``Advanced``, and return the ``Result``.

    Arguments and errors are those of ``restore``; ``start`` (channels, height, width) in [0, 1] is
    an image to begin from, with ``Settings.start_noise`` put on it; ``out_bits`` are the result's
    where they differ from the measurement's. With ``kept`` an earlier run of the same restoration
    goes on. Closing the generator stops the work.
    """
    t_0 = time.perf_counter()
    _check_image(image)
    settings, words = settings or Settings(), as_degradation(degradation)
    if not isinstance(prior, Prior):
        prior = load_prior(prior or embedded_for(words, settings), device=image.device)
    n = supersampling(prior, words)
    problem = make_problem(image.float(), words, bits=bits, supersampling=n)
    resolved = resolve(settings, problem, prior)
    given = None if start is None else repeated(2 * start[None] - 1, n)
    device = str(image.device)
    run = Run(
        problem,
        resolved,
        prior,
        bits=out_bits or bits,
        given=given,
        device=device,
        threads=kept.threads if kept else None,
    )
    yield run.started()
    samples = []
    for k in range(resolved.samples):
        x = yield from run.sample(k, kept)
        samples.append(run.asked_for(x))
    asked = problem if n == 1 else make_problem(image.float(), words, bits=bits)
    report = run.report(
        degradation,
        consistency=255 * asked.residual_rmse(samples[0][None].expand(1, *asked.A.in_shape)),
        seam=seam_report(samples[0], run.borders(), max(1, asked.A.ratio)),
        seconds=kept.seconds if kept else time.perf_counter() - t_0,
    )
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


class Run:
    """One problem with its levels, plans and engine."""

    def __init__(
        self,
        source: Source,
        r: Resolved,
        prior: Prior,
        *,
        bits: int,
        given: Images | None = None,
        device: str | None = None,
        place: tuple[int, int] = (0, 0),
        executor: Executor | None = None,
        threads: int | None = None,
    ) -> None:
        self.source = source
        self.r = r
        self.prior = prior
        self.asked_bits = bits
        self.bits = bits if r.supersampling == 1 else FINE_BITS
        self.given = given
        self.place = place
        self.ratios = level_ratios(r.levels)
        self.plans = [self._plan(i) for i in range(r.levels)]
        length, repeats = r.time_travel
        sampler = r.sampler_object()
        moves = walk(sampler, r.sigmas(), travel_length=length, travel_repeats=repeats)
        denoiser = self._denoiser()
        device = device or "cpu"
        several = any(len(plan.tiles) > 1 for plan in self.plans)
        restorer = Restorer(
            denoiser,
            sampler,
            moves,
            r.guidance,
            device=device,
            micro_batch=micro_batch_on(device) if several else 1,
            batch=r.batch,
            threads=threads,
            kernels=r.kernels,
        )
        self.engine = Engine(restorer, executor or own_executor(device))
        self.per_tile = self.engine.n_steps * evaluations_of(denoiser)
        self.total = r.samples * self.engine.n_steps * sum(len(p.tiles) for p in self.plans)

    def _denoiser(self) -> Denoiser:
        """Turn the image from step to step, or, where there is but one step, in it."""
        denoiser, r = self.prior.denoiser, self.r
        if isinstance(denoiser, ClassifierGuided):
            # The classifier knows images upright.
            return denoiser.around(self._turned(denoiser.denoiser))
        if (model := self.prior.super_resolution) is not None:
            return Regression(model, r.steps) if r.objective == "distortion" else denoiser
        return self._turned(denoiser)

    def _turned(self, denoiser: Denoiser) -> Denoiser:
        r = self.r
        if r.objective != "distortion":
            return denoiser
        if r.steps > 1:
            return AlternatingOrientation(denoiser, r.sigmas(), self._share_of_a_round())
        if self.source.task == "denoise":
            return Unclipped(denoiser, grey=self.source.grey, collaborative=bool(r.collaborative))
        return OrientationEnsemble(denoiser)

    def _share_of_a_round(self) -> float:
        """Return how far one of the rounds goes towards its estimate.

        A network that is shown its own answers again and again exaggerates what it sees. So the
        way is that of the task's own number of rounds: more of them are shorter, and lead to the
        same image.
        """
        if self.r.sampler != "rounds":
            return 1.0
        return min(1.0, PRESETS[self.source.task, "distortion"].steps / self.r.steps)

    def level(self, i: int, sample: int, guide: Canvas | None = None) -> RestoredLevel:
        """Return level ``i``, coarsest first."""
        field = NoiseField(self.r.seed, sample=sample, level=i)
        model = self.prior.super_resolution
        return RestoredLevel(
            self.source,
            self.ratios[i],
            self.r,
            field,
            self.bits,
            guide,
            self.given,
            self.place,
            enlarged=None if model is None else enlarged_by(model, self.source.A),
        )

    def _plan(self, i: int) -> TilePlan:
        """Lay tiles on the cells of the operator and, but for the coarsest, of the guide."""
        level = self.level(i, 0)
        A = level.operator()
        stride = (
            A.locality.stride
            if by_windows(A, asked=self.r.stitch in ("mask-shift", "independent"))
            else 1
        )
        if i > 0:
            stride = stride * 2 if stride % 2 else stride
        last = i == len(self.ratios) - 1
        source = self.source if last else None
        return self.r.plan(A, level.shape, stride, source, fixed_size=self.prior.fixed_size)

    def canvas(self, i: int) -> GridCanvas:
        """Return an empty canvas in memory for level ``i``."""
        channels, height, width = self.level(i, 0).shape
        store = ArrayStore(height, width, 1 if self.source.grey else channels, self.bits_of(i))
        return GridCanvas(store, self.bits_of(i), channels=channels)

    def bits_of(self, i: int) -> int:
        """Return the bits of level ``i``'s canvas."""
        return self.bits if i == len(self.plans) - 1 else COARSE_BITS

    def started(self) -> Started:
        """Return the first event."""
        plan = self.plans[-1]
        return Started(
            self.source.task, self.settings(), len(plan.tiles), len(plan.waves), self.total
        )

    def settings(self) -> dict[str, object]:
        """Return every choice made, as plain values."""
        return self.r.as_dict() | {"batch": self.engine.restorer.room.most}

    def stage(self, i: int, sample: int) -> str:
        """Name a level for those who wait."""
        if self.r.samples > 1:
            return f"sample {sample + 1}, level {i + 1}"
        return f"level {i + 1} of {len(self.plans)}"

    def sample(self, k: int, kept: Kept | None = None) -> Generator[Advanced, None, Images]:
        """Restore one sample in memory through all levels, coarsest first."""
        done = k * self.total // self.r.samples
        guide: Canvas | None = None
        canvas = self.canvas(0)
        for i, plan in enumerate(self.plans):
            name, whole = f"sample-{k + 1}-level-{i + 1}", Window(0, 0, plan.height, plan.width)
            level, canvas = self.level(i, k, guide), self.canvas(i)
            x, walk = (kept.image(name), kept.walk(name)) if kept else (None, None)
            if x is not None:
                canvas.write(whole, x)
            else:
                for progress in self._on_canvas(level, plan, canvas, walk):
                    yield Advanced(done + progress.done, self.total, self.stage(i, k))
                if kept:
                    kept.finished(name, canvas.read(whole))
            done += self.engine.n_steps * len(plan.tiles)
            guide = canvas
        return canvas.read(Window(0, 0, *self.source.A.in_shape[1:]))

    def asked_for(self, x: Images) -> Tensor:
        """Return what was asked for, (channels, height, width) in [0, 1], of an image of ours."""
        u = ((x[0] + 1) / 2)[: 1 if self.source.grey else None]
        if (n := self.r.supersampling) == 1:
            return u
        fine = (u * (2**FINE_BITS - 1)).round().permute(1, 2, 0).cpu().numpy()
        values = means(fine.astype(np.uint16), n, self.asked_bits).astype(np.float32)
        top = float(2**self.asked_bits - 1)
        return torch.from_numpy(values).permute(2, 0, 1).to(u.device) / top

    def borders(self) -> list[Border]:
        """Return where tiles meet in what was asked for."""
        n = self.r.supersampling
        return [
            Border(b.axis, b.at // n, b.start // n, b.stop // n) for b in self.plans[-1].borders()
        ]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what was asked for."""
        plan, n = self.plans[-1], self.r.supersampling
        return plan.height // n, plan.width // n

    def _on_canvas(
        self, level: RestoredLevel, plan: TilePlan, canvas: GridCanvas, walk: Keeper | None
    ) -> Generator[Progress, None, None]:
        """Restore a level in memory."""
        if self.r.stitch not in ("joint", "whole"):
            paste = self.r.stitch == "mask-shift"
            yield from self.engine.tile_by_tile(level, plan, canvas, paste=paste)
            return
        whole = Window(0, 0, *level.shape[1:])
        x = yield from self.engine.all_together(level, plan, walk)
        finish = level.at(whole).finish
        canvas.write(whole, x if finish is None else finish(x, [whole]))

    def report(
        self,
        degradation: str | Degradation,
        *,
        consistency: float,
        seam: SeamReport,
        seconds: float,
    ) -> Report:
        """Write down what was done and measured."""
        plan, (height, width) = self.plans[-1], self.size
        return Report(
            task=self.source.task,
            degradation=str(degradation),
            consistency_rmse_255=consistency,
            seam_score=seam.score,
            seam_band=None if seam.low is None or seam.high is None else (seam.low, seam.high),
            tiles=len(plan.tiles),
            waves=len(plan.waves) if self.r.stitch == "mask-shift" else 1,
            network_evaluations=self.total * self.per_tile // self.engine.n_steps,
            evaluations_per_tile=self.per_tile,
            levels=[
                {"width": p.width, "height": p.height, "tiles": len(p.tiles), "ratio": k}
                for p, k in zip(self.plans, self.ratios, strict=True)
            ],
            seconds=round(seconds, 2),
            width=width,
            height=height,
            settings=self.settings() | {"precision": self.prior.precision},
            model=self.prior.name,
            model_digest=self.prior.digest,
        )
