"""Photographs to train on, held in memory, and random crops of them.

All pictures lie one after the other in one flat array of pixels, so that a batch of crops is one
gather, on the CPU or on a GPU. Each is kept at full size and, averaged over boxes, at half size
(and at a quarter, ...), which widens the range of scales that a network sees.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import pyvips
import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.errors import ImageError, SettingsError
from sfumato.training._draws import Draws, Purpose

_Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    path: Path
    reason: str


@final
@dataclass(frozen=True)
class Photographs:
    """Pictures and their smaller copies, as one array.

    ``pixels`` is (n_pixels, 3) uint8; picture ``k`` has ``height[k]`` rows of ``width[k]`` pixels
    from ``start[k]`` on, and is drawn with a probability proportional to the root of its area,
    summed in ``cumulative``. ``digest`` (SHA-256) names the pixels.
    """

    pixels: Tensor
    start: Tensor
    height: Tensor
    width: Tensor
    cumulative: Tensor
    n_photographs: int
    skipped: tuple[Skipped, ...]
    digest: str

    def to(self, device: torch.device) -> Photographs:
        """Return the same photographs on ``device``."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("pixels", "start", "height", "width", "cumulative")
        }
        return replace(self, **moved)

    def crops(self, draws: Draws, side: int) -> Images:
        """Return a random crop for each example of ``draws``, flipped and turned at random.

        (n, 3, side, side), float32 in [-1, 1]. ``side`` must be at most the ``min_side`` the
        photographs were loaded with.
        """
        u = draws.uniform(Purpose.CROP, 6).unbind(1)
        k = torch.searchsorted(self.cumulative, u[0].contiguous(), right=True)
        k = k.clamp(max=len(self.start) - 1)
        i = torch.arange(side, device=self.pixels.device)
        rows = _along(u[1], u[3], self.height[k], i)
        cols = _along(u[2], u[4], self.width[k], i)
        at = rows[:, :, None] * self.width[k][:, None, None] + cols[:, None, :]
        at = torch.where(u[5][:, None, None] < 0.5, at, at.mT) + self.start[k][:, None, None]
        return self.pixels[at].permute(0, 3, 1, 2).float() / 127.5 - 1


def _along(place: Tensor, flip: Tensor, size: Tensor, i: Tensor) -> Tensor:
    """Return the coordinates (n, side) of random windows along an axis, half of them reversed."""
    first = (place * (size - len(i) + 1)).long()
    return first[:, None] + torch.where(flip[:, None] < 0.5, i, len(i) - 1 - i)


def load_photographs(folder: Path, *, min_side: int = 128, halvings: int = 2) -> Photographs:
    """Read all pictures of ``folder`` and below, in any format that libvips knows.

    ``min_side`` is the side of the largest crop, in pixels: pictures, and copies, with a shorter
    side are left out; ``halvings`` counts the smaller copies. Colours are taken as sRGB, 8 bits;
    alpha is laid over white. It takes 4 bytes of memory a pixel. Files that are no pictures, too
    small or grey are listed in ``skipped``; SettingsError says so where nothing is left.
    """
    pictures: list[_Pixels] = []
    skipped, n_photographs, sha = [], 0, hashlib.sha256()
    for path in files_of(folder):
        try:
            picture = read_rgb(path, min_side)
        except ImageError as error:
            skipped.append(Skipped(path, str(error)))
            continue
        sha.update(repr(picture.shape).encode())
        sha.update(picture.data)
        n_photographs += 1
        pictures += [copy for copy in copies(picture, halvings) if _fits(copy, min_side)]
    if not pictures:
        reasons = "; ".join(f"{s.path.name}: {s.reason}" for s in skipped[:3]) or "it is empty"
        raise SettingsError(
            f"no photograph in {folder} can be used ({reasons})",
            expected=f"colour pictures of at least {min_side} x {min_side} pixels",
            do="a prior worth using wants hundreds of photographs",
        )
    return _flatten(pictures, n_photographs, tuple(skipped), sha.hexdigest())


def files_of(folder: Path) -> list[Path]:
    """Return the files of ``folder`` and below in a fixed order, but for hidden ones."""
    if not folder.is_dir():
        raise SettingsError(f"there is no folder {folder}", expected="a folder of photographs")
    below = (path for path in folder.rglob("*") if path.is_file())
    shown = [p for p in below if not any(s.startswith(".") for s in p.relative_to(folder).parts)]
    return sorted(shown, key=lambda path: path.relative_to(folder).as_posix())


def read_rgb(path: Path, min_side: int = 1) -> _Pixels:
    """Read a colour picture as (height, width, 3) uint8, upright; ImageError says why not."""
    try:
        # Not `new_from_file`, which reads "photo[1].png" as a name with options.
        source = pyvips.Source.new_from_file(str(path))
        image = pyvips.Image.new_from_source(source, "", fail_on="error").autorot()
        short = min(image.width, image.height)
        if short < min_side:
            raise ImageError(f"too small, {image.width} x {image.height} pixels")
        if image.bands - int(image.hasalpha()) < 3:
            raise ImageError("grey, which would teach the prior that colours are rare")
        image = image.colourspace("srgb")
        if image.hasalpha():
            image = image.flatten(background=255)
        pixels: _Pixels = np.ascontiguousarray(image.cast("uchar").numpy())
    except pyvips.Error as error:
        raise ImageError(f"unreadable: {str(error).strip().splitlines()[0]}") from error
    return pixels


def copies(picture: _Pixels, halvings: int) -> list[_Pixels]:
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


def _fits(picture: _Pixels, min_side: int) -> bool:
    return bool(min(picture.shape[:2]) >= min_side)


def _flatten(
    pictures: list[_Pixels], n_photographs: int, skipped: tuple[Skipped, ...], digest: str
) -> Photographs:
    height = torch.tensor([p.shape[0] for p in pictures])
    width = torch.tensor([p.shape[1] for p in pictures])
    area = height * width
    cumulative = area.double().sqrt().cumsum(0)
    return Photographs(
        pixels=torch.from_numpy(np.concatenate([p.reshape(-1, 3) for p in pictures])),
        start=area.cumsum(0) - area,
        height=height,
        width=width,
        cumulative=(cumulative / cumulative[-1]).float(),
        n_photographs=n_photographs,
        skipped=skipped,
        digest=digest,
    )
