"""A job in a folder of this machine, locked by ``flock`` (Linux, macOS)."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import final

from typing_extensions import override

from sfumato.errors import JobError, SfumatoError
from sfumato.io._atomic import _flush
from sfumato.io._job_store import JSON, LOCK, LOG, PART, PLAN, JobStore, plan_of_header

#: A job on its way out is renamed to this before anything in it is deleted.
_GONE = re.compile(r"\.sfumato-job-[0-9a-f]{16}")


@final
class JobFolder(JobStore):
    """``job.json`` is the header, ``records.jsonl`` the log, ``job.lock`` is what is locked."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.realpath(folder))  # a link would be renamed without its target
        self.where = self.folder
        self._lock, self._log = -1, -1

    @override
    def refusals(self) -> AbstractContextManager[None]:
        return _as_job_error(self.folder)

    @override
    def lock(self) -> None:
        _sweep(self.folder.parent)
        self._lock = _lock(self.folder)

    @override
    def check(self) -> None:
        pass  # a folder that is taken away is told of when something is written

    @override
    def header(self) -> dict[str, JSON] | None:
        content = None
        with suppress(NotADirectoryError):
            names = _names(self.folder)
            if names <= {PART, LOCK}:
                return None
            content = (self.folder / PLAN).read_bytes() if PLAN in names else None
        return plan_of_header(content, self.folder)

    @override
    def write_header(self, content: bytes) -> None:
        part = self.folder / PART
        part.write_bytes(content)
        _flush(part)
        part.replace(self.folder / PLAN)
        _flush(self.folder)

    @override
    def log(self) -> bytes:
        log = self.folder / LOG
        log.touch()
        return log.read_bytes()

    @override
    def cut(self, end: int) -> None:
        log = self.folder / LOG
        os.truncate(log, end)
        _flush(self.folder)
        _flush(self.folder.parent)
        self._log = os.open(log, os.O_RDWR | os.O_APPEND)

    @override
    def append(self, end: int, lines: bytes) -> None:
        state = os.fstat(self._log)
        if state.st_nlink == 0 or state.st_size < end:
            raise OSError(errno.ESTALE, "it was removed or cut while in use")
        os.ftruncate(self._log, end)
        try:
            for line in lines.splitlines(keepends=True):
                # One by one: of several that a power loss tears, a later one may be whole.
                if os.write(self._log, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._log)
        except OSError:
            os.ftruncate(self._log, end)  # or a later session would take it for durable
            raise

    @override
    def place(self, name: str) -> Path:
        return self.folder / name

    @override
    def save(self, name: str, write: Callable[[Path], None]) -> None:
        write(self.folder / name)

    @override
    def load(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.exists() else None

    @override
    def drop(self, name: str) -> None:
        path = self.folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    @override
    def clear(self) -> None:
        _discard(self.folder, self._lock)
        self.close()
        self.lock()

    @override
    def remove(self) -> None:
        _discard(self.folder, self._lock)

    @override
    def close(self) -> None:
        descriptors, self._log, self._lock = (self._log, self._lock), -1, -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)


def _lock(folder: Path) -> int:
    """Lock the folder, made if it is missing, until the returned descriptor is closed."""
    for _ in range(100):
        # Where another process removes the folder just now: once more.
        with suppress(FileNotFoundError, FileExistsError), ExitStack() as stack:
            JobFolder(folder).header()  # refuses what is not ours, before anything is made in it
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
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
    return os.path.samestat(os.fstat(lock), (folder / LOCK).stat())


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
