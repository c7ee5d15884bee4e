"""What a file is, by its first bytes; and whether its end is there."""

import os
import stat
import struct
from pathlib import Path

from sfumato.errors import ImageError

#: File name endings and the formats that they stand for.
FORMATS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
}

NUMPY = b"\x93NUMPY"

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FOREIGN = (
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"#?RADIANCE", "a Radiance HDR picture"),
    (b"v/1\x01", "an OpenEXR picture"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"%PDF", "a PDF document"),
    (NUMPY, "an array, not a picture"),
)


def read_head(path: Path, n_bytes: int = 16) -> bytes:
    """Return the first bytes of a regular file.

    Raises:
        ImageError: no such file, a folder, a device, an empty or unreadable file.
    """
    try:
        mode = path.stat().st_mode
        head = b""
        if stat.S_ISREG(mode):
            with path.open("rb") as file:
                head = file.read(n_bytes)
    except FileNotFoundError as error:
        raise ImageError(f"there is no file {path}", do="check the name") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ImageError(f"{str(path)!r} is no file name: {error}") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise ImageError(f"{path} is {what}", expected="a picture")
    if not head:
        raise ImageError(f"{path} is empty (0 bytes)", expected="a picture")
    return head


def sniff(path: Path) -> str:
    """Return the format of a picture file (png, jpeg, webp, tiff), whatever its name says.

    Raises:
        ImageError: the file cannot be read, or is of another kind.
    """
    head = read_head(path)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(_TIFF):
        return "tiff"
    what = next((name for magic, name in _FOREIGN if head.startswith(magic)), "not a picture")
    if head[4:8] == b"ftyp":
        what = "a HEIF or AVIF picture, or a film"
    raise ImageError(
        f"{path} is {what}", expected="PNG, JPEG, WebP or TIFF", do="convert it first"
    )


def read_png_exif(path: Path) -> bytes | None:
    """Return the eXIf block of a PNG file, also from after the pixels, where libvips is blind.

    Raises:
        ImageError: the file ends before its end mark.
    """
    exif = None
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(8)
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if file.tell() + length + 4 > size:
                break
            if kind == b"IEND":
                return exif
            if kind == b"eXIf":
                exif = file.read(length)
                length = 0
            file.seek(length + 4, os.SEEK_CUR)
    raise damaged(path, "its end is missing")


def damaged(path: Path, reason: str) -> ImageError:
    """Return the error for a file that began well."""
    return ImageError(
        f"{path} cannot be decoded, damaged or cut short: {reason}",
        do="fetch or export the file again",
    )


def vips_reason(error: Exception) -> str:
    """Return what libvips says about a failure, in one line.

    Its first line only names the call; a message is often said twice.
    """
    lines = [line.strip() for line in str(error).splitlines()[1:]]
    return ", ".join(dict.fromkeys(line for line in lines if line)) or "no reason given"
