"""Parts of a remote file, in a copy that has holes; and those parts that a tiled TIFF needs."""

import mmap
import os
import shutil
import struct
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import ImageError, SfumatoError
from sfumato.io._atomic import _output_error
from sfumato.io._exif import _LAYOUTS, _POINTERS, _entries, _Layout, _numbers, _read_directory
from sfumato.io.storage import FULL, _connect, _get, _info, _url, name_of, reaching

#: Parts are fetched in blocks of so many bytes; of so many at most at a time, several at once.
_BLOCK, _MOST_BLOCKS, _AT_ONCE = 2**18, 32, 8
_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT, _STARTS, _SIZES = 256, 257, 322, 323, 324, 325


@final
class PartialCopy:
    """A file as long as a remote one, that holds those of its bytes that were asked for.

    For one thread at a time. It takes the room of what was asked for, and is gone with the object.

    Attributes:
        url: the address.
        path: the copy; bytes that were not asked for are zeros.
        size: in bytes.

    Raises:
        ImageError: as `fetch`.
        OutputError: no room in ``folder`` (None is the system's temporary one).

    Example:
        >>> sfumato.io.storage.put("photo.png", "memory://bucket/in.png")
        >>> copy = PartialCopy("memory://bucket/in.png")
        >>> copy.fill(range(0, 8))
        >>> copy.path.read_bytes()[1:4]
        b'PNG'
    """

    def __init__(self, place: str | Path, folder: str | Path | None = None) -> None:
        self.url = _url(place)
        with reaching(self.url, ImageError):
            self._store, self._there = _connect(self.url)
            info = _info(self._store, self._there)
        with _room_in(folder):
            if folder:
                Path(folder).mkdir(parents=True, exist_ok=True)
            parent = tempfile.mkdtemp(prefix=".sfumato-", suffix=".part", dir=folder)
            weakref.finalize(self, shutil.rmtree, parent, ignore_errors=True)
            self.path = Path(parent) / name_of(self.url)
            self.path.touch()
            self.size = int(info.get("size") or 0)
            os.truncate(self.path, self.size)
        self._folder = folder
        self._missing = set(range(-(-self.size // _BLOCK)))
        if info.get("size") is None or info.get("partial") is False:
            self._fill_whole()

    def fill(self, *parts: range) -> None:
        """Get bytes that are missing; what lies beyond the end is none.

        Raises:
            ImageError: no way there.
            OutputError: no room.
        """
        inside = [range(p.start, min(p.stop, self.size)) for p in parts]
        blocks = {k for p in inside if p for k in range(p.start // _BLOCK, -(-p.stop // _BLOCK))}
        runs = list(_runs(sorted(blocks & self._missing)))
        for i in range(0, len(runs), _AT_ONCE):
            self._fill_runs(runs[i : i + _AT_ONCE])

    def _fill_runs(self, runs: list[range]) -> None:
        parts = [range(r.start * _BLOCK, min(r.stop * _BLOCK, self.size)) for r in runs]
        with reaching(self.url, ImageError):
            found = self._store.cat_ranges(
                [self._there] * len(parts),
                [p.start for p in parts],
                [p.stop for p in parts],
                on_error="raise",
            )
        if [len(data) for data in found] != [len(p) for p in parts]:
            self._fill_whole()  # the server gives no parts
            return
        with _room_in(self._folder), self.path.open("r+b") as file:
            for part, data in zip(parts, found, strict=True):
                file.seek(part.start)
                file.write(data)
        self._missing.difference_update(*runs)

    def _fill_whole(self) -> None:
        with _room_in(self._folder), reaching(self.url, ImageError, here=FULL):
            _get(self._store, self._there, self.path, None)
        self.size, self._missing = self.path.stat().st_size, set()

    @contextmanager
    def named(self) -> Iterator[None]:
        """Let errors about the copy name the address."""
        try:
            yield
        except ImageError as error:
            raise ImageError(str(error).replace(str(self.path), self.url)) from error


def _runs(blocks: list[int]) -> Iterator[range]:
    """Yield blocks that follow each other as one, up to a limit."""
    start = 0
    for i in range(1, len(blocks) + 1):
        if i == len(blocks) or blocks[i] - blocks[start] != i - start or i - start == _MOST_BLOCKS:
            yield range(blocks[start], blocks[i - 1] + 1)
            start = i


@contextmanager
def _room_in(folder: str | Path | None) -> Iterator[None]:
    try:
        yield
    except SfumatoError:
        raise
    except OSError as error:
        raise _output_error(folder or "the temporary folder", error) from error


@dataclass(frozen=True)
class Tiles:
    """Where the tiles of a TIFF lie in the file, row by row."""

    starts: NDArray[np.uint64]
    sizes: NDArray[np.uint64]
    n_across: int
    tile: tuple[int, int]

    def parts(self, left: int, top: int, width: int, height: int) -> list[range]:
        """Return the bytes of the tiles that a window meets."""
        high, wide = self.tile
        rows = range(top // high, (top + height - 1) // high + 1)
        columns = range(left // wide, (left + width - 1) // wide + 1)
        numbers = [i * self.n_across + j for i, j in product(rows, columns)]
        known = [k for k in numbers if k < min(len(self.starts), len(self.sizes))]
        return [_part(int(self.starts[k]), int(self.sizes[k])) for k in known]


def copy_head(
    place: str | Path, folder: str | Path | None = None
) -> tuple[PartialCopy, Tiles | None]:
    """Fetch of a tiled TIFF all but its pixels, and its first tile; of other files all.

    What looks at the copy alone, such as `picture_shape` or a dry run, takes it for the file.

    Raises:
        ImageError: as `PartialCopy`.
        OutputError: as `PartialCopy`.
    """
    copy = PartialCopy(place, folder)
    tiles = _fill_tiff(copy)
    copy.fill(*(tiles.parts(0, 0, 1, 1) if tiles else [range(copy.size)]))
    return copy, tiles


def _fill_tiff(copy: PartialCopy) -> Tiles | None:
    """Get all of a TIFF but its pixels; return None for what is no tiled TIFF, or is damaged."""
    copy.fill(range(16))
    if copy.size < 16:
        return None
    with (
        copy.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        layout = _LAYOUTS.get(data[:4])
        if layout is None:
            return None
        first = layout.read_offset(data, layout.n_inline)
        try:
            _fill_directories(copy, data, first, layout)
        except struct.error:
            return None
        tags = _read_directory(data, first, layout)
    wanted = (_WIDTH, _TILE_WIDTH, _TILE_HEIGHT)
    width, wide, high = (int(max(_numbers(tags.get(tag)), default=0)) for tag in wanted)
    if not (width and wide and high):
        return None
    starts, sizes = _numbers(tags.get(_STARTS)), _numbers(tags.get(_SIZES))
    return Tiles(starts, sizes, -(-width // wide), (high, wide))


def _fill_directories(copy: PartialCopy, data: mmap.mmap, first: int, layout: _Layout) -> None:
    """Get the directories of all pages, with their values; struct.error where one is cut."""
    starts, seen = [first], {0}
    while starts:
        if (start := starts.pop()) in seen:
            continue
        seen.add(start)
        copy.fill(_part(start, 8))
        end = layout.first_line(start) + layout.n_line * layout.read_count(data, start)
        copy.fill(range(start, min(end + 8, copy.size)))
        lines = list(_entries(data, start, layout))
        copy.fill(*(_part(entry.position, entry.size) for entry in lines))
        inner = [e for e in lines if e.tag in _POINTERS and e.size == layout.n_inline]
        starts += [layout.read_offset(data, e.position) for e in inner]
        starts.append(layout.read_offset(data, end))


def _part(start: int, size: int) -> range:
    return range(start, start + size)
