"""From the user's settings and the problem to a plan in which nothing is left open."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from sfumato._typing import Shape
from sfumato.diffusion import Guidance, NoiseField, karras
from sfumato.errors import SettingsError
from sfumato.guidance import DDNM, DDNMPlus, Measurement, Proximal
from sfumato.operators import Operator
from sfumato.pipeline.presets import DEFAULT_OBJECTIVE, PRESETS, Preset
from sfumato.pipeline.problem import Problem
from sfumato.pipeline.settings import Method, Objective, Settings
from sfumato.samplers import DDIM, DDPM, DPMSolverPP2M, Rounds, Sampler
from sfumato.tiling import Order, Stitch, TilePlan, coarsen, level_ratios
from sfumato.zoo import Prior


@dataclass(frozen=True)
class Resolved:
    """Every choice made: what the report calls settings."""

    objective: Objective
    method: Method
    sampler: str
    steps: int
    eta: float
    sigma_max: float
    sigma_min: float
    rho: float
    known_start: bool
    time_travel: tuple[int, int]
    tile: int
    overlap: int
    stitch: Stitch
    order: Order
    levels: int
    batch: int
    seed: int
    samples: int

    def as_dict(self) -> dict[str, object]:
        """Return plain values, for the report."""
        return asdict(self)

    def sampler_object(self) -> Sampler:
        """Build the sampler."""
        makers = {
            "ddim": lambda: DDIM(self.eta),
            "ddpm": DDPM,
            "dpm-solver++": DPMSolverPP2M,
            "rounds": Rounds,
        }
        return makers[self.sampler]()

    def sigmas(self) -> list[float]:
        """Return the noise levels of the walk, the last one 0."""
        return karras(self.steps, self.sigma_max, min(self.sigma_min, self.sigma_max), self.rho)

    def guidance(self, measurement: Measurement, field: NoiseField) -> Guidance:
        """Build the guidance for one measurement (of a tile, or of the whole image)."""
        if self.method == "ddnm":
            return DDNM(measurement)
        if self.method == "ddnm+":
            return DDNMPlus(measurement)
        return Proximal(measurement, field, final=self.sampler == "rounds")

    def plan(self, shape: Shape, stride: int, problem: Problem | None = None) -> TilePlan:
        """Lay the tiles of one level."""
        known = problem.weight.amax(0) if problem and self.order == "known-first" else None
        if known is not None and tuple(known.shape) != shape[1:]:
            known = F.interpolate(known[None, None], size=shape[1:], mode="nearest")[0, 0]
        tile = max(self.tile, stride) if self.stitch != "whole" else max(shape[1:])
        overlap = 0 if self.stitch == "independent" else self.overlap
        margin = min(_MARGIN, overlap // 2) // stride * stride
        return TilePlan(shape[1], shape[2], tile, overlap, stride, self.order, known, margin)


def resolve(settings: Settings, problem: Problem, prior: Prior) -> Resolved:
    """Make every choice that the settings leave open; refuse those that cannot work together."""
    s, m = settings, problem.measurement
    objective = s.objective or _objective(problem, s)
    preset = _preset(problem, objective, s)
    sampler = s.sampler or preset.sampler
    tile, overlap = _tile_and_overlap(s, prior, m.A)
    resolved = Resolved(
        objective=objective,
        method=s.method or _method(problem, sampler),
        sampler=sampler,
        steps=s.steps or preset.steps,
        eta=preset.eta if s.eta is None else s.eta,
        sigma_max=min(preset.sigma_max, prior.sigma_max),
        sigma_min=preset.sigma_min,
        rho=preset.rho,
        known_start=preset.known_start,
        time_travel=s.time_travel,
        tile=tile,
        overlap=overlap,
        stitch="whole",
        order=s.order,
        levels=1,
        batch=s.batch or 4,
        seed=s.seed,
        samples=s.samples,
    )
    stitch = _stitch(settings.stitch, m.A, resolved)
    resolved = replace(resolved, stitch=stitch, levels=s.levels or _levels(problem, resolved))
    _check(resolved, problem)
    return resolved


def _objective(problem: Problem, s: Settings) -> Objective:
    """Take the task's; several samples, or several steps of denoising, ask for samples."""
    if s.samples > 1 or (problem.task == "denoise" and (s.steps or 1) > 1):
        return "perception"
    return DEFAULT_OBJECTIVE[problem.task]


#: Overlap of large tiles: no seam shows (benchmarks/seams.py).
_OVERLAP = 64


#: A tile leaves so many pixels at its borders to the next one, which sees both sides of them.
_MARGIN = 16


def _tile_and_overlap(s: Settings, prior: Prior, A: Operator) -> tuple[int, int]:
    """Take what the user asked for; else the smallest tile in no more tiles than the prior's.

    A side of n pixels in k tiles with an overlap of o needs tiles of ``(n + (k − 1) o) / k``.
    """
    tile = s.tile or prior.tile
    cell = A.locality.stride if A.locality.tileable else 1
    default = max(0, min(_OVERLAP, tile // 4, tile - tile % cell - cell))
    overlap = default if s.overlap is None else s.overlap
    if overlap >= tile:
        raise SettingsError(
            f"an overlap of {overlap} pixels",
            expected=f"less than the tile's {tile}",
            do="choose a smaller --overlap or a larger --tile",
        )
    if s.tile is None and max(A.in_shape[1:]) > tile > overlap + cell:
        needed = []
        for n in A.in_shape[1:]:
            k = max(1, math.ceil((n - overlap) / (tile - overlap)))
            needed.append(math.ceil((n + (k - 1) * overlap) / k))
        unit = math.lcm(cell, prior.stride) if cell <= prior.stride else cell
        tile = -(-max(needed) // unit) * unit
    return tile, overlap


def _preset(problem: Problem, objective: Objective, s: Settings) -> Preset:
    """Take the task's preset; a sampler of the other kind brings that kind's noise levels."""
    preset = PRESETS[problem.task, objective]
    sigma_y = problem.measurement.sigma_y
    if s.sampler and (s.sampler == "rounds") != (preset.sampler == "rounds"):
        preset = PRESETS[problem.task, "distortion" if s.sampler == "rounds" else "perception"]
    if s.start_noise is not None:
        low = min(preset.sigma_min, 0.2 * s.start_noise)
        preset = replace(preset, sigma_max=2 * s.start_noise, sigma_min=low, known_start=True)
    elif problem.task == "denoise":
        # The measurement is the noisy image itself: the walk begins where its noise is.
        sigma = max(sigma_y, 1e-3)
        low = min(preset.sigma_min, sigma / 10)
        preset = replace(preset, sigma_max=sigma, sigma_min=low, known_start=True)
    return preset


def _method(problem: Problem, sampler: str) -> Method:
    m = problem.measurement
    if m.sigma_y == 0:
        return "ddnm"
    if sampler == "rounds" and problem.task != "denoise":
        return "proximal"
    return "ddnm+" if m.A.svd() is not None else "proximal"


def _stitch(asked: str, A: Operator, r: Resolved) -> Stitch:
    """Choose one tile where the image fits into it, else joint: its seams do not show."""
    tileable = A.locality.tileable
    _, h, w = A.in_shape
    if asked == "auto":
        if max(h, w) <= r.tile:
            return "whole"
        return "joint"
    if asked in ("mask-shift", "independent") and not tileable:
        raise SettingsError(
            f"--stitch {asked} with {A}, whose measured values reach across tiles",
            expected="an operator that falls apart into cells",
            do="use --stitch joint",
        )
    if asked == "mask-shift":
        return "mask-shift"
    return "joint" if asked == "joint" else "independent" if asked == "independent" else "whole"


#: A hole of this radius is still filled from one level, in pixels.
_HOLE = 24
#: Factors above this one are reached through coarser levels.
_FACTOR = 4


def _levels(problem: Problem, r: Resolved) -> int:
    """Choose enough levels for the largest hole, the factor, or one tile's global sense."""
    m = problem.measurement
    wanted = 1.0
    if problem.task == "inpaint":
        wanted = _hole_radius(problem.weight) * m.A.ratio / _HOLE
    elif problem.task == "upscale":
        wanted = m.A.ratio / _FACTOR
    levels = 1 + max(0, math.ceil(math.log2(max(wanted, 1))))
    while levels > 1 and not _can_coarsen(m, 2 ** (levels - 1)):
        levels -= 1
    return levels


def _hole_radius(weight: Tensor) -> int:
    """Return the largest distance, in rows or columns, from a missing value to a known one."""
    missing = 1 - weight.amax(0)[None, None]
    radius = 0
    while bool(missing.any()) and radius < max(weight.shape):
        step = max(1, radius // 4)
        missing = -F.max_pool2d(-missing, 2 * step + 1, stride=1, padding=step)
        radius += step
    return radius


def _can_coarsen(m: Measurement, ratio: int) -> bool:
    try:
        coarsen(m, ratio)
    except SettingsError:
        return False
    return min(m.A.in_shape[1:]) // ratio >= 16


def _check(r: Resolved, problem: Problem) -> None:
    m = problem.measurement
    if r.sampler == "rounds" and r.time_travel[1] > 1:
        raise SettingsError(
            "time travel with sampler rounds, which puts no noise back",
            expected="ddim, ddpm or dpm-solver++",
            do="use --objective perception",
        )
    if problem.task == "denoise" and (r.levels > 1 or (r.sampler == "rounds" and r.steps > 1)):
        raise SettingsError(
            f"denoising in {r.levels} levels and {r.steps} rounds",
            expected="one level and, for --objective distortion, one round",
            do="leave out --levels and --steps, or use --objective perception",
        )
    if r.method == "ddnm" and m.sigma_y > 0 and not problem.exact:
        raise SettingsError(
            "method ddnm with measurement noise",
            expected="ddnm+ or proximal",
            do="leave out --method",
        )
    if r.method != "ddnm" and m.sigma_y == 0:
        raise SettingsError(
            f"method {r.method} without measurement noise", expected="ddnm, or a noise level"
        )
    one_round = r.sampler == "rounds" and r.steps == 1 and problem.task == "denoise"
    if r.method == "ddnm+" and r.sampler in ("rounds", "dpm-solver++") and not one_round:
        raise SettingsError(
            f"measurement noise (method ddnm+) with sampler {r.sampler}",
            expected="ddim or ddpm, which add fresh noise",
        )
    if r.method == "proximal" and r.sampler == "dpm-solver++":
        raise SettingsError(
            "method proximal with sampler dpm-solver++", expected="ddim, ddpm or rounds"
        )
    largest = 4 * m.A.locality.stride
    if r.stitch in ("mask-shift", "independent") and m.A.locality.stride > r.tile > 0:
        raise SettingsError(
            f"tiles of {r.tile} pixels for {m.A}",
            expected=f"at least one cell of {m.A.locality.stride}",
            do=f"use --tile {largest} or --stitch joint",
        )
    level_ratios(r.levels)
