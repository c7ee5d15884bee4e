"""Fool rates: how often a generated picture was taken for a photograph, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias, final

from sfumato.evaluation.study.answers import Answers, Trial

Interval: TypeAlias = tuple[float, float]
Group: TypeAlias = Literal["all", "method", "picture", "subject"]
#: Resampled sets of subjects, and the seed of their choice.
N_RESAMPLES, _SEED = 4000, 0


@final
@dataclass(frozen=True)
class Rate:
    """The share of ``trials`` in which the generated picture was chosen; 0.5 fools completely.

    ``interval`` is Wilson's, which takes trials for independent. ``clustered`` is that of the
    bootstrap over subjects, which does not; None where there is one subject only.
    """

    group: Group
    name: str
    task: int
    chosen: int
    trials: int
    subjects: int
    interval: Interval
    clustered: Interval | None = None

    @property
    def rate(self) -> float:
        """``chosen / trials``."""
        return self.chosen / self.trials if self.trials else math.nan


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Return the score interval of a share ``p̂ = k/n``, all p with |p̂ − p| ≤ z √(p(1−p)/n).

    (p̂ + z²/2n ± z √(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n)

    Of no trials it is (0, 1). Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), p. 209.

    Raises:
        ValueError: ``k`` is not of 0 to ``n``.

    >>> [round(p, 3) for p in wilson(5, 10)]
    [0.237, 0.763]
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n}; expected 0 to {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = k / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    low, high = ((middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return (0.0 if k == 0 else low), (1.0 if k == n else high)


def clustered(
    counts: Sequence[tuple[int, int]],
    *,
    level: float = 0.95,
    seed: int = _SEED,
    n_resamples: int = N_RESAMPLES,
) -> Interval | None:
    """Return the percentile interval of  Σ kᵢ / Σ nᵢ  over resampled subjects.

    ``counts`` holds ``(kᵢ, nᵢ)`` for each subject. Whoever takes part is drawn with replacement,
    with all of their trials. Fewer than two subjects tell nothing: None.

    >>> clustered([(5, 10)] * 8)
    (0.5, 0.5)
    """
    import numpy as np

    found = np.array([(k, n) for k, n in counts if n], dtype=np.float64)
    if len(found) < 2:
        return None
    draws = np.random.default_rng(seed).multinomial(
        len(found), np.full(len(found), 1 / len(found)), size=n_resamples
    )
    rates = (draws @ found[:, 0]) / (draws @ found[:, 1])
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def rates(answers: Sequence[Answers]) -> list[Rate]:
    """Return the fool rates of each task: over all, by method, by picture and by subject.

    Attention checks and pairs that were interrupted do not count.
    """
    tasks = sorted({t.task for a in answers for t in a.trials}, reverse=True)
    found: list[Rate] = []
    for task in tasks:
        found += _grouped(answers, task, "all", lambda a, t: "all")
        found += _grouped(answers, task, "method", lambda a, t: t.method)
        found += _grouped(answers, task, "picture", lambda a, t: t.picture)
        found += _grouped(answers, task, "subject", lambda a, t: a.subject)
    return found


def _grouped(
    answers: Sequence[Answers], task: int, group: Group, name_of: Callable[[Answers, Trial], str]
) -> Iterable[Rate]:
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for one in answers:
        for trial in one.trials:
            if trial.task != task or not trial.counts:
                continue
            own = counts.setdefault(name_of(one, trial), {})
            k, n = own.get(one.subject, (0, 0))
            own[one.subject] = (k + trial.fooled, n + 1)
    for name in sorted(counts):
        subjects = list(counts[name].values())
        k, n = sum(k for k, _ in subjects), sum(n for _, n in subjects)
        interval = wilson(k, n)
        yield Rate(group, name, task, k, n, len(subjects), interval, clustered(subjects))
