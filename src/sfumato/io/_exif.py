"""EXIF blocks, which are small TIFF files: patch them, and carry them in and out of TIFF.

libvips reads and writes EXIF in JPEG, PNG and WebP, but not in TIFF, where its tags stand among
those of the picture. Reference: CIPA DC-008 (EXIF 2.32), section 4.6; TIFF 6.0, section 2.
"""

import mmap
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sfumato.io._formats import damaged

ORIENTATION = 0x0112
_X_RESOLUTION, _Y_RESOLUTION, _UNIT = 0x011A, 0x011B, 0x0128
#: Directories inside directories: EXIF, GPS, interoperability.
_POINTERS = (0x8769, 0x8825, 0xA005)
#: Tags of a TIFF picture that describe it, rather than how it is stored: ImageDescription, Make,
#: Model, Software, DateTime, Artist, HostComputer, Copyright, and the directories.
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298, 0x8769, 0x8825)
#: PixelXDimension and PixelYDimension: a restored picture may have others, and TIFF has its own.
_DIMENSIONS = (0xA002, 0xA003)
#: Offsets and sizes of strips, and of tiles.
_PLACES = ((0x0111, 0x0117), (0x0144, 0x0145))
_XMP, _ICC = 0x02BC, 0x8773
#: Whole numbers, by TIFF's number of the type.
_WHOLE = {3: "<u2", 4: "<u4", 16: "<u8"}
#: Type of a pointer to a directory, by its bytes: LONG, and BigTIFF's LONG8, which more programs
#: know than IFD8.
_POINTER_KINDS = {4: 4, 8: 16}
#: Bytes of a value, and of the unit whose bytes are swapped, by TIFF's number of the type.
#: 16 to 18 are BigTIFF's.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
_UNITS = _SIZES | {5: 4, 10: 4}

_Bytes: TypeAlias = bytes | mmap.mmap
_Directory: TypeAlias = "dict[int, _Value | _Directory]"


@dataclass(frozen=True)
class _Layout:
    """The widths of a directory's parts, as struct writes them: of classic TIFF or BigTIFF."""

    order: str
    count: str = "H"
    offset: str = "I"

    @property
    def n_inline(self) -> int:
        """Bytes of values that stand in the line itself."""
        return struct.calcsize(self.offset)

    @property
    def n_line(self) -> int:
        """Bytes of a line."""
        return 4 + 2 * self.n_inline

    def read_offset(self, data: _Bytes, position: int) -> int:
        """Return the offset that stands at a position."""
        return int(struct.unpack_from(self.order + self.offset, data, position)[0])

    def read_count(self, data: _Bytes, start: int) -> int:
        """Return the number of lines of the directory at ``start``."""
        return int(struct.unpack_from(self.order + self.count, data, start)[0])

    def first_line(self, start: int) -> int:
        """Return where the lines of the directory at ``start`` begin."""
        return start + struct.calcsize(self.count)


_LAYOUTS = {
    b"II*\0": _Layout("<"),
    b"MM\0*": _Layout(">"),
    b"II+\0": _Layout("<", "Q", "Q"),
    b"MM\0+": _Layout(">", "Q", "Q"),
}
_LITTLE = (b"II*\0", b"II+\0")


@dataclass(frozen=True)
class _Value:
    """The values of one tag, as little-endian bytes."""

    kind: int
    data: bytes


@dataclass(frozen=True)
class _Entry:
    """One line of a directory: where its values lie in the file."""

    tag: int
    kind: int
    position: int
    size: int


def clean_exif(blob: bytes | None) -> bytes | None:
    """Return the block for upright pixels: orientation 1, without the (now wrong) thumbnail.

    Patched in place, because makers' notes hold offsets and would not survive a move. None for
    what is no EXIF.
    """
    blob = (blob or b"").removeprefix(b"Exif\0\0")
    layout = _LAYOUTS.get(blob[:4])
    if layout is None:
        return None
    patched = bytearray(blob)
    try:
        start = layout.read_offset(blob, layout.n_inline)
        for entry in _entries(blob, start, layout):
            if entry.tag == ORIENTATION and entry.kind == 3:
                struct.pack_into(layout.order + "H", patched, entry.position, 1)
        end = layout.first_line(start) + layout.n_line * layout.read_count(blob, start)
        struct.pack_into(layout.offset, patched, end, 0)
    except struct.error:
        return None
    return bytes(patched)


def clean_xmp(packet: bytes | None) -> bytes | None:
    """Return the packet for upright pixels."""
    if not packet:
        return None
    return re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>\s*))[2-8]", rb"\g<1>1", packet)


def exif_orientation(blob: bytes | None) -> int:
    """Return the orientation that a block tells, 1 to 8; 1 if it does not."""
    value = _read_block(blob).get(ORIENTATION)
    if not isinstance(value, _Value) or value.kind != 3:
        return 1
    (orientation,) = struct.unpack_from("<H", value.data)
    return orientation if 1 <= orientation <= 8 else 1


def exif_resolution(blob: bytes | None) -> tuple[float, float] | None:
    """Return the dots per inch that a block tells, across and down."""
    tags = _read_block(blob)
    sides = [tags.get(_X_RESOLUTION), tags.get(_Y_RESOLUTION)]
    numbers = [s.data for s in sides if isinstance(s, _Value) and s.kind == 5]
    unit = tags.get(_UNIT)
    if len(numbers) < 2 or not isinstance(unit, _Value) or unit.kind != 3:
        return None
    per_inch = {2: 1.0, 3: 2.54}.get(struct.unpack_from("<H", unit.data)[0])
    (x, x_part), (y, y_part) = (struct.unpack_from("<II", n) for n in numbers)
    if per_inch is None or not (x and x_part and y and y_part):
        return None
    return x / x_part * per_inch, y / y_part * per_inch


def read_tiff_exif(path: Path) -> bytes | None:
    """Return what a TIFF file tells about its picture, as an EXIF block; None if it tells nothing.

    Raises:
        ImageError: a part of its directory lies beyond the end of the file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        layout = _LAYOUTS[data[:4]]
        try:
            start = layout.read_offset(data, layout.n_inline)
            _check_whole(data, start, layout)
        except struct.error as error:
            raise damaged(path, "its directory goes beyond its end") from error
        tags = _descriptive(_read_directory(data, start, layout))
    return b"II*\0\x08\0\0\0" + _pack(tags, 8) if tags else None


def add_exif_to_tiff(tiff: bytes, blob: bytes) -> bytes:
    """Return the TIFF file with the block's descriptive tags.

    A new directory, with all the tags, is put at the end; the old one stays behind unused. Files
    that are not little-endian are returned as they are.
    """
    tags = _descriptive(_read_block(blob))
    if not tiff.startswith(_LITTLE) or not tags:
        return tiff
    position, pointer, directory = _new_directory(tiff, tags)
    start = position + len(pointer)
    end = len(tiff) + len(tiff) % 2
    return b"".join([tiff[:position], pointer, tiff[start:].ljust(end - start, b"\0"), directory])


def describe_tiff(
    path: Path,
    *,
    icc: bytes | None,
    exif: bytes | None,
    xmp: bytes | None,
    resolution: tuple[float, float],
) -> None:
    """Let a little-endian TIFF file, of any size, tell this of its picture, and nothing else.

    As in `add_exif_to_tiff`, but in the file; not atomic.

    Raises:
        OSError: no room.
    """
    tags = _descriptive(_read_block(exif))
    tags |= {_X_RESOLUTION: _rational(resolution[0]), _Y_RESOLUTION: _rational(resolution[1])}
    tags[_UNIT] = _Value(3, struct.pack("<H", 2))
    tags |= {_XMP: _Value(1, xmp)} if xmp else {}
    tags |= {_ICC: _Value(7, icc)} if icc else {}
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            position, pointer, directory = _new_directory(data, tags, (_XMP, _ICC))
        end = file.seek(0, os.SEEK_END)
        file.write(bytes(end % 2) + directory)
        file.flush()
        file.seek(position)
        file.write(pointer)


def _rational(number: float) -> "_Value":
    ratio = Fraction(number).limit_denominator(1_000_000)
    return _Value(5, struct.pack("<II", ratio.numerator, ratio.denominator))


def check_tiles(path: Path) -> None:
    """Check that all strips or tiles that a TIFF file lists lie in it.

    Raises:
        ImageError: one does not.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        layout = _LAYOUTS[data[:4]]
        tags = _read_directory(data, layout.read_offset(data, layout.n_inline), layout)
        for offsets, sizes in _PLACES:
            starts, lengths = _numbers(tags.get(offsets)), _numbers(tags.get(sizes))
            n_tiles = min(len(starts), len(lengths))
            if bool((starts[:n_tiles] + lengths[:n_tiles] > len(data)).any()):
                raise damaged(path, "its last tiles are missing")


def _numbers(value: "_Value | _Directory | None") -> NDArray[np.uint64]:
    """Return whole numbers; none for a tag that is missing or holds others."""
    if not isinstance(value, _Value) or value.kind not in _WHOLE:
        return np.zeros(0, np.uint64)
    return np.frombuffer(value.data, _WHOLE[value.kind]).astype(np.uint64)


def _new_directory(
    data: _Bytes, tags: _Directory, dropped: tuple[int, ...] = ()
) -> tuple[int, bytes, bytes]:
    """Return where the file points to its directory, the new pointer, and what it points to.

    The new directory is to lie at the file's end, after a byte of padding where that is odd.
    """
    layout = _LAYOUTS[data[:4]]
    # The picture's own come last: without them, a file that is cut cannot be decoded.
    every = tags | {
        e.tag: _Value(e.kind, data[e.position : e.position + e.size])
        for e in _entries(data, layout.read_offset(data, layout.n_inline), layout)
        if e.tag not in (*_DESCRIPTIVE, *dropped, *tags)
    }
    end = len(data) + len(data) % 2
    return layout.n_inline, struct.pack("<" + layout.offset, end), _pack(every, end, layout)


def _descriptive(tags: _Directory) -> _Directory:
    """Return the tags that hold for the same picture in any size and format."""
    exif = tags.get(_POINTERS[0])
    if isinstance(exif, dict):
        rest = {tag: value for tag, value in exif.items() if tag not in _DIMENSIONS}
        tags = tags | {_POINTERS[0]: rest}
    return {tag: value for tag, value in tags.items() if tag in _DESCRIPTIVE}


def _read_block(blob: bytes | None) -> _Directory:
    """Read a whole block; empty for what is no EXIF."""
    blob = (blob or b"").removeprefix(b"Exif\0\0")
    layout = _LAYOUTS.get(blob[:4])
    if layout is None or len(blob) < 16:
        return {}
    return _read_directory(blob, layout.read_offset(blob, layout.n_inline), layout)


def _entries(data: _Bytes, start: int, layout: _Layout) -> Iterator[_Entry]:
    """Yield the lines of the directory at ``start``; struct.error if it is cut."""
    form = layout.order + "HH" + 2 * layout.offset
    line = layout.first_line(start)
    for _ in range(layout.read_count(data, start)):
        tag, kind, n_values, offset = struct.unpack_from(form, data, line)
        size = _SIZES.get(kind, 0) * n_values
        inline = size <= layout.n_inline
        yield _Entry(tag, kind, line + 4 + layout.n_inline if inline else offset, size)
        line += layout.n_line


def _check_whole(data: _Bytes, start: int, layout: _Layout) -> None:
    """Raise struct.error if the directory, its values, or the tables inside it are cut."""
    starts = [start]
    for entry in _entries(data, start, layout):
        if entry.position + entry.size > len(data):
            raise struct.error
        if entry.tag in _POINTERS and entry.size == layout.n_inline:
            starts.append(layout.read_offset(data, entry.position))
    for table in starts:
        end = layout.first_line(table) + layout.n_line * layout.read_count(data, table)
        layout.read_offset(data, end)


def _read_directory(data: _Bytes, start: int, layout: _Layout, depth: int = 0) -> _Directory:
    """Read a directory and those inside it, leaving out what is damaged."""
    tags: _Directory = {}
    try:
        for entry in _entries(data, start, layout):
            raw = data[entry.position : entry.position + entry.size]
            if not raw or len(raw) < entry.size:
                continue
            if entry.tag not in _POINTERS:
                tags[entry.tag] = _Value(entry.kind, _little(raw, entry.kind, layout.order))
            elif depth < 2 and entry.size == layout.n_inline:
                offset = layout.read_offset(data, entry.position)
                if inner := _read_directory(data, offset, layout, depth + 1):
                    tags[entry.tag] = inner
    except struct.error:
        return tags
    return tags


def _little(raw: bytes, kind: int, order: str) -> bytes:
    """Return the values in little-endian order."""
    unit = _UNITS[kind]
    if order == "<" or unit == 1:
        return raw
    return b"".join(raw[i : i + unit][::-1] for i in range(0, len(raw), unit))


def _pack(tags: _Directory, start: int, layout: _Layout = _LAYOUTS[b"II*\0"]) -> bytes:
    """Return a little-endian directory that is to lie at the (even) offset ``start``.

    Directories inside it come before its other values, so that any cut takes one of its own.
    """
    lines, values = {}, bytearray()
    line = "<HH" + layout.offset
    n_inline = layout.n_inline
    first = layout.first_line(start) + layout.n_line * len(tags) + n_inline
    for tag, value in sorted(tags.items(), key=lambda item: not isinstance(item[1], dict)):
        where = struct.pack("<" + layout.offset, first + len(values))
        if isinstance(value, dict):
            lines[tag] = struct.pack(line, tag, _POINTER_KINDS[n_inline], 1) + where
            values += _pack(value, first + len(values), layout)
            continue
        if len(value.data) <= n_inline:
            where = value.data.ljust(n_inline, b"\0")
        else:
            values += value.data + bytes(len(value.data) % 2)
        n_values = len(value.data) // _SIZES[value.kind]
        lines[tag] = struct.pack(line, tag, value.kind, n_values) + where
    table = b"".join(lines[tag] for tag in sorted(lines))
    return struct.pack("<" + layout.count, len(lines)) + table + bytes(n_inline) + bytes(values)
