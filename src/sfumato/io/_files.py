"""Small files below an address: read, written whole, made by one alone, listed, removed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import final

from sfumato.io.storage import (
    _OBJECTS,
    HIDDEN,
    _connect,
    _get,
    _hidden,
    _info,
    _make_folder,
    _protocol,
    _put_file,
)

#: Files that are fetched at once: each waits for the way there.
_AT_ONCE = 8
#: In these a file is there as a whole when it is there, and its making may be asked for.
_WHOLE = (*_OBJECTS, "memory")


@final
class Files:
    """What lies below an address, by names relative to it; "" is the folder itself.

    Errors are those of the store, FileNotFoundError and FileExistsError among them.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._store, self._root = _connect(url)
        self._whole = _protocol(url) in _WHOLE

    def names(self, name: str) -> set[str]:
        """List files and folders in a folder; none where there is no folder.

        What a kill left of a file that was being written is none of them.
        """
        there = self._at(name)
        self._store.invalidate_cache()
        with suppress(FileNotFoundError):
            found = self._store.ls(there, detail=False)
            names = {str(path).rstrip("/").rpartition("/")[2] for path in found}
            return {n for n in names if n and not n.startswith(HIDDEN)}
        return set()

    def read(self, name: str) -> bytes:
        """Return what is in a file."""
        return bytes(self._store.cat_file(self._at(name)))

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        """Return what is in each file."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self.read, names))

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which appears whole or not at all, in place of one that is there."""
        there = self._at(name)
        if self._whole:
            self._store.pipe_file(there, content)
            return
        _make_folder(self._store, there.rpartition("/")[0], self._url)
        hidden = _hidden(there)
        self._store.pipe_file(hidden, content)
        self._store.mv(hidden, there)

    def create(self, name: str, content: bytes) -> None:
        """Make a file; FileExistsError where there is one.

        Of several that try at once one has it, in all stores that can promise that.
        """
        there = self._at(name)
        try:
            if self._whole:
                self._store.pipe_file(there, content, mode="create")
                return
            _make_folder(self._store, there.rpartition("/")[0], self._url)
            with self._store.open(there, "xb") as file:
                file.write(content)
        except (NotImplementedError, ValueError):  # it can promise nothing
            self._store.pipe_file(there, content, mode="create")
        except FileExistsError:
            raise
        except OSError as error:
            self._store.invalidate_cache()
            if self._store.exists(there):  # S3 says that a condition failed
                raise FileExistsError(there) from error
            raise

    def put(self, path: Path, name: str) -> None:
        """Copy a file of this machine there, whole or not at all."""
        _put_file(self._store, path, self._at(name), self._url)

    def get(self, name: str, path: Path) -> None:
        """Copy a file to this machine."""
        there = self._at(name)
        _get(self._store, there, path, _info(self._store, there).get("size"))

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""
        self._store.invalidate_cache()
        with suppress(FileNotFoundError):
            self._store.rm(self._at(name), recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root
