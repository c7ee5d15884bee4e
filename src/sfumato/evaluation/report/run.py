"""What a run folder holds: ``run.json``, ``records.jsonl``, and pictures under their names."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, NoReturn, final

from pydantic import BaseModel, Field, ValidationError

from sfumato.errors import SettingsError
from sfumato.evaluation.measure import Better, Measure, Shown
from sfumato.evaluation.record import Record, read_records
from sfumato.evaluation.tables import OfSets, Summary, published, summarise

RUN = "run.json"
Slug = Annotated[str, Field(pattern=r"^[^/\\\x00]+$")]


@final
class Task(BaseModel, frozen=True):
    """What was done to the photographs; ``degradation`` is its text form."""

    name: Slug
    caption: str = ""
    degradation: str = ""


@final
class Method(BaseModel, frozen=True):
    """Who restored them. Methods of one ``line`` are one curve in plots."""

    name: Slug
    caption: str = ""
    line: str = ""


@final
class Column(BaseModel, frozen=True):
    """What was measured."""

    name: str
    unit: str = ""
    better: Better = "higher"
    digits: Annotated[int, Field(ge=0, le=12)] = 2
    protocol: str = ""


@final
class Published(BaseModel, frozen=True):
    """What others reported of a task."""

    task: str
    method: str
    values: Mapping[str, float]
    source: str = ""


@final
class _File(BaseModel, frozen=True):
    title: str
    version: str = ""
    notes: tuple[str, ...] = ()
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]
    methods: Annotated[tuple[Method, ...], Field(min_length=1)]
    measures: tuple[Column, ...] = ()
    published: tuple[Published, ...] = ()


@final
@dataclass(frozen=True)
class Run:
    """A comparison: ``records`` are those of its tasks and methods alone."""

    folder: Path
    title: str
    version: str
    notes: tuple[str, ...]
    tasks: tuple[Task, ...]
    methods: tuple[Method, ...]
    measures: tuple[Measure, ...]
    published: tuple[Published, ...]
    records: tuple[Record, ...]
    of_sets: OfSets

    @cached_property
    def summaries(self) -> list[Summary]:
        """Means with their intervals, for each task and method."""
        return summarise(self.records, self.measures, sets=self.of_sets)

    def rows(self, task: str) -> list[Summary]:
        """Return the table of a task: our methods in their order, then what others reported."""
        own = {s.method: s for s in self.summaries if s.task == task}
        ours = [own[m.name] for m in self.methods if m.name in own]
        theirs = [
            published(task, p.method, p.values, p.source) for p in self.published if p.task == task
        ]
        return ours + theirs

    def by_place(self, task: str) -> Mapping[tuple[str, str], Record]:
        """Return the records of a task by picture and method."""
        return {(r.picture, r.method): r for r in self.records if r.task == task}

    def pictures(self, task: str) -> list[str]:
        """Return the names of a task's pictures, sorted."""
        return sorted({r.picture for r in self.records if r.task == task})

    def reference(self, picture: str) -> Path | None:
        """Return the photograph, if it is there."""
        return _there(self.folder / "references" / f"{picture}.png")

    def input(self, task: str, picture: str) -> Path | None:
        """Return what was restored, if it is there."""
        return _there(self.folder / "inputs" / task / f"{picture}.png")

    def result(self, task: str, method: str, picture: str) -> Path | None:
        """Return what a method made of it, if it is there."""
        return _there(self.folder / "results" / task / method / f"{picture}.png")

    def caption(self, method: str) -> str:
        """Return what a method is called for people."""
        return next((m.caption or m.name for m in self.methods if m.name == method), method)

    def line(self, method: str) -> str:
        """Return the curve a method is on: its own, or that of NAME in NAME-10 and NAME-20."""
        own = next((m.line for m in self.methods if m.name == method), "")
        stem = _stem(method)
        alike = [m.name for m in self.methods if _stem(m.name) == stem]
        return own or (stem if len(alike) > 1 else method)


def read_run(folder: str | Path) -> Run:
    """Read a run folder.

    Numbers of sets, such as Fréchet distances, are not in records; they are those of
    ``table.json``, where that is there.

    Raises:
        SettingsError: no ``run.json``, or one that is damaged; no results yet.
        ImageError: a record that is none.
    """
    folder = Path(folder)
    path = folder / RUN
    if not path.is_file():
        raise SettingsError(
            f"{folder} holds no {RUN}", expected="the folder of a comparison (sfumato bench NAME)"
        )
    try:
        file = _File.model_validate_json(path.read_bytes())
    except ValidationError as error:
        _refuse(path, error)
    tasks, methods = ({one.name for one in group} for group in (file.tasks, file.methods))
    records = tuple(r for r in read_records(folder) if r.task in tasks and r.method in methods)
    if not records:
        raise SettingsError(f"{folder} holds no results yet", do="wait for the first one")
    for record in records:
        if re.search(r"[/\\\0]", record.picture):
            raise SettingsError(f"a picture called {record.picture}", expected="a file's name")
    measures = tuple(_measure(column) for column in file.measures)
    return Run(
        folder,
        file.title,
        file.version,
        file.notes,
        file.tasks,
        file.methods,
        measures,
        file.published,
        records,
        _of_sets(folder / "table.json", records),
    )


def _measure(column: Column) -> Measure:
    def of(shown: Shown) -> float:
        raise NotImplementedError(f"{column.name} was measured before")

    return Measure(
        column.name, of, column.protocol, column.unit, column.better, column.digits, frozenset()
    )


def _of_sets(path: Path, records: tuple[Record, ...]) -> OfSets:
    """Return the numbers in ``table.json`` that no record has."""
    single = {name for record in records for name in record.values}
    try:
        rows = json.loads(path.read_bytes())["rows"]
        return {
            (row["task"], row["method"]): {
                name: math.nan if estimate["mean"] is None else float(estimate["mean"])
                for name, estimate in row["values"].items()
                if name not in single
            }
            for row in rows
            if not row["source"]
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} is damaged: {error}", do="take it away") from error


def _refuse(path: Path, error: ValidationError) -> NoReturn:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    raise SettingsError(
        f"{path}{f', {where}' if where else ''}: {first['msg']}",
        do="run the comparison again, or mend it",
    ) from error


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _stem(name: str) -> str:
    """Return a name without the number that it ends in.

    >>> _stem("ddnm-20"), _stem("bicubic")
    ('ddnm', 'bicubic')
    """
    return re.sub(r"[-_]\d+$", "", name)
