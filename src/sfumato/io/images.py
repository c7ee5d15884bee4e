"""Pictures on disk: read, write, find; the parts behind it are private modules of this folder.

Importing this is cheap for a program that uses torch: libvips is loaded when the first picture is
read or written.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Bool
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
#: Pixels of the largest mask, and rows of it that are read at once.
_LIMIT_MASK, _STRIP = 1 << 32, 512


def read_mask(
    path: str | Path, *, limit_pixels: int = _LIMIT_MASK
) -> Bool[Tensor, "1 height width"]:
    """Read a mask, painted white (above 50 %) where the picture is missing; return what is known.

    Colours count by their luminance. Alpha is ignored, unless all is of one colour and only alpha
    varies: then what is opaque is missing. Large ones are read strip by strip: a byte for a pixel
    is all that they take in memory (two, with alpha).

    Returns:
        bool (1, height, width): False is missing, True is known.

    Raises:
        ImageError: as `read_picture`.

    Example:
        >>> read_mask("scratches.png").unique()
        tensor([False,  True])
    """
    from sfumato.io.windows import open_windows, picture_shape

    _, height, width = picture_shape(path)
    if height * width > limit_pixels:
        raise ImageError(
            f"the mask {path} of {width} x {height} pixels",
            expected=f"at most {limit_pixels / 1e6:g} megapixels",
        )
    windows = open_windows(path)
    by_colour = torch.empty((1, height, width), dtype=torch.bool)
    by_alpha = torch.empty_like(by_colour) if windows.has_alpha else None
    first, one_colour, alphas = windows.read(0, 0, 1, 1), True, set()
    for top in range(0, height, _STRIP):
        n = min(_STRIP, height - top)
        pixels = windows.read(top, 0, n, width)
        one_colour = one_colour and torch.equal(pixels, first.expand_as(pixels))
        weights = _LUMINANCE if pixels.shape[0] == 3 else (1.0,)
        paint = (pixels * pixels.new_tensor(weights)[:, None, None]).sum(0, keepdim=True)
        by_colour[:, top : top + n] = paint <= 0.5
        if by_alpha is not None:
            alpha = windows.read_alpha(top, 0, n, width)
            alphas |= {float(alpha.min()), float(alpha.max())}
            by_alpha[:, top : top + n] = alpha <= 0.5
    in_alpha = one_colour and len(alphas) > 1
    return by_alpha if by_alpha is not None and in_alpha else by_colour


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
