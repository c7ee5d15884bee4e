"""A job at an address: in a bucket, which knows neither appending nor locks.

    job.json            the header
    records/000001      the log, in parts of up to 64 kB; the last one is written anew as it grows
    locks/000001        who has the job; the highest number counts

A lock is made by exclusive creation, which object stores decide (``If-None-Match``). Its holder
writes it anew every few seconds. One that does not change for long was left by a process that is
gone, and the next number may be made; a process that finds a higher number, or another's lock
under its own, has lost the job. Nothing is told from clocks.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, final

from typing_extensions import override

from sfumato.errors import JobError
from sfumato.io._files import Files
from sfumato.io._job_store import FORMAT, JSON, KIND, PLAN, JobStore, plan_of_header
from sfumato.io.storage import reaching

_RECORDS, _LOCKS = "records", "locks"
#: A part of the log that is as long as this is not written to any more.
_PART_BYTES = 64 << 10
#: A holder writes its lock this often, and is taken for gone when it has not for so long; how
#: often others look. All in seconds.
_BEAT, _SILENCE, _LOOK = 10.0, 60.0, 1.0


@final
class JobBucket(JobStore):
    """A job below an address; see the module."""

    def __init__(self, url: str) -> None:
        self.where = self.url = url.rstrip("/")
        self._files = Files(self.url)
        self._lock: _Lease | None = None
        #: Where the last part of the log begins, its number, and what is in it.
        self._last: tuple[int, int, bytes] = (0, 1, b"")
        self._copies: tempfile.TemporaryDirectory[str] | None = None

    @override
    def refusals(self) -> AbstractContextManager[None]:
        return reaching(self.url, JobError, but=FileNotFoundError)

    @override
    def lock(self) -> None:
        self.header()  # refuses what is not ours, before anything is made in it
        self._lock = _Lease.take(self._files, self.url)

    @override
    def check(self) -> None:
        if self._lock:
            self._lock.check()

    @override
    def header(self) -> dict[str, JSON] | None:
        names = self._files.names("")
        if PLAN not in names:
            # What is left of a job that was removed a moment ago is no other's either.
            return None if names <= {_LOCKS} else plan_of_header(None, self.url)
        try:
            content = self._files.read(PLAN)
        except FileNotFoundError:
            return None  # it was removed just now
        return None if content == _GONE else plan_of_header(content, self.url)

    @override
    def write_header(self, content: bytes) -> None:
        if self._files.names("") - {_LOCKS}:
            self._empty()  # a removal that was killed
        self._files.write(PLAN, content)

    @override
    def log(self) -> bytes:
        parts = sorted(self._files.names(_RECORDS))
        contents = self._files.read_all([f"{_RECORDS}/{name}" for name in parts])
        if parts:
            start = sum(map(len, contents[:-1]))
            self._last = start, int(parts[-1]), contents[-1]
        return b"".join(contents)

    @override
    def cut(self, end: int) -> None:
        start, number, content = self._last
        if end < start:
            raise OSError(errno.EIO, "what is damaged is not at the end of the log")
        self._last = start, number, content[: end - start]

    @override
    def append(self, end: int, lines: bytes) -> None:
        self.check()
        start, number, content = self._last
        if len(content) >= _PART_BYTES:
            start, number, content = end, number + 1, b""
        content = content[: end - start] + lines
        self._files.write(f"{_RECORDS}/{number:06d}", content)
        self._last = start, number, content

    @override
    def place(self, name: str) -> str:
        return f"{self.url}/{name}"

    @override
    def save(self, name: str, write: Callable[[Path], None]) -> None:
        self.check()
        with tempfile.TemporaryDirectory(prefix="sfumato-") as folder:
            write(path := Path(folder) / name)
            self._files.put(path, name)

    @override
    def load(self, name: str) -> Path | None:
        if name not in self._files.names(""):
            return None
        if self._copies is None:
            self._copies = tempfile.TemporaryDirectory(prefix="sfumato-")
        path = Path(self._copies.name) / name
        self._files.get(name, path)
        return path

    @override
    def drop(self, name: str) -> None:
        self._files.remove(name)

    @override
    def clear(self) -> None:
        self._empty()

    @override
    def remove(self) -> None:
        self._empty()
        lease, self._lock = self._lock, None
        if lease:
            lease.end()
        self._files.remove("")

    @override
    def close(self) -> None:
        lease, self._lock = self._lock, None
        copies, self._copies = self._copies, None
        if copies:
            copies.cleanup()
        if lease:
            # A lock that cannot be removed is found to be silent by the next process.
            with suppress(JobError), self.refusals():
                lease.release()

    def _empty(self) -> None:
        """Remove all but the locks; a kill leaves a header that tells of it, until the end."""
        self.check()
        self._files.write(PLAN, _GONE)
        for name in sorted(self._files.names("") - {_LOCKS, PLAN}):
            self._files.remove(name)
        self._files.remove(PLAN)
        self._last = (0, 1, b"")


#: The header of a job that is being removed.
_GONE = json.dumps({"kind": KIND, "format": FORMAT, "removed": True}).encode()


#: The tokens of the locks that this process holds.
_HELD: set[str] = set()


@final
class _Lease:
    """A lock in a bucket, as long as its holder is heard of."""

    def __init__(self, files: Files, url: str, number: int, content: dict[str, Any]) -> None:
        self._files, self._url, self._number, self._content = files, url, number, content
        self._over = threading.Event()
        _HELD.add(content["token"])
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, files: Files, url: str) -> _Lease:
        """Make the lock; JobError where another process is at work."""
        mine = _me() | {"token": secrets.token_hex(8), "beat": 0}
        while True:
            highest, found = _holder(files)
            if found is not None and not _is_gone(files, highest, found, url):
                continue
            name = f"{_LOCKS}/{highest + 1:06d}"
            with suppress(FileExistsError):  # another was faster, or we were, and did not hear
                files.create(name, json.dumps(mine).encode())
            if _read(files, highest + 1) != mine:
                continue
            # Of those who saw the last holder gone, one may have come and gone in between.
            if _read(files, highest) == found:
                if highest:
                    files.remove(f"{_LOCKS}/{highest:06d}")
                return cls(files, url, highest + 1, mine)
            files.remove(name)

    def check(self) -> None:
        """Raise JobError where another process has the job."""
        highest, found = _holder(self._files)
        if found is None or (highest, found["token"]) != (self._number, self._content["token"]):
            who = "somebody" if found is None else found["who"]
            raise JobError(
                f"{self._url} was taken over by {who}, since this process was not heard of",
                do="leave it to that one, or give the same command again later",
            )

    def end(self) -> None:
        """Beat no more."""
        self._over.set()
        self._thread.join()
        _HELD.discard(self._content["token"])

    def release(self) -> None:
        """Let others have it; a lock that another holds is left."""
        self.end()
        found = _read(self._files, self._number)
        if found is not None and found["token"] == self._content["token"]:
            self._files.remove(self._name)

    @property
    def _name(self) -> str:
        return f"{_LOCKS}/{self._number:06d}"

    def _beat(self) -> None:
        while not self._over.wait(_BEAT):
            # What cannot be said now is said at the next beat; work itself asks with `check`.
            with suppress(JobError, FileNotFoundError), reaching(self._url, JobError):
                self.check()
                self._content = self._content | {"beat": self._content["beat"] + 1}
                self._files.write(self._name, json.dumps(self._content).encode())


def _holder(files: Files) -> tuple[int, dict[str, Any] | None]:
    """Return the highest number of a lock, and what it says; 0 and None where there is none."""
    numbers = [int(name) for name in files.names(_LOCKS) if name.isdigit()]
    highest = max(numbers, default=0)
    return highest, _read(files, highest)


def _read(files: Files, number: int) -> dict[str, Any] | None:
    if not number:
        return None
    try:
        content = json.loads(files.read(f"{_LOCKS}/{number:06d}"))
    except FileNotFoundError:
        return None
    except ValueError:
        content = None  # it is being written
    known = isinstance(content, dict) and "token" in content
    return content if known else {"who": "another process", "token": "", "beat": -1}


def _is_gone(files: Files, number: int, found: dict[str, Any], url: str) -> bool:
    """Wait until it is known whether a holder is gone; JobError where it is not."""
    end, now = time.monotonic() + _SILENCE, found
    alive = _lives(found)
    while alive is None and now == found and time.monotonic() < end:
        time.sleep(_LOOK)
        now = _read(files, number) or {}
    if not now:
        return False  # it was released
    if alive or (alive is None and now != found):
        raise JobError(f"{url} is in use by {now['who']}", do="wait for it")
    return True


def _me() -> dict[str, Any]:
    """Say who this process is, also for those who can look whether it still is."""
    pid = os.getpid()
    who = f"process {pid} on {os.uname().nodename}"
    return {"who": who, "machine": _machine(), "pid": pid, "born": _born(pid)}


def _lives(found: dict[str, Any]) -> bool | None:
    """Say whether a holder is at work; None where that is to be seen from its beats only."""
    if not _machine() or found.get("machine") != _machine():
        return None
    if found["pid"] == os.getpid():
        return found["token"] in _HELD
    return None if _born(int(found["pid"])) == found["born"] else False


def _machine() -> str:
    """Name this start of this machine, and those of its processes that see each other."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """Return when a process began, "" where there is none."""
    try:
        # The name, in brackets, may hold anything.
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if stat[0] == "Z" else stat[19]
