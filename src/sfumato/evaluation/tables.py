"""Tables of comparisons: means over pictures with their 95 % intervals, in three forms.

An interval is that of the percentile bootstrap: means of as many pictures, drawn with replacement.
It says how far the mean would move with other pictures of the same kind, not how much two methods
differ, which on the same pictures is known better: see `difference`.

Reference: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeAlias, final

import numpy as np

from sfumato.errors import SettingsError
from sfumato.evaluation.measure import Measure, SetMeasure
from sfumato.evaluation.record import Record

#: What heads a column.
Column: TypeAlias = Measure | SetMeasure
#: By (task, method): the numbers of sets, by the names of their measures.
OfSets: TypeAlias = Mapping[tuple[str, str], Mapping[str, float]]

RESAMPLES = 2000
#: Pictures that are drawn in one go.
_BLOCK = 1 << 22


@final
@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` pictures; ``low`` and ``high`` bound its 95 % interval, where it has one.

    The number of a set of pictures, or a published one, is a mean without an interval.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    n: int = 1


@final
@dataclass(frozen=True)
class Summary:
    """How a method did at a task, over ``n`` pictures.

    ``values`` are by the names of measures; ``seconds`` and ``evaluations`` are means for a
    picture, where they are known. ``refused`` says why there are no results. ``source`` names the
    publication that numbers are from: they are not ours.
    """

    task: str
    method: str
    n: int
    values: Mapping[str, Estimate] = field(default_factory=dict)
    seconds: float | None = None
    evaluations: float | None = None
    refused: str = ""
    source: str = ""


def bootstrap(values: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Return the mean with its 95 % percentile-bootstrap interval.

    The draws are a function of ``seed`` and of the number of values alone, so that methods are
    compared on the same ones. One value, or an infinite one, has no interval.

    Raises SettingsError for no values, and for NaN.

    >>> bootstrap([1.0, 1.0, 1.0])
    Estimate(mean=1.0, low=1.0, high=1.0, n=3)
    """
    x = np.asarray(values, np.float64)
    if x.size == 0 or bool(np.isnan(x).any()):
        raise SettingsError(f"{x.size} values, or NaN among them", expected="numbers to average")
    if x.size == 1 or not bool(np.isfinite(x).all()):
        return Estimate(float(x.mean()), n=x.size)
    rng = np.random.Generator(np.random.PCG64(seed))
    block = max(1, _BLOCK // x.size)
    means = np.concatenate([
        x[rng.integers(x.size, size=(min(block, resamples - k), x.size))].mean(axis=1)
        for k in range(0, resamples, block)
    ])  # fmt: skip
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(float(x.mean()), float(low), float(high), x.size)


def summarise(
    records: Iterable[Record],
    measures: Sequence[Column],
    *,
    sets: OfSets | None = None,
    seed: int = 0,
) -> list[Summary]:
    """Return a summary of each task and method, in the order of their first records.

    What is NaN in a record was not measured and does not count; each `Estimate` says how many
    pictures do. Numbers of sets come from ``sets``.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.task, record.method), []).append(record)
    return [
        _summary(own, measures, (sets or {}).get(key, {}), seed) for key, own in groups.items()
    ]


def _summary(
    records: Sequence[Record], measures: Sequence[Column], of_set: Mapping[str, float], seed: int
) -> Summary:
    done = [r for r in records if not r.refused]
    values: dict[str, Estimate] = {}
    for measure in measures:
        if measure.name in of_set:
            values[measure.name] = Estimate(of_set[measure.name], n=len(done))
            continue
        found = [r.values.get(measure.name, math.nan) for r in done]
        if known := [v for v in found if not math.isnan(v)]:
            values[measure.name] = bootstrap(known, seed=seed)
    seconds = [r.seconds for r in done if math.isfinite(r.seconds)]
    evaluations = [r.evaluations for r in done if r.evaluations is not None]
    return Summary(
        task=records[0].task,
        method=records[0].method,
        n=len(done),
        values=values,
        seconds=sum(seconds) / len(seconds) if seconds else None,
        evaluations=sum(evaluations) / len(evaluations) if evaluations else None,
        refused="" if done else records[0].refused,
    )


def difference(
    records: Iterable[Record], measure: str, method: str, other: str, *, seed: int = 0
) -> Estimate:
    """Return the mean of ``method`` minus ``other`` over the pictures of a task that both have.

    Its interval is far narrower than those of the two means, whose pictures vary together: where
    it does not hold 0, one of the two is better on such pictures.

    Raises SettingsError where they have none in common, or records of several tasks.

    >>> rows = [Record("sr", m, p, "", {"PSNR": v}) for m, p, v in
    ...         (("a", "x", 20.5), ("a", "y", 30.5), ("b", "x", 20.0), ("b", "y", 30.0))]
    >>> difference(rows, "PSNR", "a", "b")
    Estimate(mean=0.5, low=0.5, high=0.5, n=2)
    """
    found: dict[str, dict[str, float]] = {method: {}, other: {}}
    tasks = set()
    for r in records:
        value = r.values.get(measure, math.nan)
        if r.method in found and not r.refused and math.isfinite(value):
            found[r.method][r.picture] = value
            tasks.add(r.task)
    both = [p for p in found[method] if p in found[other]]
    if not both or len(tasks) > 1:
        raise SettingsError(
            f"{len(both)} pictures in {len(tasks)} tasks with {measure} by {method} and {other}",
            expected="records of one task, with pictures that both have",
        )
    return bootstrap([found[method][p] - found[other][p] for p in both], seed=seed)


def published(task: str, method: str, values: Mapping[str, float], source: str) -> Summary:
    """Return a row of published numbers, by the names of measures.

    >>> published("sr", "DDNM", {"PSNR": 27.46}, "arXiv 2212.00490, table 1").values["PSNR"].mean
    27.46
    """
    estimates = {name: Estimate(value, n=0) for name, value in values.items()}
    return Summary(task, method, 0, estimates, source=source)


def as_markdown(
    summaries: Sequence[Summary],
    measures: Sequence[Column],
    *,
    intervals: bool = True,
    protocols: bool = False,
) -> str:
    """Return a table for each task, a row for each method; the best of ours are bold.

    A cell is  mean (low to high);  columns that nobody has are left out. With ``protocols`` the
    exact protocol of each column follows, and where published numbers are from.

    >>> m = Measure("PSNR", lambda shown: 0.0, "10 log10(1 / MSE)", unit="dB")
    >>> rows = [Summary("sr", k, 1, {"PSNR": Estimate(v)}) for k, v in (("a", 20.0), ("b", 25.0))]
    >>> print(as_markdown(rows, [m]))
    | method | PSNR (dB) ↑ |
    |---|---:|
    | a | 20.00 |
    | b | **25.00** |
    """
    tasks = list(dict.fromkeys(s.task for s in summaries))
    parts = []
    for task in tasks:
        table = _markdown([s for s in summaries if s.task == task], measures, intervals)
        parts.append(f"### {task}\n\n{table}" if len(tasks) > 1 else table)
    if protocols:
        parts.append(_notes(summaries, measures))
    return "\n\n".join(parts)


def _markdown(rows: Sequence[Summary], measures: Sequence[Column], intervals: bool) -> str:
    shown = [m for m in measures if any(m.name in s.values for s in rows)]
    counts = any(s.evaluations is not None for s in rows)
    timed = any(s.seconds is not None for s in rows)
    head = [*(heading(m) for m in shown), *["evaluations"] * counts, *["seconds"] * timed]
    lines = [f"| {' | '.join(['method', *head])} |", "|---" + "|---:" * len(head) + "|"]
    bests = {m.name: _best(rows, m) for m in shown}
    for s in rows:
        cells = [_cell(s.values.get(m.name), m, bests[m.name], s, intervals) for m in shown]
        cells += [_number(s.evaluations, 0)] * counts + [_number(s.seconds, 1)] * timed
        name = f"{s.method} ({s.source})" if s.source else s.method
        lines.append(f"| {' | '.join([name.replace('|', chr(92) + '|'), *cells])} |")
    return "\n".join(lines)


def heading(measure: Column) -> str:
    """Return what heads a column: name, unit, and which way is better.

    >>> heading(Measure("ST-LPIPS", lambda shown: 0.0, "", better="lower"))
    'ST-LPIPS ↓'
    """
    unit = f" ({measure.unit})" if measure.unit else ""
    arrow = {"higher": " ↑", "lower": " ↓", "neither": ""}[measure.better]
    return f"{measure.name}{unit}{arrow}"


def _best(rows: Sequence[Summary], measure: Column) -> str:
    """Return the best of our numbers as it is printed; "" where there is none to choose."""
    ours = [s.values[measure.name].mean for s in rows if measure.name in s.values and not s.source]
    if measure.better == "neither" or len(ours) < 2:
        return ""
    return _number(max(ours) if measure.better == "higher" else min(ours), measure.digits)


def _cell(
    found: Estimate | None, measure: Column, best: str, row: Summary, intervals: bool
) -> str:
    if found is None:
        return "-"
    text = _number(found.mean, measure.digits)
    if text == best and not row.source:
        text = f"**{text}**"
    if intervals and found.low is not None and found.high is not None:
        low, high = (_number(v, measure.digits) for v in (found.low, found.high))
        text += f" ({low} to {high})"
    return text if not row.n or found.n == row.n else f"{text} [n = {found.n}]"


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if math.isfinite(value) else "∞"


def _notes(summaries: Sequence[Summary], measures: Sequence[Column]) -> str:
    """Say how everything was measured."""
    names = {name for s in summaries for name in s.values}
    lines = [
        f"- {m.name}: {m.protocol}."
        if m.name in names
        else f"- {m.name}: there is none for these pictures."
        for m in measures
    ]
    if any(e.low is not None for s in summaries for e in s.values.values()):
        lines.append(
            f"- in parentheses: 95 % percentile-bootstrap interval of the mean over pictures, "
            f"{RESAMPLES} resamples."
        )
    lines += [f"- {s.task}, {s.method}: not done, {s.refused}." for s in summaries if s.refused]
    return "\n".join(lines)


def as_csv(summaries: Sequence[Summary], measures: Sequence[Column]) -> str:
    """Return a line for each task, method and measure, with all digits.

    >>> m = Measure("PSNR", lambda shown: 0.0, "", unit="dB")
    >>> s = Summary("sr", "a", 2, {"PSNR": Estimate(20.5, 20.0, 21.0, 2)})
    >>> print(as_csv([s], [m]), end="")
    task,method,measure,unit,better,mean,low,high,n,seconds,evaluations,source
    sr,a,PSNR,dB,higher,20.5,20.0,21.0,2,,,
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("task", "method", "measure", "unit", "better", "mean", "low", "high", "n")
    writer.writerow([*head, "seconds", "evaluations", "source"])
    for s in summaries:
        for m in measures:
            if (e := s.values.get(m.name)) is not None:
                own = (s.task, s.method, m.name, m.unit, m.better, e.mean, e.low, e.high, e.n)
                writer.writerow([*own, s.seconds, s.evaluations, s.source])
    return text.getvalue()


def as_json(summaries: Sequence[Summary], measures: Sequence[Column]) -> str:
    """Return the measures with their protocols, and a row for each task and method, as JSON.

    A number that JSON cannot say (infinity) becomes null.

    >>> json.loads(as_json([Summary("sr", "a", 0)], []))["rows"][0]["method"]
    'a'
    """
    columns = [describe(m) for m in measures]
    rows = [_sayable(asdict(s)) for s in summaries]
    return json.dumps({"measures": columns, "rows": rows}, indent=2, allow_nan=False) + "\n"


def describe(measure: Column) -> dict[str, object]:
    """Return what a measure is, as plain values: the form that ``run.json`` has it in."""
    names = ("name", "unit", "better", "digits", "protocol")
    return {name: getattr(measure, name) for name in names}


def _sayable(value: object) -> object:
    if isinstance(value, Mapping):
        return {k: _sayable(v) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
