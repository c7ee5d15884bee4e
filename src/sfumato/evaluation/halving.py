"""Successive halving: many candidates on few crops, then ever fewer on ever more.

Reference: Karnin, Koren and Somekh, "Almost optimal exploration in multi-armed bandits", 2013;
Jamieson and Talwalkar, arXiv 1502.07943.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sfumato.errors import SettingsError


@dataclass(frozen=True)
class Rung:
    """So many candidates, each measured on the first ``crops`` crops."""

    candidates: int
    crops: int


def plan_rungs(
    n_candidates: int, budget: int, *, least: int, most: int, keep: int = 3
) -> list[Rung]:
    """Plan rungs that need at most ``budget`` walks, a walk being one sample of one crop.

    A rung keeps one of ``keep`` candidates, and one more that is never dropped, and has ``keep``
    times the crops, from at least ``least`` to ``most``. Samples are used again in later
    rungs, so that a rung costs ``candidates · (crops − crops before)``. As many candidates are
    taken as the budget serves, up to ``n_candidates``, then as many crops.

    Raises SettingsError where it does not serve two candidates, saying what would.

    >>> plan_rungs(9, 500, least=16, most=300)
    [Rung(candidates=9, crops=29), Rung(candidates=4, crops=87)]
    """
    if keep < 2 or n_candidates < 2:
        raise SettingsError(
            f"one of {keep} kept, of {n_candidates} candidates", expected="at least 2 of either"
        )
    if not 1 <= least <= most:
        raise SettingsError(
            f"{most} crops", expected=f"at least {least}", do="take more --crops or photographs"
        )
    smallest = cost(_rungs(2, least, most, keep))
    if budget < smallest:
        raise SettingsError(
            f"a budget of {budget} walks", expected=f"at least {smallest} to compare two schedules"
        )
    n = max(c for c in range(2, n_candidates + 1) if cost(_rungs(c, least, most, keep)) <= budget)
    crops = max(k for k in range(least, most + 1) if cost(_rungs(n, k, most, keep)) <= budget)
    return _rungs(n, crops, most, keep)


def cost(rungs: Sequence[Rung]) -> int:
    """Return how many walks the rungs need.

    >>> cost([Rung(9, 10), Rung(3, 30)])
    150
    """
    before = [0, *(r.crops for r in rungs)]
    return sum(r.candidates * (r.crops - n) for r, n in zip(rungs, before, strict=False))


def _rungs(n: int, crops: int, most: int, keep: int) -> list[Rung]:
    """Go on until one rung more would keep a single candidate, or would have no more crops."""
    rungs = [Rung(n, min(crops, most))]
    while n > keep and rungs[-1].crops < most:
        n = -(-n // keep)
        rungs.append(Rung(n + 1, min(keep * rungs[-1].crops, most)))
    return rungs
