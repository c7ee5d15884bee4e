"""Fool rates as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict

from sfumato.evaluation.study.answers import Collected
from sfumato.evaluation.study.rates import Interval, Rate

_HEADS = {"all": "all", "method": "method", "picture": "picture", "subject": "subject"}
PROTOCOL = (
    "Fool rate: the share of pairs in which the generated picture was chosen as the one taken by "
    "a camera; 50 % is what guessing brings. Attention checks and interrupted pairs do not count. "
    "Wilson: 95 % interval that takes pairs for independent. Subjects: 95 % percentile bootstrap "
    "over subjects, 4000 resamples. Both speak of other subjects, with these pictures."
)


def as_markdown(collected: Collected, rates: Sequence[Rate]) -> str:
    """Return a table for each task: over all, by method, by picture and by subject."""
    lines = [f"Study {collected.study}: {_many(len(collected.answers), 'subject')} counted"]
    interrupted = sum(t.interrupted for a in collected.answers for t in a.trials)
    if interrupted:
        lines[0] += f", {_many(interrupted, 'pair')} of theirs interrupted"
    lines[0] += f", {_many(len(collected.excluded), 'file')} excluded."
    for task in sorted({rate.task for rate in rates}, reverse=True):
        shown = "with" if task == 1 else "without"
        lines += ["", f"## Task {task} ({shown} the input)"]
        for group, head in _HEADS.items():
            lines += ["", f"| {head} | fool rate | Wilson | subjects | pairs |"]
            lines.append("|---|---:|---:|---:|---:|")
            own = [rate for rate in rates if rate.task == task and rate.group == group]
            lines += [
                f"| {r.name} | {r.rate:.1%} | {_span(r.interval)} | {_span(r.clustered)} "
                f"| {r.trials} |"
                for r in own
            ]
    lines += ["", PROTOCOL]
    if collected.excluded:
        lines += ["", "Excluded:", ""]
        lines += [f"- {one.file.name}: {one.reason}" for one in collected.excluded]
    return "\n".join(lines) + "\n"


def as_csv(rates: Sequence[Rate]) -> str:
    """Return a row for each rate, with numbers as they are."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        ["task", "group", "name", "rate", "chosen", "pairs", "subjects", "wilson_low",
         "wilson_high", "subjects_low", "subjects_high"]
    )  # fmt: skip
    for r in rates:
        spread = r.clustered or ("", "")
        rows.writerow(
            [r.task, r.group, r.name, r.rate, r.chosen, r.trials, r.subjects, *r.interval, *spread]
        )
    return text.getvalue()


def as_json(collected: Collected, rates: Sequence[Rate]) -> str:
    """Return all of it as an object."""
    facts = {
        "study": collected.study,
        "protocol": PROTOCOL,
        "subjects": [a.subject for a in collected.answers],
        "excluded": [{"file": e.file.name, "reason": e.reason} for e in collected.excluded],
        "rates": [{**asdict(r), "rate": r.rate} for r in rates],
    }
    return json.dumps(facts, indent=1) + "\n"


def _span(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}"


def _many(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
