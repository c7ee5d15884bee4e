"""Results larger than memory: from a canvas to the final file, band by band."""

import base64
import os
import secrets
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from sfumato.errors import ImageError, OutputError, SettingsError
from sfumato.io._atomic import _flush, _output_error, atomic_path, check_place
from sfumato.io._exif import check_tiles, describe_tiff
from sfumato.io._formats import vips_reason
from sfumato.io._read import icc_fits
from sfumato.io._write import (
    CLASSIC_TIFF_LIMIT_BYTES,
    DEFAULT_RESOLUTION,
    Description,
    check_output,
    describe,
    round_values,
    save_options,
    save_to_file,
    stored_bits,
)
from sfumato.io.canvas import Canvas, Values

if TYPE_CHECKING:
    import OpenImageIO

#: (top, left, height, width) to alpha (1, height, width) in [0, 1].
AlphaWindows: TypeAlias = Callable[[int, int, int, int], Tensor]

#: Side of the tiles of a TIFF and of the chunks of a Zarr array.
_TILE = 256
#: Of the largest block that is held at once.
_BLOCK_BYTES = 16 * 2**20


@runtime_checkable
class Pixels(Protocol):
    """Stored values that can be read by windows, such as a `Canvas`."""

    @property
    def height(self) -> int:
        """In pixels."""

    @property
    def width(self) -> int:
        """In pixels."""

    @property
    def channels(self) -> int:
        """1 or 3."""

    @property
    def bits(self) -> int:
        """Of each value, 8 or 16."""

    def read(self, top: int, left: int, height: int, width: int) -> Values:
        """Return a window, (height, width, channels)."""


def check_master(target: str | Path, size: tuple[int, int], bits: int, alpha: bool) -> str:
    """Return the format that `write_master` will write; refuse now what would fail hours later.

    ========================  =======================  ====  ==============================
    name                      longest side             bits  alpha
    ========================  =======================  ====  ==============================
    .tif, .tiff               2³¹ − 1                  8/16  yes; BigTIFF from 4 GB on
    .png                      2³¹ − 1                  8/16  yes
    .jpg, .jpeg               65,500                   8     no
    .webp                     16,383                   8     yes; held in memory as a whole
    .zarr (a folder)          any                      8/16  as a last channel
    ========================  =======================  ====  ==============================

    Args:
        target: the file or folder that will be written.
        size: (height, width).
        bits: bits of each value, 8 or 16. What a format cannot keep is rounded.
        alpha: whether there will be transparent parts.

    Raises:
        OutputError: as `check_output`; a folder for Zarr that exists already.
        ImageError: sizes or bits that no picture has.

    Example:
        >>> check_master("gigapixel.tif", (40_000, 60_000), 16, alpha=True)
        'tiff'
    """
    if bits not in (8, 16) or min(size) < 1:
        raise ImageError(
            f"a picture of {size[1]} × {size[0]} pixels, {bits} bits",
            expected="positive sizes, and 8 or 16 bits",
        )
    path = Path(target)
    if path.suffix.lower() != ".zarr":
        return check_output(path, alpha=alpha, size=size)
    if path.exists() or path.is_symlink():
        raise OutputError(f"{path} exists already", do="choose another name, or remove it")
    check_place(path)
    return "zarr"


def write_master(
    canvas: Pixels,
    target: str | Path,
    like: Description,
    *,
    alpha: AlphaWindows | None = None,
    quality: int = 95,
    lossless: bool = True,
    token: str = "",
) -> None:
    """Write what a canvas holds in the format that the name ends in, within bounded memory.

    TIFF is tiled, and BigTIFF from 4 GB on. Values, profile, EXIF, XMP and resolution are those
    that `write_picture` would leave, with one difference in size: the codes of a JPEG are the
    usual ones, because the best are known only after all was seen.

    A ``.zarr`` folder is a Zarr 3 array (height, width, channels), with alpha as the last channel;
    its attributes hold ``resolution``, and ``icc``, ``exif`` and ``xmp`` in base64.

    Args:
        canvas: a `Canvas`, or what reads like one.
        target: what stands there is replaced, but only by a file that is complete.
        like: what travels with the pixels; a `Picture` or `PictureWindows`.
        alpha: reads windows of the alpha channel; one that is opaque everywhere is left out of
            JPEG.
        quality: of JPEG, and of WebP that is not lossless: 1 to 100.
        lossless: WebP stores the exact values.
        token: names what is hidden while it is written, as in `atomic_path`.

    Raises:
        OutputError: see `check_master`; no room, no permission.
        ImageError: the canvas is damaged, or neither grey nor RGB; alpha is no number.
        SettingsError: a quality that does not exist.

    Example:
        >>> canvas = Canvas.create("photo.canvas", (480, 640, 3), 16, (128, 128))
        >>> write_master(canvas, "result.tif", sfumato.io.read_picture("photo.png"))
        >>> sfumato.io.read_picture("result.tif").bits
        16
    """
    target = Path(target)
    if not 1 <= quality <= 100:
        raise SettingsError(f"a quality of {quality}", expected="1 to 100")
    if canvas.channels not in (1, 3):
        raise ImageError(f"a canvas of {canvas.channels} channels", expected="1 or 3")
    size = (canvas.height, canvas.width)
    kind = check_master(target, size, canvas.bits, alpha=False)
    if alpha is not None and kind == "jpeg":
        check_master(target, size, canvas.bits, alpha=not is_opaque(alpha, size))
        alpha = None
    blocks = _Blocks(
        canvas, alpha, canvas.bits if kind == "zarr" else stored_bits(kind, canvas.bits)
    )
    if kind == "zarr":
        _write_zarr(blocks, target, like, token)
        return
    with atomic_path(target, token=token) as temporary:
        if kind == "tiff":
            _write_tiff(blocks, temporary, target, like)
        else:
            options = save_options(like, kind, quality=quality, lossless=lossless)
            # The best codes would need all coefficients in memory.
            options |= {"optimize_coding": False} if kind == "jpeg" else {}
            with temporary.open("wb") as file:
                _write_stream(blocks, file, target, like, kind, options)


@dataclass(frozen=True)
class _Blocks:
    """The values to be stored: those of the canvas, with alpha, in the bits of the format."""

    canvas: Pixels
    alpha: AlphaWindows | None
    bits: int

    @property
    def size(self) -> tuple[int, int]:
        return self.canvas.height, self.canvas.width

    @property
    def bands(self) -> int:
        return self.canvas.channels + (self.alpha is not None)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype({8: np.uint8, 16: np.uint16}[self.bits])

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """Return a window, (height, width, bands)."""
        values: NDArray[Any] = self.canvas.read(top, left, height, width)
        if self.canvas.bits != self.bits:
            planes = from_numpy(values.astype(np.float32)).div_(2**self.canvas.bits - 1)
            values = round_values(planes, self.bits).numpy()
        if self.alpha is None:
            return values.astype(self.dtype, copy=False)
        alpha = round_values(self.alpha(top, left, height, width), self.bits)
        return np.concatenate(
            [values, alpha.permute(1, 2, 0).numpy()], axis=2, dtype=self.dtype, casting="unsafe"
        )

    def bands_of_rows(self) -> Iterator[tuple[int, int]]:
        """Yield (top, height) of bands of the whole width, of at most a tile's height."""
        height, width = self.size
        n_rows = _BLOCK_BYTES // (width * self.bands * self.dtype.itemsize)
        return _steps(height, min(_TILE, max(1, n_rows)))

    def rows_of_tiles(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield (top, left, height, width) of blocks of whole tiles, as many as may be held."""
        height, width = self.size
        n_tiles = max(1, _BLOCK_BYTES // (_TILE**2 * self.bands * self.dtype.itemsize))
        for top, high in _steps(height, _TILE):
            for left, wide in _steps(width, n_tiles * _TILE):
                yield top, left, high, wide


def _steps(length: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield the starts and lengths of the parts of an axis."""
    for start in range(0, length, step):
        yield start, min(step, length - start)


def is_opaque(alpha: AlphaWindows, size: tuple[int, int]) -> bool:
    """Say whether nothing shows through a picture of (height, width)."""
    step = 4 * _TILE
    return all(
        bool((alpha(top, left, high, wide) >= 1).all())
        for top, high in _steps(size[0], step)
        for left, wide in _steps(size[1], step)
    )


# TIFF


def _write_tiff(blocks: _Blocks, temporary: Path, target: Path, like: Description) -> None:
    """Write tiles, compressed by several threads, and then what OpenImageIO has no place for."""
    import OpenImageIO

    output = OpenImageIO.ImageOutput.create("tiff")
    assert output is not None
    done = output.open(str(temporary), _tiles_of(blocks))
    for top, left, high, wide in blocks.rows_of_tiles():
        if not done:
            break
        # OpenImageIO knows "uint16", but not "<u2".
        values = np.ascontiguousarray(blocks.read(top, left, high, wide)).view(blocks.dtype)
        done = output.write_tiles(left, left + wide, top, top + high, 0, 1, values)
    if not (output.close() and done):
        reason = output.geterror() or "no reason given"
        raise OutputError(f"{target} cannot be written: {reason}", do="check for free space")
    fits = like.icc and icc_fits(like.icc, blocks.canvas.channels)
    describe_tiff(
        temporary,
        icc=like.icc if fits else None,
        exif=like.exif,
        xmp=like.xmp,
        resolution=like.resolution or DEFAULT_RESOLUTION,
    )
    check_tiles(temporary)


def _tiles_of(blocks: _Blocks) -> "OpenImageIO.ImageSpec":
    import OpenImageIO

    height, width = blocks.size
    spec = OpenImageIO.ImageSpec(width, height, blocks.bands, blocks.dtype.name)
    spec.tile_width = spec.tile_height = _TILE
    spec["compression"] = "zip"
    # Else the bytes would tell the time, though in a directory that nobody reads.
    spec["DateTime"] = "1970:01:01 00:00:00"
    n_tiles = -(-height // _TILE) * -(-width // _TILE)
    n_bytes = n_tiles * _TILE**2 * blocks.bands * blocks.dtype.itemsize
    spec["tiff:bigtiff"] = int(n_bytes > CLASSIC_TIFF_LIMIT_BYTES)
    if blocks.alpha is not None:
        spec.channelnames = {2: ("Y", "A"), 4: ("R", "G", "B", "A")}[blocks.bands]
        spec.alpha_channel = blocks.bands - 1
        # Else the colours would count as multiplied by alpha.
        spec["oiio:UnassociatedAlpha"] = 1
    return spec


# PNG, JPEG, WebP


def _write_stream(
    blocks: _Blocks,
    file: IO[bytes],
    target: Path,
    like: Description,
    kind: str,
    options: dict[str, object],
) -> None:
    """Save through libvips, which reads the values as an uncompressed PNG that never is a file."""
    import pyvips

    stream = _Stream(_png_parts(blocks))
    source = pyvips.SourceCustom()
    source.on_read(stream.read)
    try:
        image = pyvips.Image.pngload_source(source, access="sequential", fail_on="error")
        image = describe(image, like, kind, n_channels=blocks.canvas.channels)
        save_to_file(image, f"{kind}save", file, **options)
    except pyvips.Error as error:
        if not stream.failure:
            reason = vips_reason(error)
            raise OutputError(f"{target} cannot be written: {reason}") from error
    finally:
        stream.close()
    if stream.failure:
        raise stream.failure


class _Stream:
    """Bytes as libvips asks for them; it calls this from C, where no exception can go."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._pending = parts, memoryview(b"")
        self.failure: BaseException | None = None

    def read(self, n_bytes: int) -> bytes:
        """Return the next bytes, at most so many; none at the end, or after a failure."""
        if not self._pending:
            try:
                self._pending = memoryview(next(self._parts, b""))
            except BaseException as error:  # raised again by the caller of libvips
                self.failure = error
        taken, self._pending = self._pending[:n_bytes], self._pending[n_bytes:]
        return bytes(taken)

    def close(self) -> None:
        """Let go of the canvas: libvips remembers its last sources."""
        self._parts, self._pending = iter(()), memoryview(b"")


def _png_parts(blocks: _Blocks) -> Iterator[bytes]:
    """Yield a PNG file of stored values, without filters: PNG 3rd edition, sections 5 and 9."""
    height, width = blocks.size
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[blocks.bands]
    header = struct.pack(">IIBBBBB", width, height, blocks.bits, colour, 0, 0, 0)
    yield b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header)
    deflate = zlib.compressobj(level=0)
    for top, high in blocks.bands_of_rows():
        values = blocks.read(top, 0, high, width).astype(blocks.dtype.newbyteorder(">"))
        rows = np.ascontiguousarray(values).view(np.uint8).reshape(high, -1)
        no_filter = np.zeros((high, 1), np.uint8)
        yield _png_chunk(b"IDAT", deflate.compress(np.hstack([no_filter, rows]).tobytes()))
    yield _png_chunk(b"IDAT", deflate.flush()) + _png_chunk(b"IEND", b"")


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return b"".join([struct.pack(">I", len(data)), body, struct.pack(">I", zlib.crc32(body))])


# Zarr


def _write_zarr(blocks: _Blocks, target: Path, like: Description, token: str) -> None:
    """Copy to a hidden folder beside the target, which gets its name when it is complete."""
    hidden = target.with_name(f".sfumato-{token or secrets.token_hex(8)}.part.zarr")
    if token and hidden.exists():
        shutil.rmtree(hidden)
    blobs = {"icc": like.icc, "exif": like.exif, "xmp": like.xmp}
    attributes: dict[str, object] = {
        name: base64.b64encode(blob).decode() for name, blob in blobs.items() if blob
    }
    if like.resolution:
        attributes["resolution"] = list(like.resolution)
    shape = (*blocks.size, blocks.bands)
    try:
        copy = Canvas.create(
            hidden, shape, blocks.bits, (_TILE, _TILE), attributes, cache_bytes=_BLOCK_BYTES
        )
        for top, left, high, wide in blocks.rows_of_tiles():
            copy.write(top, left, blocks.read(top, left, high, wide))
        copy.sync()
        os.rename(hidden, target)  # noqa: PTH104
        _flush(target.parent)
    except OutputError:
        raise
    except OSError as error:
        raise _output_error(target, error) from error
    finally:
        if hidden.exists():
            shutil.rmtree(hidden)
