"""What is kept of a comparison: a line for each result, in a folder that outlives an interruption.

FOLDER/references/PICTURE.png            the photographs
FOLDER/inputs/TASK/PICTURE.png           what was made of them
FOLDER/results/TASK/METHOD/PICTURE.png   what was made of that
FOLDER/records.jsonl                     a record a line, appended when a result is done
FOLDER/sets.json                        numbers of sets, by digests of what they tell of
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import final

from sfumato.errors import ImageError
from sfumato.io import atomic_path

RECORDS = "records.jsonl"
SETS = "sets.json"


@final
@dataclass(frozen=True)
class Record:
    """How one method did with one picture of one task.

    ``key`` is a digest of all that decides the result: a record of another key is out of date.
    ``values`` are by the names of measures; ``seconds`` is the time of restoring; ``evaluations``
    counts those of the network for a tile. ``result`` is the file, relative to the folder.
    ``refused`` says why there is none.
    """

    task: str
    method: str
    picture: str
    key: str
    values: Mapping[str, float] = field(default_factory=dict)
    seconds: float = math.nan
    evaluations: int | None = None
    result: str | None = None
    refused: str = ""


def append_record(folder: Path, record: Record) -> None:
    """Write a record durably at the end of the folder's list.

    A number that is none is written as ``null``, an infinite one as a text. Raises OSError.
    """
    line = json.dumps(
        {name: _plain(value) for name, value in asdict(record).items()}, allow_nan=False
    )
    with (folder / RECORDS).open("a+b") as file:
        if file.tell() and not _ends_a_line(folder / RECORDS):
            file.write(b"\n")  # what a kill left of the last line
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_records(folder: Path) -> list[Record]:
    """Return the last record of each task, method and picture, in the order of their first ones.

    A half line, which a kill may leave, is passed over. Raises ImageError for a line that is
    whole and no record.
    """
    found: dict[tuple[str, str, str], Record] = {}
    path = folder / RECORDS
    if not path.is_file():
        return []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        try:
            seconds = values["seconds"]
            values["seconds"] = math.nan if seconds is None else float(seconds)
            numbers = values["values"].items()
            values["values"] = {k: math.nan if v is None else float(v) for k, v in numbers}
            record = Record(**values)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ImageError(
                f"{path}, line {number}, is no record: {error}",
                do="take the line out; what it stood for is done again",
            ) from error
        found[record.task, record.method, record.picture] = record
    return list(found.values())


def read_sets(folder: Path) -> dict[str, float]:
    """Return the numbers of sets that were measured before, by the digests of all they tell of.

    Raises ImageError for a file that holds something else.
    """
    path = folder / SETS
    if not path.is_file():
        return {}
    try:
        return {str(key): float(number) for key, number in json.loads(path.read_bytes()).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ImageError(
            f"{path} holds no numbers of sets", do="remove it; they are measured again"
        ) from error


def write_sets(folder: Path, numbers: Mapping[str, float]) -> None:
    """Keep the numbers of sets, whole or not at all."""
    with atomic_path(folder / SETS) as temporary:
        temporary.write_text(json.dumps(dict(numbers), indent=1) + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
