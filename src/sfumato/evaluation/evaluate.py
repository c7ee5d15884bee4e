"""Measure the files of a method, by whatever program they were made, one after the other."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from sfumato.errors import ImageError, SettingsError, SfumatoError
from sfumato.evaluation.choice import Chosen
from sfumato.evaluation.learned import label_of
from sfumato.evaluation.measure import Need, Shown
from sfumato.evaluation.pairs import Pair, PictureFiles, read
from sfumato.evaluation.record import Record
from sfumato.evaluation.tables import Summary, as_json, summarise
from sfumato.pipeline.memory import available_bytes

#: What gives a measure what it needs.
_GIVEN_BY: dict[Need, str] = {
    "reference": "REFERENCES, a folder of the true pictures",
    "measurement": "--measurements FOLDER and --degradation TEXT",
    "tiles": "--tile and --overlap",
    "samples": "--samples, with several results of each picture (NAME.sample-2.png, …)",
    "label": "--labels FILE.csv, or folders named by numbers of classes",
}


@final
@dataclass(frozen=True)
class Known:
    """What is known about all results besides their files."""

    degradation: str | None = None
    tiles: tuple[int, int] | None = None
    labels: Mapping[str, int] | None = None


@final
@dataclass(frozen=True)
class Advanced:
    """``done`` of ``total`` steps; ``stage`` is what is worked on."""

    done: int
    total: int
    stage: str


@final
@dataclass(frozen=True)
class Evaluation:
    """What was measured: a record for each picture, and the summary of all."""

    records: Sequence[Record]
    summary: Summary
    chosen: Chosen
    references: PictureFiles

    def to_json(self) -> str:
        """Return the summary with its protocols, and the values of each picture, as JSON."""
        table = json.loads(as_json([self.summary], self.chosen.columns))
        values = {
            r.picture: {k: v if math.isfinite(v) else None for k, v in r.values.items()}
            for r in self.records
        }
        return json.dumps(table | {"pictures": values}, indent=2, allow_nan=False) + "\n"


def evaluate(
    pairs: Sequence[Pair],
    chosen: Chosen,
    known: Known | None = None,
    *,
    method: str = "results",
    seed: int = 0,
) -> Generator[Advanced, None, Evaluation]:
    """Measure results, whose files are `pairs`; yield how far it is, and return all numbers.

    ``method`` names the row; ``seed`` is that of the intervals. Of single pictures no more is in
    memory than one with what belongs to it.

    Raises SettingsError for measures that need what is not given, and for one picture where a set
    is measured; ImageError and ShapeError, with the name of the file, for what cannot be read, is
    too large for the memory, or has another size than its reference.
    """
    known = known or Known()
    _check(pairs, chosen, known)
    total = len(pairs) * (1 + 2 * len(set(chosen.extractors)))
    records = []
    for k, pair in enumerate(pairs):
        records.append(_record(pair, chosen, known, method))
        yield Advanced(k + 1, total, pair.key)
    of_set: dict[str, float] = {}
    references = PictureFiles([p.reference for p in pairs if p.reference])
    if chosen.sets:
        results = PictureFiles([p.result for p in pairs])
        done = len(pairs)
        for extractor in dict.fromkeys(chosen.extractors):
            for pictures in (results, references):
                for n in extractor.reading(pictures) if len(pictures) else ():
                    yield Advanced(done + n, total, f"features of {extractor.name}")
                done += len(pairs)
        of_set = {m.name: m.of(results, references) for m in chosen.sets}
    sets = {(_TASK, method): of_set}
    (summary,) = summarise(records, chosen.columns, sets=sets, seed=seed)
    return Evaluation(records, summary, chosen, references)


_TASK = "results"


def _check(pairs: Sequence[Pair], chosen: Chosen, known: Known) -> None:
    """Refuse before anything is read what would be refused at the end."""
    given: dict[Need, bool] = {
        "reference": all(p.reference for p in pairs),
        "measurement": all(p.measurement for p in pairs) and known.degradation is not None,
        "tiles": known.tiles is not None,
        "samples": all(p.samples for p in pairs),
        "label": known.labels is not None,
    }
    for measure in chosen.single:
        for need in sorted(measure.needs):
            if not given[need]:
                raise SettingsError(
                    f"{measure.name} without {need.rstrip('s')}s",
                    expected=_GIVEN_BY[need],
                    do="give that, or leave the measure out of --measures",
                )
    if not chosen.columns:
        raise SettingsError("no measures", expected="at least one")
    if chosen.sets and len(pairs) < 2:
        raise SettingsError(
            f"{chosen.sets[0].name} of {len(pairs)} picture",
            expected="a set of at least 2",
            do="leave it out of --measures",
        )
    if not given["reference"] and (lacking := [m.name for m in chosen.sets if m.compares]):
        raise SettingsError(f"{lacking[0]} without references", expected=_GIVEN_BY["reference"])


def _record(pair: Pair, chosen: Chosen, known: Known, method: str) -> Record:
    """Measure one result."""
    try:
        _check_memory(pair, chosen)
        if not chosen.single:
            return Record(_TASK, method, pair.key, key="")
        shown = Shown(
            result=read(pair.result),
            reference=None if pair.reference is None else read(pair.reference),
            measurement=None if pair.measurement is None else read(pair.measurement),
            degradation=known.degradation,
            tiles=known.tiles,
            samples=[read(path) for path in pair.samples],
            label=None if known.labels is None else label_of(pair.key, dict(known.labels)),
        )
        values = {m.name: float(m.of(shown)) for m in chosen.single}
    except SfumatoError as error:
        if str(pair.result) in str(error):
            raise
        beside = f" and {pair.reference}" if pair.reference else ""
        raise type(error)(f"{pair.result}{beside}: {error}") from error
    return Record(_TASK, method, pair.key, key="", values=values, result=str(pair.result))


def _check_memory(pair: Pair, chosen: Chosen) -> None:
    """Refuse a picture that is too large to be measured, before it is decoded."""
    from sfumato.io.windows import picture_shape

    _, height, width = picture_shape(pair.result)
    a_pixel = max((m.bytes_per_pixel for m in chosen.single), default=520)
    need = float(height * width) * (a_pixel + 24 * len(pair.samples))
    there = available_bytes()
    if need > there:
        raise ImageError(
            f"{pair.result} of {width} x {height} pixels needs about {need / 1e9:.1f} GB to be "
            "measured",
            expected=f"at most {there / 1e9:.1f} GB, which are free",
            do="leave out measures that need most (stlpips, lpips), or measure parts of it",
        )
