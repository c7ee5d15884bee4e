"""Crops of held-out photographs: what a study measures on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.errors import ImageError, SettingsError
from sfumato.evaluation._order import shuffled, uniforms
from sfumato.io import find_pictures, read_picture

_PICTURES, _PLACES = 0, 1


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops (n, 3, side, side) in [-1, 1] of ``n_pictures``; ``skipped`` says what was left out.

    Their values are of 8 bits.
    """

    x_0: Images
    n_pictures: int
    skipped: tuple[str, ...]


def load_crops(folder: str | Path, n: int, *, side: int = 64, seed: int = 0) -> Crops:
    """Cut ``n`` crops from the photographs in ``folder`` and below.

    Crop ``k`` is a function of (seed, k) and of the folder: pictures take turns, in an order of
    their own, and places are even within them. What is unreadable, grey, or smaller than ``side``
    is skipped.

    Raises ImageError where there is no such folder, SettingsError where no picture remains.
    """
    if n < 1 or side < 1:
        raise SettingsError(f"{n} crops of {side} pixels", expected="at least 1 of either")
    pictures, skipped = _readable(find_pictures(folder, recursive=True), side)
    if not pictures:
        raise SettingsError(
            f"no photograph in {folder} can be used ({'; '.join(skipped[:3]) or 'it is empty'})",
            expected=f"colour pictures of at least {side} x {side} pixels",
        )
    order = shuffled(seed, _PICTURES, len(pictures))
    cut = []
    for k, (u, v) in enumerate(uniforms(seed, _PLACES, n).tolist()):
        picture = pictures[order[k % len(order)]]
        top, left = (
            int(t * (m - side + 1)) for t, m in zip((u, v), picture.shape[1:], strict=True)
        )
        cut.append(picture[:, top : top + side, left : left + side])
    return Crops(torch.stack(cut).float() / 127.5 - 1, len(pictures), tuple(skipped))


def _readable(paths: list[Path], side: int) -> tuple[list[Tensor], list[str]]:
    """Return the colour pictures of that size as uint8, and why the others are not among them."""
    pictures, skipped = [], []
    for path in paths:
        try:
            pixels = read_picture(path).pixels
        except ImageError as error:
            skipped.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            continue
        channels, height, width = pixels.shape
        if channels == 3 and min(height, width) >= side:
            pictures.append((255 * pixels).round().to(torch.uint8))
        else:
            reason = "grey" if channels != 3 else f"too small, {width} x {height} pixels"
            skipped.append(f"{path}: {reason}")
    return pictures, skipped
