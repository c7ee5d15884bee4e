"""Pictures on their way into training: found, decoded, made ready."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyvips

from sfumato.errors import ImageError, SettingsError

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Skipped:
    """A picture that was left out, and why; ``path`` is its file, or its place in a data set."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Entry:
    """A picture not yet decoded: a file, or the bytes of one (``path`` is then but a name).

    ``label`` is its class; None where it has none. ``missing`` says why there are no bytes.
    """

    path: Path
    content: bytes | None = None
    label: str | None = None
    missing: str = ""

    def decode(self, min_side: int = 1) -> Pixels:
        """Return (height, width, 3) uint8; ImageError says why not."""
        if self.missing:
            raise ImageError(self.missing)
        return read_rgb(self.path if self.content is None else self.content, min_side)


def files_of(folder: Path) -> list[Path]:
    """Return the files of ``folder`` and below in a fixed order, but for hidden ones."""
    if not folder.is_dir():
        raise SettingsError(
            f"there is no folder {folder}",
            expected="a folder of photographs, shards (*.tar), or hf:NAME",
        )
    below = (path for path in folder.rglob("*") if path.is_file())
    shown = [p for p in below if not any(s.startswith(".") for s in p.relative_to(folder).parts)]
    return sorted(shown, key=lambda path: path.relative_to(folder).as_posix())


def folder_entries(folder: Path) -> list[Entry]:
    """Return all files of ``folder`` and below; a first subfolder is the label of what it holds.

    Raises SettingsError where there is no such folder.
    """
    entries = []
    for path in files_of(folder):
        first, *rest = path.relative_to(folder).parts
        entries.append(Entry(path, label=first if rest else None))
    return entries


def read_rgb(file: Path | bytes, min_side: int = 1) -> Pixels:
    """Read a colour picture as (height, width, 3) uint8, upright; ImageError says why not."""
    try:
        # Not `new_from_file`, which reads "photo[1].png" as a name with options.
        if isinstance(file, bytes):
            source = pyvips.Source.new_from_memory(file)
        else:
            source = pyvips.Source.new_from_file(str(file))
        image = pyvips.Image.new_from_source(source, "", fail_on="error").autorot()
        short = min(image.width, image.height)
        if short < min_side:
            raise ImageError(f"too small, {image.width} x {image.height} pixels")
        if image.bands - int(image.hasalpha()) < 3:
            raise ImageError("grey, which would teach the prior that colours are rare")
        image = image.colourspace("srgb")
        if image.hasalpha():
            image = image.flatten(background=255)
        pixels: Pixels = np.ascontiguousarray(image.cast("uchar").numpy())
    except pyvips.Error as error:
        raise ImageError(f"unreadable: {str(error).strip().splitlines()[0]}") from error
    return pixels


def copies(picture: Pixels, halvings: int) -> list[Pixels]:
    """Return ``picture`` and its copies at 1/2, 1/4, ..., each the rounded mean of 2 x 2 boxes.

    >>> [c.shape for c in copies(np.zeros((9, 6, 3), np.uint8), 2)]
    [(9, 6, 3), (4, 3, 3), (2, 1, 3)]
    """
    out = [picture]
    for _ in range(halvings):
        h, w = out[-1].shape[0] // 2, out[-1].shape[1] // 2
        boxes = out[-1][: 2 * h, : 2 * w].reshape(h, 2, w, 2, 3)
        out.append(((boxes.sum(axis=(1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8))
    return out


def prepared(picture: Pixels, side: int) -> Pixels:
    """Return the largest square in the middle of ``picture``, resized by area: (side, side, 3).

    Each pixel is the rounded mean of the box that it covers, pixels on its border counted by the
    part within. That is the paper's preparation (SR3, section 4). Raises ImageError where the
    picture is smaller.

    >>> prepared(np.full((9, 6, 3), 7, np.uint8), 2)[0, 0].tolist()
    [7, 7, 7]
    """
    h, w = picture.shape[:2]
    n = min(h, w)
    if n < side:
        raise ImageError(f"too small, {w} x {h} pixels")
    top, left = (h - n) // 2, (w - n) // 2
    square = picture[top : top + n, left : left + n]
    if n == side:
        return np.ascontiguousarray(square)
    weights = area_weights(n, side)
    rows = (weights @ square.reshape(n, n * 3).astype(np.float32)).reshape(side, n, 3)
    mean = np.einsum("jw,hwc->hjc", weights, rows)
    resized: Pixels = np.clip(np.rint(mean), 0, 255).astype(np.uint8)
    return resized


def area_weights(n: int, m: int) -> npt.NDArray[np.float32]:
    """Return the means over ``m`` equal intervals of ``n`` pixels as a matrix, (m, n) float32.

    >>> (3 * area_weights(3, 2)).round().tolist()
    [[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]]
    """
    edges = np.arange(m + 1) * (n / m)
    pixels = np.arange(n)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    weights: npt.NDArray[np.float32] = (np.clip(high - low, 0, None) * (m / n)).astype(np.float32)
    return weights
