"""The folder of a benchmark as others read it: what was run, and the tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from sfumato._version import __version__
from sfumato.errors import SettingsError
from sfumato.evaluation.benchmark import Benchmark
from sfumato.evaluation.choice import WORDS, Chosen, Networks, choose
from sfumato.evaluation.measure import Picture, SetMeasure
from sfumato.evaluation.recipe import Recipe
from sfumato.evaluation.record import Record
from sfumato.evaluation.tables import (
    Column,
    OfSets,
    Summary,
    as_csv,
    as_json,
    as_markdown,
    describe,
    published,
    summarise,
)
from sfumato.io import atomic_path
from sfumato.metrics import ShiftTolerantLPIPS

RUN = "run.json"
#: Words of measures that need the extra ``lpips``.
_PERCEPTUAL = ("stlpips", "diversity-stlpips")


@final
@dataclass(frozen=True)
class Measuring:
    """The measures of a recipe that can be had here, and why others cannot."""

    chosen: Chosen
    lacking: tuple[str, ...] = ()


def measures_for(recipe: Recipe, networks: Networks | None = None) -> Measuring:
    """Return what can be measured of what a recipe asks, with these networks.

    Raises SettingsError for unknown measures and where nothing can be measured, ModelError for
    files that hold something else.
    """
    choose(" ".join(w for w in recipe.measures if w.partition(":")[0] not in WORDS))
    able, lacking = [], []
    for word in recipe.measures:
        try:
            choose(word, networks, border=recipe.border)
            if word in _PERCEPTUAL:
                ShiftTolerantLPIPS()
            able.append(word)
        except SettingsError as error:
            lacking.append(f"{word}: {error}")
    if not able:
        raise SettingsError(f"nothing of {recipe.name} can be measured: {lacking[0]}")
    return Measuring(choose(" ".join(able), networks, border=recipe.border), tuple(lacking))


def write_run(b: Benchmark) -> None:
    """Write ``run.json``: titles and captions, how everything is measured, published figures."""
    recipe = b.recipe
    run = {
        "title": recipe.title,
        "version": __version__,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "source": b.source,
        "data": recipe.data.model_dump(mode="json"),
        "notes": list(recipe.notes),
        "tasks": [
            {"name": t.name, "caption": t.caption or t.degradation, "degradation": t.degradation}
            for t in recipe.tasks
        ],
        "methods": [{"name": c.name, "caption": c.caption} for c in b.contenders],
        "measures": [describe(c) for c in b.chosen.columns],
        "published": [p.model_dump(mode="json", exclude={"recipe"}) for p in recipe.published],
    }
    _write(b.folder / RUN, json.dumps(run, indent=2, ensure_ascii=False) + "\n")


@final
@dataclass(frozen=True)
class Table:
    """The rows of a benchmark, ours and published ones, and as text for people."""

    summaries: tuple[Summary, ...]
    markdown: str


def write_tables(b: Benchmark, records: Sequence[Record], *, sets: OfSets | None = None) -> Table:
    """Write ``table.md``, ``table.csv`` and ``table.json``, and return the table."""
    columns = b.chosen.columns + _only_published(b)
    ours = summarise(records, columns, sets=sets)
    rows = [
        *ours,
        *(published(p.task, p.method, p.values, p.source) for p in b.recipe.published),
    ]
    text = markdown(b, rows, columns)
    for name, content in (
        ("table.md", text),
        ("table.csv", as_csv(rows, columns)),
        ("table.json", as_json(rows, columns)),
    ):
        _write(b.folder / name, content)
    return Table(tuple(rows), text)


def _only_published(b: Benchmark) -> tuple[SetMeasure, ...]:
    """Return columns for published figures that are not measured here."""
    ours = {c.name for c in b.chosen.columns}
    names = dict.fromkeys(name for p in b.recipe.published for name in p.values)
    return tuple(_published(name) for name in names if name not in ours)


def _published(name: str) -> SetMeasure:
    def none(results: Sequence[Picture], references: Sequence[Picture]) -> float:
        raise SettingsError(f"{name}, which is only quoted", expected="a network to measure it by")

    digits = 3 if "error" in name else 2
    return SetMeasure(name, none, "published only; not measured here", digits=digits)


def markdown(b: Benchmark, rows: Sequence[Summary], columns: Sequence[Column]) -> str:
    """Return a page: a table for each task, what was not done and why, and the protocol."""
    recipe = b.recipe
    captions = {c.name: c.caption for c in b.contenders}
    parts = [f"# {recipe.title}", _pictures(b)]
    for task in recipe.tasks:
        own = [r for r in rows if r.task == task.name]
        head = f"## {task.caption or task.name}\n\n`{task.degradation}`"
        named = [
            r if r.source else replace(r, method=captions.get(r.method, r.method)) for r in own
        ]
        done = [r for r in named if not r.refused]
        table = as_markdown(done, columns) if done else "nothing was measured"
        left = [f"- {r.method}: {r.refused}" for r in named if r.refused]
        parts += [head, table] + ([f"Not done:\n\n{chr(10).join(left)}"] if left else [])
    had = {name for r in rows for name in r.values}
    notes = [*recipe.notes, *(f"{c.name}: {c.protocol}." for c in columns if c.name in had)]
    parts.append("## How it is measured\n\n" + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _pictures(b: Benchmark) -> str:
    """Say which pictures, and whether they are all."""
    data, n = b.recipe.data, len(b.photographs)
    whole = data.first or data.pictures
    of = f" of the {whole} of the protocol" if whole is not None and whole != n else ""
    made = []
    if data.side:
        made.append(f"the largest square in the middle resized by area to {data.side} pixels")
    if data.multiple > 1:
        made.append(f"sides cut to multiples of {data.multiple}")
    if data.grey != "keep":
        made.append("grey ones " + ("left out" if data.grey == "skip" else "made RGB"))
    how = f", {', '.join(made)}" if made else ""
    seed = f"seeds {b.recipe.seed} to {b.recipe.seed + n - 1}, by the order of names"
    name = b.source or data.name
    other = "" if name.lower() == data.name.lower() else f", which are not {data.name}"
    return f"{n} pictures of {name}{other}{of}{how}; {seed}. sfumato {__version__}."


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
