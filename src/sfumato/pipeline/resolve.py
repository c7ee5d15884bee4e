"""From the user's settings and the problem to a plan in which nothing is left open."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from sfumato._typing import Shape
from sfumato.diffusion import Guidance, karras
from sfumato.diffusion.arithmetic import Kernels
from sfumato.errors import SettingsError
from sfumato.guidance import Chosen, Measurement, parse_method
from sfumato.operators import Operator, Window
from sfumato.pipeline.kernels import choose_kernels
from sfumato.pipeline.limits import at_most, check_tile, check_whole, within_range
from sfumato.pipeline.presets import (
    DEFAULT_OBJECTIVE,
    DENOISE_FLOW,
    ETA_Y,
    NOISY_DISTORTION,
    NOISY_UPSCALE,
    PRESETS,
    SMALL_HOLE,
    SMALL_HOLE_SIGMA,
    Preset,
)
from sfumato.pipeline.problem import Problem, Source, by_windows
from sfumato.pipeline.refinement import check_fits, sr3_preset
from sfumato.pipeline.settings import Objective, Settings
from sfumato.samplers import DDIM, DDPM, SR3, DPMSolverPP2M, Rounds, Sampler
from sfumato.tiling import Order, Stitch, TilePlan, level_ratios
from sfumato.zoo import Prior


@dataclass(frozen=True)
class Resolved:
    """Every choice made: what the report calls settings."""

    objective: Objective
    method: str
    sampler: str
    steps: int
    eta: float
    schedule: tuple[float, ...]
    known_start: bool
    time_travel: tuple[int, int]
    tile: int
    overlap: int
    stitch: Stitch
    order: Order
    levels: int
    kernels: Kernels
    batch: int | None
    seed: int
    samples: int
    supersampling: int
    collaborative: bool | None

    def as_dict(self) -> dict[str, object]:
        """Return plain values, for the report."""
        values = asdict(self)
        if self.supersampling == 1:
            del values["supersampling"]
        if self.collaborative is None:
            del values["collaborative"]
        return values

    def sampler_object(self) -> Sampler:
        """Build the sampler."""
        makers = {
            "ddim": lambda: DDIM(self.eta),
            "ddpm": DDPM,
            "dpm-solver++": DPMSolverPP2M,
            "rounds": Rounds,
            "sr3": SR3,
        }
        return makers[self.sampler]()

    @property
    def sigma_max(self) -> float:
        """The noise level of the first step."""
        return self.schedule[0]

    def sigmas(self) -> list[float]:
        """Return the noise levels of the walk, the last one 0."""
        return [*self.schedule, 0.0]

    def guidance(self, measurement: Measurement) -> Guidance:
        """Build the guidance for one measurement (of a tile, or of the whole image)."""
        return self.chosen.guidance(measurement, rounds=self.sampler == "rounds")

    @property
    def chosen(self) -> Chosen:
        """The method with its options."""
        return parse_method(self.method)

    def in_one_look(self, source: Source) -> bool:
        """Whether a picture with noise is denoised in one round."""
        return self.sampler == "rounds" and self.steps == 1 and source.task == "denoise"

    def plan(
        self,
        A: Operator,
        shape: Shape,
        stride: int,
        source: Source | None = None,
        *,
        fixed_size: bool = False,
    ) -> TilePlan:
        """Lay the tiles of one level whose operator has the locality of ``A``.

        With ``fixed_size`` none is larger than ``tile``.
        """
        if fixed_size and self.stitch == "joint":
            stride = 1  # what is measured does not care for tiles, and all of them are whole
        by_tile = self.stitch in ("mask-shift", "independent")
        known = source.known if by_tile and source is not None else None
        tile = max(self.tile, stride) if self.stitch != "whole" else max(shape[1:])
        if fixed_size:
            tile = at_most(tile, shape[1:], stride)
        overlap = 0 if self.stitch == "independent" else self.overlap
        margin = min(MARGIN, overlap // 2) // stride * stride
        halo = A.locality.halo if self.stitch == "mask-shift" else 0
        if halo:
            margin = max(margin, self.least_margin(A))
        return TilePlan(
            shape[1], shape[2], tile, overlap, stride, self.order, known, margin, halo > 0
        )

    @staticmethod
    def least_margin(A: Operator) -> int:
        """Return how far from its borders a tile has met all values that a pixel enters into.

        Such a value's own cell is within the halo of the pixel, and it looks as far again.
        """
        reach, cell = A.locality.halo, max(1, A.locality.stride)
        return -(-(2 * reach + cell) // cell) * cell if reach else 0


def resolve(settings: Settings, source: Source, prior: Prior) -> Resolved:
    """Make every choice that the settings leave open; refuse those that cannot work together."""
    s, A = settings, source.A
    if prior.super_resolution is not None:
        check_fits(prior.name, prior.super_resolution, source)
    asked = parse_method(s.method) if s.method else None
    objective = s.objective or _objective(source, s, prior, asked)
    preset, sigmas = _preset(source, objective, s, prior)
    sampler = s.sampler or preset.sampler
    chosen = asked or parse_method(_method(source, sampler, objective))
    schedule = sigmas or _schedule(preset, s, prior, stays=chosen.method.stays)
    tile, overlap = _tile_and_overlap(s, prior, A)
    resolved = Resolved(
        objective=objective,
        method=str(chosen),
        sampler=sampler,
        steps=len(schedule) if sigmas is None else preset.steps,
        eta=preset.eta if s.eta is None else s.eta,
        schedule=schedule,
        known_start=preset.known_start,
        time_travel=s.time_travel or chosen.method.travel,
        tile=tile,
        overlap=overlap,
        stitch="whole",
        order=s.order,
        levels=1,
        kernels="eager",
        batch=s.batch,
        seed=s.seed,
        samples=s.samples,
        supersampling=source.supersampling,
        collaborative=None,
    )
    resolved = replace(resolved, collaborative=_collaborative(s, resolved, source, prior))
    stitch = _stitch(settings.stitch, A, resolved)
    resolved = replace(
        resolved, stitch=stitch, levels=s.levels or _levels(source, resolved, prior)
    )
    resolved = replace(resolved, kernels=_kernels(s, resolved, A, prior))
    _check(resolved, source, prior.super_resolution is not None)
    check_whole(resolved.stitch, A, prior)
    return resolved


def _kernels(s: Settings, r: Resolved, A: Operator, prior: Prior) -> Kernels:
    """Take what is asked for, or what pays for the tiles of the finest level."""
    height, width = A.in_shape[1:]
    side = r.tile if r.stitch != "whole" else height if height == width else 0
    n_tiles = max(1, math.ceil(height / r.tile)) * max(1, math.ceil(width / r.tile))
    return choose_kernels(s.kernels, prior, side, n_tiles * r.steps)


def _collaborative(s: Settings, r: Resolved, source: Source, prior: Prior) -> bool | None:
    """Whether alike patches are filtered after the network; None where that cannot be."""
    if r.objective == "distortion" and r.in_one_look(source) and not r.chosen.passes:
        return prior.collaborative if s.collaborative is None else s.collaborative
    if s.collaborative:
        raise SettingsError(
            f"collaborative filtering for {source.A} by {r.method}, objective {r.objective}",
            expected="noise alone, the least error, and a method that stays out of the network",
            do="leave out --collaborative",
        )
    return None


def _objective(source: Source, s: Settings, prior: Prior, asked: Chosen | None) -> Objective:
    """Take the task's; several samples, or several steps of denoising, ask for samples.

    So do methods that need noise to work with.
    """
    if (model := prior.super_resolution) is not None:
        return "perception" if model.samples else "distortion"
    if s.samples > 1 or (source.task == "denoise" and (s.steps or 1) > 1):
        return "perception"
    objective = DEFAULT_OBJECTIVE[source.task]
    sampler = s.sampler or _table(source, objective, s).sampler
    if asked is not None and s.sampler is None and sampler not in asked.method.samplers:
        return "perception"
    return objective


#: Overlap of large tiles: no seam shows (benchmarks/seams.py).
_OVERLAP = 64


#: A tile leaves so many pixels at its borders to the next one, which sees both sides of them.
MARGIN = 16


def _tile_and_overlap(s: Settings, prior: Prior, A: Operator) -> tuple[int, int]:
    """Take what the user asked for; else the smallest tile in no more tiles than the prior's.

    A side of n pixels in k tiles with an overlap of o needs tiles of ``(n + (k − 1) o) / k``.
    """
    tile = s.tile or prior.tile
    check_tile(tile, prior)
    cell = max(1, A.locality.stride)
    seen, most = 2 * Resolved.least_margin(A), max(0, tile - tile % cell - cell)
    # What sees all that it must in no tile of this size goes the joint way, and needs less.
    default = min(max(min(_OVERLAP, tile // 4), seen if seen <= most else 0), most)
    overlap = default if s.overlap is None else s.overlap
    if overlap >= tile:
        raise SettingsError(
            f"an overlap of {overlap} pixels",
            expected=f"less than the tile's {tile}",
            do="choose a smaller --overlap or a larger --tile",
        )
    shrinks = s.tile is None and not prior.fixed_size
    if shrinks and max(A.in_shape[1:]) > tile > overlap + cell:
        needed = []
        for n in A.in_shape[1:]:
            k = max(1, math.ceil((n - overlap) / (tile - overlap)))
            needed.append(math.ceil((n + (k - 1) * overlap) / k))
        unit = math.lcm(cell, prior.stride) if cell <= prior.stride else cell
        tile = -(-max(needed) // unit) * unit
    return tile, overlap


def _preset(
    source: Source, objective: Objective, s: Settings, prior: Prior
) -> tuple[Preset, tuple[float, ...] | None]:
    """Return the preset, and the noise levels of the walk where the model brings its own."""
    if prior.super_resolution is not None:
        return sr3_preset(prior.super_resolution, objective, s, source)
    preset = _task_preset(source, objective, s)
    return within_range(preset, source, s, prior), None


def _schedule(preset: Preset, s: Settings, prior: Prior, *, stays: int) -> tuple[float, ...]:
    """Return the noise levels of the walk, the last one above 0; the first ``1 + stays`` times."""
    if (walk := s.schedule) is None:
        n = s.steps or preset.steps
        stays = min(stays, n - 1)
        high = min(preset.sigma_max, prior.sigma_max)
        low = min(preset.sigma_min, high)
        walk = tuple(karras(n - stays, high, low, preset.rho)[:-1])
    return (walk[0],) * stays + walk


def _task_preset(source: Source, objective: Objective, s: Settings) -> Preset:
    """Take the task's preset; a sampler of the other kind brings that kind's noise levels."""
    preset, sigma_y = _table(source, objective, s), source.sigma_y
    if s.sampler and (s.sampler == "rounds") != (preset.sampler == "rounds"):
        preset = PRESETS[source.task, "distortion" if s.sampler == "rounds" else "perception"]
    if s.start_noise is not None:
        low = min(preset.sigma_min, 0.2 * s.start_noise)
        preset = replace(preset, sigma_max=2 * s.start_noise, sigma_min=low, known_start=True)
    elif source.task == "denoise":
        # The measurement is the noisy image itself: the walk begins where its noise is.
        sigma = max(sigma_y, 1e-3)
        low = min(preset.sigma_min, sigma / 10)
        preset = replace(preset, sigma_max=sigma, sigma_min=low, known_start=True)
    elif source.task == "inpaint" and objective == "perception" and _small_holes(source):
        # The walk is to begin above the noise that its start has.
        high = SMALL_HOLE_SIGMA if sigma_y <= SMALL_HOLE_SIGMA else 2.5 * sigma_y
        preset = replace(preset, sigma_max=high, known_start=True)
    return preset


def _small_holes(source: Source) -> bool:
    return source.hole_radius() * source.A.ratio <= SMALL_HOLE


def _table(source: Source, objective: Objective, s: Settings) -> Preset:
    """Return the task's preset; stated noise asks for another one."""
    if source.task == "denoise" and objective == "perception" and _flows(s):
        return DENOISE_FLOW
    if objective == "distortion" and source.task != "denoise" and not source.exact:
        return NOISY_DISTORTION
    if objective == "perception" and source.task == "upscale" and not source.exact:
        return NOISY_UPSCALE
    return PRESETS[source.task, objective]


def _flows(s: Settings) -> bool:
    """Whether the settings leave a sample of denoising without noise of its own."""
    asked = (s.method in (None, "flow"), s.sampler in (None, "dpm-solver++"), not s.eta)
    return s.samples == 1 and all(asked)


def _method(source: Source, sampler: str, objective: Objective) -> str:
    if source.sigma_y == 0:
        return "ddnm"
    if sampler == "rounds":
        return "ddnm+" if source.task == "denoise" else "proximal"
    if source.task == "denoise" and sampler == "dpm-solver++":
        return "flow"
    by_directions = source.A.locality.halo == 0 and _has_svd(source)
    return f"ddnm+:eta_y={ETA_Y[objective]}" if by_directions else "proximal"


def _has_svd(source: Source) -> bool:
    return _one_cell(source).A.svd() is not None


def _one_cell(source: Source) -> Problem:
    """Return the problem of the first cell; of the whole image, where there are none."""
    A, (h, w) = source.A, source.A.in_shape[1:]
    cell = A.locality.stride if A.locality.tileable else max(h, w)
    return source.at(Window(0, 0, min(h, cell), min(w, cell)))


def _stitch(asked: str, A: Operator, r: Resolved) -> Stitch:
    """Choose one tile where the image fits into it, else mask-shift if the operator is local."""
    cells = A.locality.tileable
    seen = 2 * Resolved.least_margin(A) <= r.overlap and r.order == "raster"
    windows = by_windows(A, asked=asked in ("mask-shift", "independent"))
    tileable = cells or (windows and seen)
    _, h, w = A.in_shape
    if asked == "auto":
        if max(h, w) <= r.tile:
            return "whole"
        return "mask-shift" if tileable and r.tile >= A.locality.stride else "joint"
    if asked == "mask-shift" and not tileable and windows:
        raise SettingsError(
            f"--stitch mask-shift with {A}, an overlap of {r.overlap} pixels and order {r.order}",
            expected=f"an overlap of at least {2 * Resolved.least_margin(A)} and raster order",
            do="choose these, or use --stitch joint",
        )
    if (asked == "mask-shift" and not tileable) or (asked == "independent" and not windows):
        raise SettingsError(
            f"--stitch {asked} with {A}, whose measured values reach across tiles",
            expected="an operator that falls apart into cells, or a small blur by mask-shift",
            do="use --stitch joint",
        )
    if asked == "mask-shift":
        return "mask-shift"
    return "joint" if asked == "joint" else "independent" if asked == "independent" else "whole"


#: A hole of this radius is still filled from one level, in pixels.
_HOLE = 24
#: Factors above this one are reached through coarser levels.
_FACTOR = 4


def _levels(source: Source, r: Resolved, prior: Prior) -> int:
    """Choose enough levels for the largest hole, the factor, or one tile's global sense."""
    wanted = 1.0
    if prior.super_resolution is not None:
        return 1
    if source.task == "generate":
        wanted = max(source.A.in_shape[1:]) / r.tile
    elif source.task == "inpaint":
        wanted = source.hole_radius() * source.A.ratio / _HOLE
    elif source.task == "upscale":
        wanted = source.A.ratio / _FACTOR
    levels = 1 + max(0, math.ceil(math.log2(max(wanted, 1))))
    by_windows = r.stitch == "mask-shift" and not source.A.locality.tileable
    while levels > 1 and not _can_coarsen(source, 2 ** (levels - 1), by_windows=by_windows):
        levels -= 1
    return levels


def _can_coarsen(source: Source, ratio: int, *, by_windows: bool) -> bool:
    """Try it, on one window where the operator is local."""
    A, (h, w) = source.A, source.A.in_shape[1:]
    if min(h, w) // ratio < 16:
        return False
    if by_windows:
        return _is_coarsened(source, ratio)
    cell = math.lcm(A.locality.stride, ratio) if A.locality.tileable else max(h, w)
    window = Window(0, 0, min(h, cell), min(w, cell))
    whole_cells = [n % ratio == 0 or (n - n % ratio) % A.locality.stride == 0 for n in (h, w)]
    if not (all(whole_cells) if A.locality.tileable else h % ratio == w % ratio == 0):
        return False
    try:
        source.at(window).coarser(ratio)
    except SettingsError:
        return False
    return True


def _is_coarsened(source: Source, ratio: int) -> bool:
    try:
        source.coarse(ratio)
    except SettingsError:
        return False
    return True


def _check(r: Resolved, source: Source, conditional: bool) -> None:
    A = source.A
    if r.sampler == "rounds" and r.time_travel[1] > 1:
        raise SettingsError(
            "time travel with sampler rounds, which puts no noise back",
            expected="ddim, ddpm or dpm-solver++",
            do="use --objective perception",
        )
    if source.task == "denoise" and (r.levels > 1 or (r.sampler == "rounds" and r.steps > 1)):
        raise SettingsError(
            f"denoising in {r.levels} levels and {r.steps} rounds",
            expected="one level and, for --objective distortion, one round",
            do="leave out --levels and --steps, or use --objective perception",
        )
    if r.chosen.method.alone and source.task != "denoise":
        raise SettingsError(
            f"method {r.chosen.method.name} for {A}",
            expected="noise alone, since it begins at the measurement",
            do="leave out --method",
        )
    if not (r.chosen.method.name == "ddnm+" and r.in_one_look(source)):
        r.chosen.check(r.sampler, noisy=source.sigma_y > 0, stated=not source.exact)
    if r.chosen.method.svd and not _has_svd(source):
        raise SettingsError(
            f"method {r.chosen.method.name} for {A}",
            expected="an operator with a cheap SVD",
            do="leave out --method",
        )
    if conditional and r.levels > 1:
        raise SettingsError(
            f"{r.levels} levels with an SR3 model", expected="1: it sees the whole small picture"
        )
    largest = 4 * A.locality.stride
    if r.stitch in ("mask-shift", "independent") and A.locality.stride > r.tile > 0:
        raise SettingsError(
            f"tiles of {r.tile} pixels for {A}",
            expected=f"at least one cell of {A.locality.stride}",
            do=f"use --tile {largest} or --stitch joint",
        )
    level_ratios(r.levels)
