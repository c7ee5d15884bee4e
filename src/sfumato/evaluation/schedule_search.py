"""SR3's search of the inference schedule on held-out pictures, by a distance between sets.

PSNR does not follow quality: the best one is that of blurred pictures. So a schedule is judged by
how far the features of its samples are from those of the true pictures, as the paper does with
FID, here within a budget of network evaluations.

Reference: SR3, arXiv 2104.07636, section 2.4; WaveGrad, arXiv 2009.00713, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.diffusion import upsampled
from sfumato.errors import SettingsError
from sfumato.evaluation.candidates import Candidate, candidates
from sfumato.evaluation.halving import Rung, cost, plan_rungs
from sfumato.evaluation.sr3_samples import Task, measure, sample_crops
from sfumato.metrics import (
    Features,
    PooledAlexNet,
    Projection,
    frechet_between,
    kernel_distance,
    psnr,
)
from sfumato.zoo import Prior

DistanceName: TypeAlias = Literal["frechet", "kernel"]
_Distance: TypeAlias = Callable[[Tensor, Tensor], float]

_DISTANCES: Mapping[DistanceName, _Distance] = {
    "frechet": frechet_between,
    "kernel": partial(kernel_distance, paired=True),
}
#: Crops of the first rung: this many for each dimension.
_CROPS_A_DIMENSION = 2
_BATCH = 16


@dataclass(frozen=True)
class Search:
    """How to search.

    ``n_steps`` is that of the schedules, ``budget`` the most evaluations of the network on one
    crop, ``distance`` "frechet" or "kernel" between features reduced to ``dimensions``. A rung
    keeps one of ``keep`` candidates. ``consistent``: samples go through DDNM's projection.
    """

    n_steps: int
    budget: int = 30_000
    distance: DistanceName = "frechet"
    dimensions: int = 8
    keep: int = 3
    seed: int = 0
    consistent: bool = False

    def __post_init__(self) -> None:
        """Raise SettingsError for numbers below 1 and unknown distances."""
        if self.distance not in _DISTANCES:
            raise SettingsError(f"distance {self.distance!r}", expected=" or ".join(_DISTANCES))
        for name in ("n_steps", "budget", "dimensions"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} = {getattr(self, name)}", expected="at least 1")
        if not 0 <= self.seed < 1 << 64:
            raise SettingsError(f"seed = {self.seed}", expected="64 bits, not negative")


@dataclass(frozen=True)
class Planned:
    """The rungs that lie ahead, ``evaluations`` of the network, and what needs none.

    ``interpolated`` and its PSNR are the figures of the enlarged input, for all crops.
    """

    rungs: tuple[Rung, ...]
    evaluations: int
    interpolated: float
    interpolated_psnr: float


@dataclass(frozen=True)
class Measured:
    """One candidate in one rung (from 0): the distance of its samples, their PSNR in dB.

    ``evaluations`` are those used so far by the whole search. The distance is infinite where the
    samples are no numbers.
    """

    rung: int
    candidate: Candidate
    crops: int
    distance: float
    psnr: float
    evaluations: int


@dataclass(frozen=True)
class Found:
    """The best candidate of the last rung, the first one there, and all that was measured."""

    best: Measured
    own: Measured
    table: tuple[Measured, ...]


Event: TypeAlias = Planned | Measured


def search_schedule(
    prior: Prior,
    crops: Images,
    search: Search,
    *,
    features: Features | None = None,
    tried: list[Candidate] | None = None,
) -> Generator[Event, None, Found]:
    """Search the schedule of an SR3 model: yield ``Planned``, then each ``Measured``.

    Candidates sample the same crops (n, 3, side, side in [-1, 1]) from the same noise, so
    distances differ by what candidates do. The first of ``tried`` (by default all of
    ``candidates``, the model's own first) is measured in every rung, to be compared with.
    ``features`` are PooledAlexNet's by default, reduced by ``Projection``. The best is the one of
    the smallest distance in the last rung. Every number is a function of the arguments.

    Raises SettingsError for a model that is no SR3 model of sfumato, a budget that does not serve
    two candidates, too few crops, crops that are all equal, and features that are no numbers.
    """
    task = Task.of(prior, crops.shape[-1])
    tried = candidates(prior, search.n_steps, seed=search.seed) if tried is None else tried
    rungs = _plan(search, tried, len(crops))
    judge = _Judge.of(crops[: rungs[-1].crops], search, features or PooledAlexNet())
    enlarged = upsampled(measure(prior, judge.x_0), task.model.scale)
    interpolated = judge(*judge.look(enlarged, 0))
    evaluations = cost(rungs) * search.n_steps
    yield Planned(tuple(rungs), evaluations, *interpolated)

    trials = [_Trial(prior, judge, c, search) for c in tried[: rungs[0].candidates]]
    used = 0
    table: list[Measured] = []
    for number, rung in enumerate(rungs):
        if number:
            others = zip(last[1:], trials[1:], strict=True)
            ranked = sorted(others, key=lambda pair: pair[0].distance)
            trials = [trials[0], *(trial for _, trial in ranked[: rung.candidates - 1])]
        last: list[Measured] = []
        for trial in trials:
            used += trial.extend(rung.crops)
            last.append(Measured(number, trial.candidate, rung.crops, *trial.figures(), used))
            yield last[-1]
        table += last
    return Found(min(last, key=lambda m: m.distance), last[0], tuple(table))


def _plan(search: Search, tried: list[Candidate], n_crops: int) -> list[Rung]:
    least = min(_CROPS_A_DIMENSION * search.dimensions, n_crops)
    if n_crops <= search.dimensions:
        raise SettingsError(
            f"{n_crops} crops for features of {search.dimensions} dimensions",
            expected=f"at least {search.dimensions + 1}, or the covariance is singular",
            do="take more crops",
        )
    walks = search.budget // search.n_steps
    try:
        return plan_rungs(len(tried), walks, least=least, most=n_crops, keep=search.keep)
    except SettingsError as error:
        needed = 2 * least * search.n_steps
        if search.budget >= needed:
            raise
        raise SettingsError(
            f"a budget of {search.budget} evaluations",
            expected=f"at least {needed}: 2 schedules of {search.n_steps} steps on {least} crops",
        ) from error


@dataclass(frozen=True, eq=False)
class _Judge:
    """Tells how far samples are from the true crops, and knows what those look like."""

    x_0: Images
    features: Features
    distance: _Distance
    projection: Projection
    truth: Tensor

    @classmethod
    def of(cls, x_0: Images, search: Search, features: Features) -> _Judge:
        seen = torch.cat([_seen(features, batch) for batch in x_0.split(_BATCH)])
        projection = Projection.of(seen, search.dimensions)
        return cls(x_0, features, _DISTANCES[search.distance], projection, projection(seen))

    def look(self, x: Images, first: int) -> tuple[Tensor, Tensor]:
        """Return the reduced features and the PSNR of samples of the crops from ``first`` on."""
        seen = torch.cat([_seen(self.features, batch) for batch in x.split(_BATCH)])
        scores = psnr((x + 1) / 2, (self.x_0[first : first + len(x)] + 1) / 2)
        return self.projection(seen), scores.double().cpu()

    def __call__(self, seen: Tensor, scores: Tensor) -> tuple[float, float]:
        """Return the distance from the first so many crops, and the mean PSNR."""
        mean = float(scores.mean())
        if not bool(seen.isfinite().all()):
            return math.inf, mean
        return self.distance(seen, self.truth[: len(seen)]), mean


def _seen(features: Features, x: Images) -> Tensor:
    with torch.no_grad():
        return features((x + 1) / 2).double().cpu()


class _Trial:
    """A candidate and what it has sampled so far."""

    def __init__(self, prior: Prior, judge: _Judge, candidate: Candidate, search: Search) -> None:
        self.candidate = candidate
        self._prior = prior
        self._judge = judge
        self._search = search
        self._seen: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._n = 0

    def extend(self, n: int) -> int:
        """Sample those of the first ``n`` crops that are left; return the evaluations it took."""
        before = self._n
        for x_0 in self._judge.x_0[before:n].split(_BATCH):
            x = sample_crops(
                self._prior,
                measure(self._prior, x_0),
                self.candidate,
                first=self._n,
                seed=self._search.seed,
                consistent=self._search.consistent,
            )
            seen, scores = self._judge.look(x, self._n)
            self._seen.append(seen)
            self._scores.append(scores)
            self._n += len(x)
        return (self._n - before) * len(self.candidate.sigmas)

    def figures(self) -> tuple[float, float]:
        """Return distance and PSNR of all that it has sampled."""
        return self._judge(torch.cat(self._seen), torch.cat(self._scores))
