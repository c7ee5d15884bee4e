"""A job is a folder: what long work needs to go on after it was stopped, to the same bits.

A header holds the plan and never changes, a log grows by a line for each finished tile, and one
process at a time has it all. The folder is on this machine (`_job_folder`) or at an address that
fsspec knows (`_job_bucket`).
"""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, final

from sfumato.errors import JobError
from sfumato.io._job_folder import JobFolder
from sfumato.io._job_store import FORMAT, JSON, KIND, LOCK, LOG, PART, PLAN, JobStore
from sfumato.io.storage import address

__all__ = ["JSON", "Job"]


def _store(where: str | Path) -> JobStore:
    url = address(where)
    if url is None:
        return JobFolder(Path(where))
    from sfumato.io._job_bucket import JobBucket

    return JobBucket(url)


@final
class Job:
    """The folder of a job, held by this process alone; ``Job.open`` makes it.

    ``folder`` is its place, a path or an address, ``plan`` what it was begun with. Any thread may
    record.

    Example:
        >>> with Job.open(Path("photo.job"), {"settings": {"seed": 3}}) as job:
        ...     job.record("level 0", 7, {"evaluations": 20})
        >>> with Job.open(Path("photo.job"), {"settings": {"seed": 3}}) as job:
        ...     print(job.done("level 0"))
        ...     job.remove()
        {7: {'evaluations': 20}}
    """

    @classmethod
    def open(cls, folder: str | Path, plan: Mapping[str, JSON], *, restart: bool = False) -> Job:
        """Begin the job, or go on with it; ``restart`` removes what is there and begins anew.

        ``plan`` is all that decides the result: settings, digests, geometry, precision, version.

        Raises:
            JobError: another plan; a folder that is no job, or a newer one; a process (this one
                included) has it open; a damaged log; no room, no permission, no way there.
            ValueError: the plan holds a number that JSON cannot say (infinity).
        """
        wanted = json.loads(json.dumps(dict(plan), allow_nan=False))
        store = _store(folder)
        with store.refusals(), ExitStack() as stack:
            stack.callback(store.close)
            store.lock()
            if restart:
                store.clear()
            if (was := store.header()) is None:
                header = {"kind": KIND, "format": FORMAT, "plan": wanted}
                store.write_header((json.dumps(header, indent=2) + "\n").encode())
            else:
                _check_same(store.where, was, wanted)
            job = cls(store, wanted)
            stack.pop_all()
        return job

    @staticmethod
    def plan_in(folder: str | Path) -> dict[str, JSON]:
        """Return the plan that a job was begun with; nothing where there is none.

        Raises JobError where the folder is no job, or a newer one.
        """
        store = _store(folder)
        with store.refusals(), suppress(FileNotFoundError):
            return store.header() or {}
        return {}

    def __init__(self, store: JobStore, plan: dict[str, JSON]) -> None:
        self._store, self.folder, self.plan = store, store.where, plan
        self._began, self._before = time.monotonic(), 0.0
        self._done: dict[str, dict[int, Mapping[str, JSON]]] = {}
        self._notes: dict[str, list[Mapping[str, JSON]]] = {}
        self._mutex, self._closed = threading.Lock(), False
        #: Where the log ends, and the CRC32 of the plan and all lines up to there.
        self._tail = 0, zlib.crc32(_text(plan).encode())
        for line, entry, crc in _replay(store.log(), self._tail[1], store.where):
            self._tail = self._tail[0] + len(line), crc
            self._remember(entry)
            self._before = entry["seconds"]
        store.cut(self._tail[0])

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seconds(self) -> float:
        """The seconds worked in all sessions; earlier ones count up to their last entry."""
        return self._before + time.monotonic() - self._began

    def record(self, stage: str, number: int, data: Mapping[str, JSON] | None = None) -> None:
        """Write down that a tile is finished; on return that is on the disk.

        Make what the tile wrote durable (fsync) BEFORE: a resume never looks at it again. After a
        kill in between the tile is written but not recorded, and is done once more.

        Raises:
            JobError: no room, or the folder was removed, or another process has taken it over; it
                is not recorded, and may be again.
            ValueError: it was recorded before, or the job is closed.
        """
        self._append(stage, [(number, data or {})])

    def record_all(self, stage: str, numbers: Sequence[int]) -> None:
        """Write down that tiles are finished, all or none of them; as ``record`` otherwise."""
        self._append(stage, [(number, {}) for number in numbers])

    def check(self) -> None:
        """Refuse to go on where another process has taken the job over, as JobError.

        That happens at an address only, to one that was not heard of for long.
        """
        with self._store.refusals():
            self._store.check()

    def done(self, stage: str) -> dict[int, Mapping[str, JSON]]:
        """Return what was recorded of a stage, by number; the data as JSON gives them back."""
        return dict(self._done.get(stage, {}))

    def note(self, stage: str, data: Mapping[str, JSON]) -> None:
        """Write down facts about a stage, as durably as ``record`` and as often as wanted."""
        self._append(stage, [(None, data)])

    def notes(self, stage: str) -> list[Mapping[str, JSON]]:
        """Return the notes about a stage, in their order."""
        return list(self._notes.get(stage, []))

    def path(self, name: str) -> Path | str:
        """Return where the caller may keep a file or folder of that name: a path, or an address.

        At an address only what writes there by itself, as a canvas, can use it.
        """
        return self._store.place(_free(name, self.folder))

    def save(self, name: str, write: Callable[[Path], None]) -> None:
        """Keep a file that ``write`` makes, durably and whole or not at all; JobError if not."""
        with self._store.refusals():
            self._store.save(_free(name, self.folder), write)

    def load(self, name: str) -> Path | None:
        """Return a file that was saved, or a copy of it that lasts as long as the job is open."""
        with self._store.refusals():
            return self._store.load(_free(name, self.folder))

    def drop(self, name: str) -> None:
        """Remove a file or folder, if it is there."""
        with self._store.refusals():
            self._store.drop(_free(name, self.folder))

    def remove(self) -> None:
        """Delete the folder with all that is in it, and close the job."""
        self._check_open()
        try:
            with self._store.refusals():
                self._store.remove()
        finally:
            self.close()

    def close(self) -> None:
        """Let others have the folder."""
        with self._mutex:
            self._closed = True
            self._store.close()

    def _append(
        self, stage: str, entries: Sequence[tuple[int | None, Mapping[str, JSON]]]
    ) -> None:
        with self._mutex, self._store.refusals():
            self._check_open()
            (end, crc), lines = self._tail, []
            for number, data in entries:
                if number in self._done.get(stage, {}):
                    raise ValueError(f"{number} of {stage!r} is recorded already")
                seconds = round(self.seconds, 3)
                entry = {"stage": stage, "number": number, "data": dict(data), "seconds": seconds}
                line, crc = _line(entry, crc)
                lines.append(line)
            self._store.append(end, b"".join(lines))
            self._tail = end + sum(map(len, lines)), crc
            for line in lines:
                self._remember(json.loads(line))

    def _remember(self, entry: dict[str, Any]) -> None:
        if entry["number"] is None:
            self._notes.setdefault(entry["stage"], []).append(entry["data"])
        else:
            self._done.setdefault(entry["stage"], {})[entry["number"]] = entry["data"]

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"the job {self.folder} is closed")


def _free(name: str, folder: Path | str) -> str:
    if name in ("", "..", *_TAKEN) or Path(name).name != name:
        raise ValueError(f"{name!r} is not a free name in the job {folder}")
    return name


#: What a job itself keeps, in either kind of folder.
_TAKEN = (PLAN, PART, LOG, LOCK, "records", "locks")


def _line(entry: Mapping[str, JSON], crc: int) -> tuple[bytes, int]:
    """Return an entry as a line of the log, and the CRC32 of the log with it."""
    body = json.dumps(entry, allow_nan=False)
    crc = zlib.crc32(body.encode(), crc)
    return f'{body[:-1]}, "crc": "{crc:08x}"}}\n'.encode(), crc


def _replay(
    content: bytes, crc: int, where: Path | str
) -> Iterator[tuple[bytes, dict[str, Any], int]]:
    """Yield the lines, entries and CRCs of a log, without a last one torn by a power loss."""
    *lines, rest = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        body, _, found = line.rpartition(b', "crc": "')
        crc = zlib.crc32(body + b"}", crc)
        if found != b'%08x"}' % crc:
            if number == len(lines) and not rest:
                return
            raise JobError(
                f"line {number} of the log of {where} is damaged", do="begin anew with --restart"
            )
        yield line + b"\n", json.loads(body + b"}"), crc


def _check_same(folder: Path | str, was: dict[str, JSON], now: dict[str, JSON]) -> None:
    found = list(_differences(was, now, ""))
    if found:
        more = [f"and {len(found) - 3} more"] if len(found) > 3 else []
        raise JobError(
            f"{folder} was begun with another plan: {', '.join(found[:3] + more)}",
            do="use the earlier settings, or begin anew with --restart",
        )


def _differences(was: object, now: object, name: str) -> Iterator[str]:
    """Yield what changed, as ``settings.seed was 3, is 4``; ``...`` stands for nothing."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in was | now:
            inner = f"{name}.{key}" if name else key
            yield from _differences(was.get(key, ...), now.get(key, ...), inner)
    elif _text(was) != _text(now):
        yield f"{name} was {_shown(was)}, is {_shown(now)}"


def _text(value: object) -> str:
    return "nothing" if value is ... else json.dumps(value, sort_keys=True, allow_nan=False)


def _shown(value: object) -> str:
    text = _text(value)
    if re.fullmatch('"[0-9a-f]{32,}"', text):
        return text[1:13]
    return text if len(text) <= 60 else f"{text[:57]}..."
