"""A job is a folder: what long work needs to go on after it was stopped, to the same bits.

``job.json`` holds the plan and never changes, ``records.jsonl`` grows by a line for each finished
tile, ``job.lock`` is locked by the process at work. Needs ``flock`` (Linux, macOS).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, final

from sfumato.errors import JobError, SfumatoError
from sfumato.io._atomic import _flush

JSON: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None

_KIND, _FORMAT = "sfumato job", 1
_PLAN, _PART, _LOG, _LOCK = "job.json", "job.json.part", "records.jsonl", "job.lock"
#: A job on its way out is renamed to this before anything in it is deleted.
_GONE = re.compile(r"\.sfumato-job-[0-9a-f]{16}")


@final
class Job:
    """The folder of a job, held by this process alone; ``Job.open`` makes it.

    ``folder`` is its place, ``plan`` what it was begun with. Any thread may record.

    Example:
        >>> with Job.open(Path("photo.job"), {"settings": {"seed": 3}}) as job:
        ...     job.record("level 0", 7, {"evaluations": 20})
        >>> with Job.open(Path("photo.job"), {"settings": {"seed": 3}}) as job:
        ...     print(job.done("level 0"))
        ...     job.remove()
        {7: {'evaluations': 20}}
    """

    @classmethod
    def open(cls, folder: Path, plan: Mapping[str, JSON], *, restart: bool = False) -> Job:
        """Begin the job, or go on with it; ``restart`` removes what is there and begins anew.

        ``plan`` is all that decides the result: settings, digests, geometry, precision, version.

        Raises:
            JobError: another plan; a folder that is no job, or a newer one; a process (this one
                included) has it open; a damaged log; no room, no permission.
            ValueError: the plan holds a number that JSON cannot say (infinity).
        """
        folder = Path(os.path.realpath(folder))  # a link would be renamed without its target
        wanted = json.loads(json.dumps(dict(plan), allow_nan=False))
        with _as_job_error(folder), ExitStack() as stack:
            _sweep(folder.parent)
            if restart:
                stack.callback(os.close, lock := _lock(folder))
                _discard(folder, lock)
                stack.close()
            stack.callback(os.close, lock := _lock(folder))
            if (was := _read_plan(folder)) is None:
                _write_plan(folder, wanted)
            else:
                _check_same(folder, was, wanted)
            job = cls(folder, wanted, lock)
            stack.pop_all()
        return job

    @staticmethod
    def plan_in(folder: Path) -> dict[str, JSON]:
        """Return the plan that a job was begun with; nothing where there is none.

        Raises JobError where the folder is no job, or a newer one.
        """
        with _as_job_error(folder), suppress(FileNotFoundError):
            return _read_plan(Path(os.path.realpath(folder))) or {}
        return {}

    def __init__(self, folder: Path, plan: dict[str, JSON], lock: int) -> None:
        self.folder, self.plan = folder, plan
        self._began, self._before = time.monotonic(), 0.0
        self._done: dict[str, dict[int, Mapping[str, JSON]]] = {}
        self._notes: dict[str, list[Mapping[str, JSON]]] = {}
        self._mutex = threading.Lock()
        log = folder / _LOG
        log.touch()
        #: Where the log ends, and the CRC32 of the plan and all lines up to there.
        self._tail = 0, zlib.crc32(_text(plan).encode())
        for line, entry, crc in _replay(log.read_bytes(), self._tail[1], log):
            self._tail = self._tail[0] + len(line), crc
            self._remember(entry)
            self._before = entry["seconds"]
        os.truncate(log, self._tail[0])
        _flush(folder)
        _flush(folder.parent)
        self._log, self._lock = os.open(log, os.O_RDWR | os.O_APPEND), lock

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
            JobError: no room, or the folder was removed; it is not recorded, and may be again.
            ValueError: it was recorded before, or the job is closed.
        """
        self._append(stage, number, data or {})

    def done(self, stage: str) -> dict[int, Mapping[str, JSON]]:
        """Return what was recorded of a stage, by number; the data as JSON gives them back."""
        return dict(self._done.get(stage, {}))

    def note(self, stage: str, data: Mapping[str, JSON]) -> None:
        """Write down facts about a stage, as durably as ``record`` and as often as wanted."""
        self._append(stage, None, data)

    def notes(self, stage: str) -> list[Mapping[str, JSON]]:
        """Return the notes about a stage, in their order."""
        return list(self._notes.get(stage, []))

    def path(self, name: str) -> Path:
        """Return where in the folder the caller may keep a file or folder of that name."""
        if name in ("", "..", _PLAN, _PART, _LOG, _LOCK) or Path(name).name != name:
            raise ValueError(f"{name!r} is not a free name in the folder of a job")
        return self.folder / name

    def remove(self) -> None:
        """Delete the folder with all that is in it, and close the job."""
        self._check_open()
        try:
            with _as_job_error(self.folder):
                _discard(self.folder, self._lock)
        finally:
            self.close()

    def close(self) -> None:
        """Let others have the folder."""
        with self._mutex:
            descriptors, self._log, self._lock = (self._log, self._lock), -1, -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def _append(self, stage: str, number: int | None, data: Mapping[str, JSON]) -> None:
        with self._mutex, _as_job_error(self.folder):
            self._check_open()
            if number in self._done.get(stage, {}):
                raise ValueError(f"{number} of {stage!r} is recorded already")
            seconds = round(self.seconds, 3)
            entry = {"stage": stage, "number": number, "data": dict(data), "seconds": seconds}
            end, crc = self._tail
            line, crc = _line(entry, crc)
            _write_line(self._log, end, line)
            self._tail = end + len(line), crc
            self._remember(json.loads(line))

    def _remember(self, entry: dict[str, Any]) -> None:
        if entry["number"] is None:
            self._notes.setdefault(entry["stage"], []).append(entry["data"])
        else:
            self._done.setdefault(entry["stage"], {})[entry["number"]] = entry["data"]

    def _check_open(self) -> None:
        if self._lock < 0:
            raise ValueError(f"the job {self.folder} is closed")


def _line(entry: Mapping[str, JSON], crc: int) -> tuple[bytes, int]:
    """Return an entry as a line of the log, and the CRC32 of the log with it."""
    body = json.dumps(entry, allow_nan=False)
    crc = zlib.crc32(body.encode(), crc)
    return f'{body[:-1]}, "crc": "{crc:08x}"}}\n'.encode(), crc


def _replay(content: bytes, crc: int, path: Path) -> Iterator[tuple[bytes, dict[str, Any], int]]:
    """Yield the lines, entries and CRCs of a log, without a last one torn by a power loss."""
    *lines, rest = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        body, _, found = line.rpartition(b', "crc": "')
        crc = zlib.crc32(body + b"}", crc)
        if found != b'%08x"}' % crc:
            if number == len(lines) and not rest:
                return
            raise JobError(f"line {number} of {path} is damaged", do="begin anew with --restart")
        yield line + b"\n", json.loads(body + b"}"), crc


def _write_line(log: int, end: int, line: bytes) -> None:
    """Append durably at ``end``; what lies beyond is the rest of a line that was interrupted."""
    state = os.fstat(log)
    if state.st_nlink == 0 or state.st_size < end:
        raise OSError(errno.ESTALE, "it was removed or cut while in use")
    os.ftruncate(log, end)
    try:
        if os.write(log, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(log)
    except OSError:
        os.ftruncate(log, end)  # or a later session would take it for durable
        raise


def _lock(folder: Path) -> int:
    """Lock the folder, made if it is missing, until the returned descriptor is closed."""
    for _ in range(100):
        # Where another process removes the folder just now: once more.
        with suppress(FileNotFoundError, FileExistsError), ExitStack() as stack:
            _read_plan(folder)  # refuses what is not ours, before anything is made in it
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            stack.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(lock, 400, 0).decode(errors="replace") or "another process"
                raise JobError(f"{folder} is in use by {holder}", do="wait for it") from None
            if _is_locked(folder, lock):
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
                stack.pop_all()
                return lock
    raise OSError(errno.ESTALE, "it is made and removed again and again")


def _is_locked(folder: Path, lock: int) -> bool:
    """Say whether the locked folder still is the one of that name."""
    return os.path.samestat(os.fstat(lock), (folder / _LOCK).stat())


def _read_plan(folder: Path) -> dict[str, JSON] | None:
    """Return the plan of the job, or None where none was begun; refuse what is not ours."""
    header = None
    with suppress(NotADirectoryError, ValueError, RecursionError):
        names = _names(folder)
        if names <= {_PART, _LOCK}:
            return None
        header = json.loads((folder / _PLAN).read_bytes()) if _PLAN in names else None
    if not isinstance(header, dict) or header.get("kind") != _KIND:
        raise JobError(f"{folder} is not a job of sfumato", do="choose a new or an empty folder")
    if header.get("format") != _FORMAT:
        raise JobError(
            f"{folder} is a job of format {header.get('format')}",
            expected=f"format {_FORMAT}",
            do="use the newer sfumato that began it, or another folder",
        )
    plan = header.get("plan")
    return plan if isinstance(plan, dict) else {}


def _names(folder: Path) -> set[str]:
    """Return what is in the folder, if anything; FileNotFoundError if it was removed just now."""
    if not folder.exists():
        return set()
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(place) as entries:
            names = {entry.name for entry in entries}
        if os.path.samestat(os.fstat(place), folder.stat()):
            return names
    finally:
        os.close(place)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _write_plan(folder: Path, plan: dict[str, JSON]) -> None:
    part = folder / _PART
    part.write_text(json.dumps({"kind": _KIND, "format": _FORMAT, "plan": plan}, indent=2) + "\n")
    _flush(part)
    part.replace(folder / _PLAN)
    _flush(folder)


def _check_same(folder: Path, was: dict[str, JSON], now: dict[str, JSON]) -> None:
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


def _discard(folder: Path, lock: int) -> None:
    """Delete the job that is locked; a kill in the middle leaves nothing of that name."""
    if not _is_locked(folder, lock):
        raise OSError(errno.ESTALE, "another job has taken its place")
    gone = folder.with_name(f".sfumato-job-{secrets.token_hex(8)}")
    folder.rename(gone)
    _flush(gone.parent)
    with suppress(FileNotFoundError):  # another process sweeps it away
        shutil.rmtree(gone)


@lru_cache(maxsize=64)  # a folder of 50,000 pictures is looked through once
def _sweep(parent: Path) -> None:
    """Delete what is left of jobs whose removal was killed, once in this process."""
    for path in parent.iterdir() if parent.is_dir() else ():
        if _GONE.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)  # another user's: it only takes room


@contextmanager
def _as_job_error(folder: Path) -> Iterator[None]:
    """Say in one line what the system refused, and that the same command goes on from there."""
    try:
        yield
    except SfumatoError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise JobError(
            f"{folder} cannot be used: {error.strerror or error}",
            do=f"{'make room' if full else 'put it right'}; the same command then goes on",
        ) from error
