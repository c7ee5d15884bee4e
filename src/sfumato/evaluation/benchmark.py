"""A benchmark as a stream of events: every picture, task and method, done once and kept.

What is done is known by a key, a digest of all that decides a result: the prepared picture, the
degradation, the seed, and the method with its settings and its model. A run that was killed goes
on where it was; one whose methods were changed does what changed. The folder is that of
``sfumato.evaluation.record``.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias, final

from torch import Tensor

from sfumato.errors import DegradationError, ImageError, SettingsError, ShapeError
from sfumato.evaluation.choice import Chosen
from sfumato.evaluation.data_sets import Photograph, load_photograph
from sfumato.evaluation.measure import SetMeasure, Shown
from sfumato.evaluation.others import Folder
from sfumato.evaluation.pairs import PictureFiles
from sfumato.evaluation.posed import (
    Answer,
    Contender,
    Posed,
    digest_of,
    digest_of_pixels,
    eight_bits,
    pose,
)
from sfumato.evaluation.recipe import Recipe, TaskPart
from sfumato.evaluation.record import (
    Record,
    append_record,
    read_records,
    read_sets,
    write_sets,
)
from sfumato.io import Picture as Stored
from sfumato.io import read_picture, write_picture
from sfumato.operators import parse

#: Of results: what a newer version would make otherwise has another one.
FORMAT = 1

#: Seeds of the samples of a picture are so far apart that no two pictures share one.
_APART = 1 << 20

#: What a contender may say about a picture it cannot do.
_REFUSALS = (SettingsError, DegradationError, ShapeError, ImageError)


@final
@dataclass(frozen=True)
class Planned:
    """So many results are asked for."""

    total: int


@final
@dataclass(frozen=True)
class Began:
    """A result is being made."""

    task: str
    method: str
    picture: str
    done: int
    total: int


@final
@dataclass(frozen=True)
class Finished:
    """A result is there: ``kept`` if it was before, with all its numbers."""

    record: Record
    kept: bool
    done: int
    total: int


Event: TypeAlias = Planned | Began | Finished


@final
@dataclass(frozen=True)
class Benchmark:
    """Who does what with which pictures, and where results go: ``folder``, which may be there.

    ``source`` is the folder of the pictures by name, ``labels`` their classes.
    """

    recipe: Recipe
    photographs: Sequence[Photograph]
    contenders: Sequence[Contender]
    chosen: Chosen
    folder: Path
    source: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise SettingsError where two contenders have one name, or there is none."""
        names = [c.name for c in self.contenders]
        twice = [name for name in names if names.count(name) > 1]
        if twice or not names:
            raise SettingsError(
                f"two methods called {twice[0]}" if twice else "no method",
                expected="methods of different names",
            )


def run_benchmark(b: Benchmark) -> Generator[Event, None, list[Record]]:
    """Do all that is not done, and return the records, task by task and method by method.

    Closing the generator, or a kill, loses the one result that is being made. Contenders that
    cannot do a task have records that say why; these are tried again at each run.

    Raises ModelError for models that cannot be loaded, OutputError and OSError where results
    cannot be written.
    """
    asked = list(_asked(b))
    yield Planned(len(asked))
    b.folder.mkdir(parents=True, exist_ok=True)
    earlier = {(r.task, r.method, r.picture): r for r in read_records(b.folder)}
    records: list[Record] = []
    for task, contender, photograph in asked:
        at = (task.name, contender.name, photograph.name)
        yield Began(*at, len(records), len(asked))
        before = earlier.get(at)
        record = _record(b, task, contender, photograph, before)
        kept = before is not None and same(record, before)
        if not kept:
            append_record(b.folder, record)
        records.append(record)
        yield Finished(record, kept, len(records), len(asked))
    return records


def numbers_of_sets(
    b: Benchmark, records: Sequence[Record]
) -> Generator[Began, None, dict[tuple[str, str], dict[str, float]]]:
    """Measure the results of each task and method as a set, against the photographs of them.

    What has fewer than two results has no such numbers; what was measured before, of the same
    results in the same way, is not measured again. Raises as the measures do.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records if b.chosen.sets else ():
        if record.result is not None:
            groups.setdefault((record.task, record.method), []).append(record)
    found: dict[tuple[str, str], dict[str, float]] = {}
    references = PictureFiles([])
    known = read_sets(b.folder) if groups else {}
    for k, ((task, method), own) in enumerate(groups.items()):
        yield Began(task, method, f"{len(own)} pictures as a set", k, len(groups))
        if len(own) < 2:
            continue
        files = [b.folder / "references" / f"{r.picture}.png" for r in own]
        if tuple(files) != references.files:
            references = PictureFiles(files)
        results = PictureFiles([b.folder / str(r.result) for r in own])
        numbers = found[task, method] = {}
        for measure in b.chosen.sets:
            key = _key_of_set(measure, own)
            if key not in known:
                known[key] = measure.of(results, references)
                write_sets(b.folder, known)
            numbers[measure.name] = known[key]
    return found


def _key_of_set(measure: SetMeasure, records: Sequence[Record]) -> str:
    told = [measure.name, measure.protocol, sorted((r.picture, r.key) for r in records)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _asked(b: Benchmark) -> Iterator[tuple[TaskPart, Contender, Photograph]]:
    """Go through tasks, methods and pictures, the pictures fastest."""
    for task in b.recipe.tasks:
        for contender in b.contenders:
            if not contender.tasks or task.name in contender.tasks:
                there = contender.at(task.name) if isinstance(contender, Folder) else contender
                for photograph in b.photographs:
                    yield task, there, photograph


def _record(
    b: Benchmark,
    task: TaskPart,
    contender: Contender,
    photograph: Photograph,
    before: Record | None,
) -> Record:
    """Return the record of a result, made anew where the one before is of another key."""
    record = Record(task.name, contender.name, photograph.name, key="")
    try:
        x = load_photograph(photograph, b.recipe.data)
        posed = pose(task.degradation, photograph.name, x, b.recipe.seed + photograph.number)
        posed = replace(posed, folder=photograph.folder)
        identity = dict(contender.identity(photograph.name))
        identity |= {"samples": contender.samples} if contender.samples > 1 else {}
        record = replace(record, key=key_of(posed, x, identity))
        if before is not None and before.key == record.key and _stands(b, before, contender):
            paths = _samples_of(b.folder / str(before.result), contender)
            answers = [Answer(read_picture(path).pixels) for path in paths]
            return _measured(b, before, posed, x, answers)
        return _made(b, contender, posed, x, record)
    except _REFUSALS as error:
        return replace(record, refused=str(error))


def _stands(b: Benchmark, before: Record, contender: Contender) -> bool:
    """Tell whether a result is there, and the numbers that only its making can tell."""
    lacking = [m for m in b.chosen.single if m.name not in before.values]
    seen = all("tiles" not in m.needs for m in lacking)
    if before.result is None or not seen:
        return False
    return all(path.is_file() for path in _samples_of(b.folder / before.result, contender))


def _samples_of(result: Path, contender: Contender) -> list[Path]:
    """Return the files of all samples of a picture, of which the first is the result."""
    others = range(2, contender.samples + 1)
    return [result, *(result.with_name(f"{result.stem}.sample-{k}.png") for k in others)]


def key_of(posed: Posed, x: Tensor, identity: Mapping[str, object]) -> str:
    """Return the digest of all that decides a result, files that the degradation names too."""
    files = [link.file for link in parse(posed.degradation).links if link.file is not None]
    told = {
        "format": FORMAT,
        "degradation": posed.degradation,
        "files": [digest_of(file) for file in files],
        "seed": posed.seed,
        "picture": digest_of_pixels(x),
        "method": dict(identity),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _made(b: Benchmark, contender: Contender, posed: Posed, x: Tensor, record: Record) -> Record:
    """Restore, keep the pictures, and measure."""
    began = time.perf_counter()
    answer = contender.answer(posed)
    seconds = time.perf_counter() - began
    name = f"{posed.picture}.png"
    _keep(b.folder / "references" / name, x)
    seen = posed.y if posed.is_picture else posed.A.pinv(posed.y[None])[0]
    _keep(b.folder / "inputs" / record.task / name, eight_bits(seen))
    result = Path("results", record.task, record.method, name)
    answers = []
    for k, path in enumerate(_samples_of(b.folder / result, contender)):
        if k:
            answer = contender.answer(replace(posed, seed=posed.seed + k * _APART))
        answers.append(replace(answer, x=eight_bits(answer.x)))  # what counts is the file's
        write_picture(Stored(answers[k].x), path)
    record = replace(
        record,
        seconds=round(seconds, 4),
        evaluations=answers[0].evaluations,
        result=result.as_posix(),
        values={},
    )
    return _measured(b, record, posed, x, answers)


def _measured(
    b: Benchmark, record: Record, posed: Posed, x: Tensor, answers: Sequence[Answer]
) -> Record:
    """Add the numbers that the record lacks; of what is not known (tiles) they are NaN."""
    shown = Shown(
        answers[0].x,
        reference=x,
        measurement=posed.y,
        degradation=posed.degradation,
        tiles=answers[0].tiles,
        samples=[answer.x for answer in answers[1:]],
        label=b.labels.get(record.picture),
    )
    values = dict(record.values)
    for measure in b.chosen.single:
        if measure.name not in values:
            able = all(shown.has(need) for need in measure.needs)
            values[measure.name] = measure.of(shown) if able else math.nan
    return replace(record, values=values)


def _keep(path: Path, x: Tensor) -> None:
    """Write a picture, unless it is there."""
    if path.is_file():
        there = read_picture(path).pixels
        if there.shape == x.shape and digest_of_pixels(there) == digest_of_pixels(x):
            return
    write_picture(Stored(x), path)


def same(a: Record, b: Record) -> bool:
    """Tell whether two records say the same; a time that is no number equals another one."""
    return repr(a) == repr(b)
