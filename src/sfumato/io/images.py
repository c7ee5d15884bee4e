"""Pictures on disk: read, write, find; the parts behind it are private modules of this folder.

Importing this is cheap for a program that uses torch: libvips is loaded when the first picture is
read or written.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from sfumato.errors import ImageError
from sfumato.io._atomic import atomic_path
from sfumato.io._formats import FORMATS
from sfumato.io._picture import Picture
from sfumato.io._read import LIMIT_PIXELS, read_measurement, read_picture
from sfumato.io._write import check_output, write_picture
from sfumato.io.masks import MaskWindows, open_mask, read_mask

__all__ = [
    "LIMIT_PIXELS",
    "MaskWindows",
    "Picture",
    "atomic_path",
    "check_output",
    "digest",
    "find_pictures",
    "open_mask",
    "read_mask",
    "read_measurement",
    "read_picture",
    "write_picture",
]


def find_pictures(
    folder: str | Path,
    *,
    recursive: bool = False,
    unreadable: Callable[[str], None] | None = None,
) -> list[Path]:
    """List the files whose names end like a picture's, sorted; hidden files and folders are not.

    Links to folders are not followed.

    Args:
        folder: where to look.
        recursive: also in the folders in it.
        unreadable: is told, in a line, of each folder that cannot be read; what is in it is left
            out.

    Raises:
        ImageError: no such folder; without ``unreadable``, one that cannot be read.

    Example:
        >>> find_pictures("holiday")
        [PosixPath('holiday/beach.jpg'), PosixPath('holiday/tent.png')]
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder", expected="a folder of pictures")

    def left_out(error: OSError) -> None:
        reason = f"the folder {error.filename} cannot be read ({error.strerror})"
        if unreadable is None:
            raise ImageError(reason, do="see to its rights") from error
        unreadable(f"{reason}; what is in it is left out")

    found = []
    for parent, folders, names in os.walk(folder, onerror=left_out):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        paths = [Path(parent, name) for name in names if not name.startswith(".")]
        found += [p for p in paths if p.suffix.lower() in FORMATS and p.is_file()]
    return sorted(found)


def digest(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: the file cannot be read.

    Example:
        >>> len(digest("photo.png"))
        64
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
