"""The growing result of a job: pixels on disk or in a bucket, written and read by windows.

Reference: Zarr core protocol 3, https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html
"""

import asyncio
import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import ImageError, OutputError, SfumatoError
from sfumato.io._atomic import _output_error, atomic_path
from sfumato.io.storage import address, make_folder, reaching

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store
    from zarr.storage import LocalStore

#: Stored values (height, width, channels), of 8 or 16 bits.
Values: TypeAlias = NDArray[np.generic]

_TYPES: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16)}
#: Files written at once: what each waits for is the disk's promise to keep it. As many are read
#: at once from a bucket.
_N_WRITERS = 8
_CACHE_BYTES = 128 * 2**20
#: Chunks of zeros are written too: removing their file instead would have to be made durable.
_CONFIG: Any = {"write_empty_chunks": True}


@final
class Canvas:
    """A picture of stored values, (height, width, channels), that grows window by window.

    A plain Zarr 3 array in a folder, or at any address that fsspec knows (``memory://…``,
    ``s3://…``). What was never written is 0. A chunk is compressed with a checksum, and its file
    is replaced as a whole by one that is on the disk already: a program that is killed, or a
    machine that stops, at any moment, loses only what was written since the last `sync`.

    One writer at a time, in one thread. A canvas that was opened for reading may see chunks as
    they were when it first read them.

    Attributes:
        where: the folder or address.
        height: in pixels.
        width: in pixels.
        channels: of each pixel.
        bits: of each value, 8 or 16.
        chunk: height and width of a chunk.
        metadata: what `create` was given.

    Example:
        >>> canvas = Canvas.create("photo.zarr", (480, 640, 3), 8, (128, 128), {"seed": 3})
        >>> canvas.write(100, 200, np.full((32, 64, 3), 7, np.uint8))
        >>> canvas.sync()
        >>> Canvas.open("photo.zarr").read(131, 263, 2, 2)[..., 0]
        array([[7, 0],
               [0, 0]], dtype=uint8)
    """

    def __init__(self, where: str, array: "zarr.Array[Any]", cache_bytes: int) -> None:
        self.where = where
        self.height, self.width, self.channels = array.shape
        self.bits = 8 * array.dtype.itemsize
        self.chunk = array.chunks[0], array.chunks[1]
        self.metadata: dict[str, object] = dict(array.attrs)
        self._array = array
        chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
        self._n_kept = max(1, cache_bytes // chunk_bytes)
        #: Chunks by row and column; those used last are at the end.
        self._chunks: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._unwritten: set[tuple[int, int]] = set()

    @classmethod
    def create(
        cls,
        where: str | Path,
        shape: tuple[int, int, int],
        bits: int,
        chunk: tuple[int, int],
        metadata: Mapping[str, object] | None = None,
        *,
        cache_bytes: int = _CACHE_BYTES,
    ) -> "Canvas":
        """Make a canvas of zeros, open for writing.

        Args:
            where: a folder, which must not exist or be empty, or an address with ``://``.
            shape: (height, width, channels).
            bits: 8 or 16.
            chunk: (height, width) of the chunks, best the steps of the tiles.
            metadata: a small dictionary that JSON can say.
            cache_bytes: chunks kept in memory.

        Raises:
            ImageError: a shape, bits or chunks that no canvas has.
            OutputError: something stands there; no room, no permission; no such kind of address.
        """
        import zarr
        from zarr.codecs import BloscCodec, Crc32cCodec

        if bits not in _TYPES or min(*shape, *chunk) < 1:
            raise ImageError(
                f"a canvas of shape {shape}, {bits} bits, in chunks of {chunk}",
                expected="positive numbers, and 8 or 16 bits",
            )
        attributes = _check_json(metadata or {})
        _check_free(where)
        if _folder(where) is None:
            make_folder(where)
        with _writing_to(where):
            array: zarr.Array[Any] = zarr.create_array(
                _open_store(where, writable=True),
                shape=shape,
                # Much larger chunks than the picture would only be larger files.
                chunks=(min(chunk[0], shape[0]), min(chunk[1], shape[1]), shape[2]),
                dtype=_TYPES[bits].name,
                # Measured on a photograph: a fifth smaller than zstd alone, and not slower.
                compressors=[
                    BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
                    Crc32cCodec(),
                ],
                fill_value=0,
                attributes=attributes,
                dimension_names=("y", "x", "c"),
                # All in one folder, rather than a folder for each chunk.
                chunk_key_encoding={"name": "default", "separator": "."},
                config=_CONFIG,
            )
        return cls(str(where), array, cache_bytes)

    @classmethod
    def open(
        cls, where: str | Path, writable: bool = False, *, cache_bytes: int = _CACHE_BYTES
    ) -> "Canvas":
        """Open a canvas; ``writable`` also removes what a writer that was killed left behind.

        Raises:
            ImageError: there is none, or it is damaged or none of sfumato's.
            OutputError: no permission to write; no such kind of address.
        """
        import zarr

        try:
            with _reaching(where, ImageError):
                array: zarr.Array[Any] = zarr.open_array(
                    _open_store(where, writable=writable),
                    mode="r+" if writable else "r",
                    zarr_format=3,
                    config=_CONFIG,
                )
        except SfumatoError:
            raise
        except FileNotFoundError as error:
            raise ImageError(f"there is no canvas {where}", do="check the name") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(where, error) from error
        if array.ndim != 3 or array.dtype not in _TYPES.values():
            raise ImageError(
                f"{where} is an array of {array.dtype}, shape {array.shape}",
                expected="8 or 16 bits, (height, width, channels)",
            )
        if writable and isinstance(array.store, _durable_store()):
            with _writing_to(where):
                for leftover in array.store.root.glob(".sfumato-*.part*"):
                    leftover.unlink()
        return cls(str(where), array, cache_bytes)

    def write(self, top: int, left: int, array: Values) -> None:
        """Write a window, (height, width, channels), of the canvas's type; durable after `sync`.

        Raises:
            ImageError: another type or number of channels; a window that is not inside; a chunk
                that is to be changed in part is damaged.
            OutputError: no room; not open for writing.
        """
        if self._array.read_only:
            raise OutputError(f"{self.where} is open for reading only", do="open it writable")
        if array.dtype != self._array.dtype or array.ndim != 3 or array.shape[2] != self.channels:
            raise ImageError(
                f"an array of {array.dtype}, shape {array.shape}",
                expected=f"{self._array.dtype}, (height, width, {self.channels})",
            )
        for key, inside, of_window in self._parts(top, left, *array.shape[:2]):
            part = array[of_window]
            whole = part.shape == self._shape(key)
            chunk = np.empty(part.shape, part.dtype) if whole else self._load(key)
            chunk[inside] = part
            self._unwritten.add(key)
            self._keep(key, chunk)

    def read(self, top: int, left: int, height: int, width: int) -> Values:
        """Return a window, (height, width, channels), with all that was written so far.

        Raises:
            ImageError: a window that is not inside; a chunk is damaged.
            OutputError: no room for chunks that had to make way.
        """
        window = np.empty((height, width, self.channels), _TYPES[self.bits])
        parts = list(self._parts(top, left, height, width))
        for i in range(0, len(parts), _N_WRITERS):
            some = parts[i : i + _N_WRITERS]
            chunks = self._load_all([key for key, _, _ in some])
            for (key, inside, of_window), chunk in zip(some, chunks, strict=True):
                window[of_window] = chunk[inside]
                self._keep(key, chunk)
        return window

    def sync(self) -> None:
        """Return when all that was written so far is on the disk, or in the bucket.

        Raises:
            OutputError: no room. What could not be written stays in memory: try again.
        """
        self._store(sorted(self._unwritten))

    def _parts(
        self, top: int, left: int, height: int, width: int
    ) -> Iterator[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
        """Yield the chunks that a window meets, and where they meet: in the chunk, in it."""
        inside = top + height <= self.height and left + width <= self.width
        if min(top, left) < 0 or min(height, width) < 1 or not inside:
            raise ImageError(
                f"a window of {width} × {height} pixels at ({left}, {top})",
                expected=f"one inside the canvas of {self.width} × {self.height}",
            )
        rows = list(_cut(top, top + height, self.chunk[0]))
        columns = list(_cut(left, left + width, self.chunk[1]))
        for (i, of_chunk, of_window), (j, chunk_across, across) in product(rows, columns):
            yield (i, j), (of_chunk, chunk_across), (of_window, across)

    def _place(self, key: tuple[int, int]) -> tuple[slice, slice]:
        """Return the pixels of a chunk."""
        (i, j), (high, wide) = key, self.chunk
        down = slice(i * high, min((i + 1) * high, self.height))
        return down, slice(j * wide, min((j + 1) * wide, self.width))

    def _shape(self, key: tuple[int, int]) -> tuple[int, int, int]:
        down, across = self._place(key)
        return down.stop - down.start, across.stop - across.start, self.channels

    def _load_all(self, keys: list[tuple[int, int]]) -> list[NDArray[Any]]:
        """Load chunks; from a bucket at once, because each waits for it."""
        if _folder(self.where) or len(keys) == 1:
            return [self._load(key) for key in keys]
        with ThreadPoolExecutor(_N_WRITERS) as pool:
            return list(pool.map(self._load, keys))

    def _load(self, key: tuple[int, int]) -> NDArray[Any]:
        chunk = self._chunks.get(key)
        if chunk is None:
            try:
                with _reaching(self.where, ImageError):
                    chunk = np.asarray(self._array[self._place(key)])
            except SfumatoError:
                raise
            except (OSError, ValueError) as error:
                raise _damaged(self.where, error) from error
        return chunk

    def _keep(self, key: tuple[int, int], chunk: NDArray[Any]) -> None:
        """Remember a chunk as the one used last; above the limit, let a quarter go."""
        self._chunks[key] = chunk
        self._chunks.move_to_end(key)
        if len(self._chunks) <= self._n_kept:
            return
        leaving = list(self._chunks)[: len(self._chunks) - max(1, self._n_kept * 3 // 4)]
        self._store([old for old in leaving if old in self._unwritten])
        for old in leaving:
            del self._chunks[old]

    def _store(self, keys: list[tuple[int, int]]) -> None:
        if not keys:
            return
        with _writing_to(self.where), ThreadPoolExecutor(_N_WRITERS) as pool:
            for _ in pool.map(self._store_one, keys):
                pass

    def _store_one(self, key: tuple[int, int]) -> None:
        self._array[self._place(key)] = self._chunks[key]
        self._unwritten.discard(key)


def _cut(start: int, stop: int, step: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield the chunks of one axis that meet an interval, and where: in the chunk, in it."""
    for i in range(start // step, (stop - 1) // step + 1):
        first, last = max(start, i * step), min(stop, (i + 1) * step)
        yield i, slice(first - i * step, last - i * step), slice(first - start, last - start)


def _folder(where: str | Path) -> Path | None:
    """Return the folder that an address stands for; None if it is elsewhere."""
    url = address(where) or ""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return None if url else Path(where)


def _check_free(where: str | Path) -> None:
    """Refuse a folder with something in it, of whatever kind."""
    folder = _folder(where)
    if folder and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputError(f"{where} exists already", do="choose another name, or remove it")


def _check_json(metadata: Mapping[str, object]) -> dict[str, Any]:
    try:
        json.dumps(attributes := dict(metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ImageError(
            f"metadata that are no JSON: {error}",
            expected="numbers, texts, lists and dictionaries",
        ) from error
    return attributes


def _open_store(where: str | Path, *, writable: bool) -> "Store":
    from zarr.storage import FsspecStore

    if folder := _folder(where):
        return _durable_store()(folder, read_only=not writable)
    url = address(where) or str(where)
    with reaching(url, OutputError):
        try:
            return FsspecStore.from_url(url, read_only=not writable)
        except ValueError as error:
            raise OutputError(f"{where} cannot be reached: {error}") from error


@cache
def _durable_store() -> "type[LocalStore]":
    """Return the kind of store that a folder is; made late, because zarr is imported late."""
    from zarr.core.buffer import Buffer
    from zarr.storage import LocalStore

    class DurableStore(LocalStore):
        """A folder whose files are on the disk before they replace others.

        LocalStore of zarr 3.1 renames without waiting for the disk: a machine that stops might
        then leave an empty file, where one was that an earlier sync had promised to keep.
        """

        async def set(self, key: str, value: Buffer) -> None:
            await asyncio.to_thread(self.set_sync, key, value)

        def set_sync(self, key: str, value: Buffer) -> None:
            with atomic_path(self.root / key) as temporary:
                temporary.write_bytes(value.to_bytes())

    return DurableStore


@contextmanager
def _writing_to(where: str | Path) -> Iterator[None]:
    """Turn what goes wrong on disks and in buckets into an OutputError."""
    from zarr.errors import ContainsArrayError

    try:
        with _reaching(where, OutputError):
            yield
    except SfumatoError:
        raise
    except ContainsArrayError as error:
        raise OutputError(f"{where} exists already", do="choose another address") from error
    except OSError as error:
        raise _output_error(where, error) from error


def _reaching(where: str | Path, kind: type[SfumatoError]) -> AbstractContextManager[None]:
    """Turn what goes wrong on the way to a bucket into one line."""
    if _folder(where):
        return nullcontext()
    return reaching(address(where) or str(where), kind, but=FileNotFoundError)


def _damaged(where: str | Path, error: Exception) -> ImageError:
    return ImageError(f"{where} is damaged or no canvas: {error}", do="begin it anew")
