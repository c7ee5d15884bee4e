"""Pictures on disk: read, write, find; the parts behind it are private modules of this folder.

Importing this is cheap for a program that uses torch: libvips is loaded when the first picture is
read or written.
"""

import hashlib
import os
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ImageError
from sfumato.io._atomic import atomic_path
from sfumato.io._formats import FORMATS
from sfumato.io._picture import Picture
from sfumato.io._read import LIMIT_PIXELS, read_measurement, read_picture
from sfumato.io._write import check_output, write_picture

__all__ = [
    "LIMIT_PIXELS",
    "Picture",
    "atomic_path",
    "check_output",
    "digest",
    "find_pictures",
    "read_mask",
    "read_measurement",
    "read_picture",
    "write_picture",
]

#: Luminance of red, green and blue: ITU-R BT.709, item 3.2.
_LUMINANCE = (0.2126, 0.7152, 0.0722)


def read_mask(
    path: str | Path, *, limit_pixels: int = LIMIT_PIXELS
) -> Float[Tensor, "1 height width"]:
    """Read a mask, painted white (above 50 %) where the picture is missing; return 1 where known.

    Colours count by their luminance. Alpha is ignored, unless all is of one colour and only alpha
    varies: then what is opaque is missing.

    Returns:
        float32 (1, height, width) of 0 (missing) and 1 (known).

    Raises:
        ImageError: as `read_picture`.

    Example:
        >>> read_mask("scratches.png").unique()
        tensor([0., 1.])
    """
    picture = read_picture(path, limit_pixels=limit_pixels)
    pixels, alpha = picture.pixels, picture.alpha
    one_colour = bool((pixels == pixels[:, :1, :1]).all())
    if alpha is not None and one_colour and bool((alpha != alpha[0, 0, 0]).any()):
        paint = alpha
    elif pixels.shape[0] == 3:
        paint = (pixels * pixels.new_tensor(_LUMINANCE)[:, None, None]).sum(0, keepdim=True)
    else:
        paint = pixels
    return (paint <= 0.5).to(pixels.dtype)


def find_pictures(folder: str | Path, *, recursive: bool = False) -> list[Path]:
    """List the files whose names end like a picture's, sorted; hidden files and folders are not.

    Links to folders are not followed.

    Raises:
        ImageError: no such folder.

    Example:
        >>> find_pictures("holiday")
        [PosixPath('holiday/beach.jpg'), PosixPath('holiday/tent.png')]
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder", expected="a folder of pictures")
    found = []
    for parent, folders, names in os.walk(folder):
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
