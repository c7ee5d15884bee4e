"""Masks on disk: what is known of a picture, of any size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Bool
from torch import Tensor

from sfumato.errors import ImageError

if TYPE_CHECKING:
    from sfumato.io.windows import PictureWindows

#: Luminance of red, green and blue: ITU-R BT.709, item 3.2.
_LUMINANCE = (0.2126, 0.7152, 0.0722)
#: Pixels of the largest mask, and of those that are held in memory, a byte each.
_LIMIT_MASK, _IN_MEMORY = 1 << 32, 1 << 24
#: Side of the windows that a mask is looked through with.
_LOOK = 1024


@final
class MaskWindows:
    """A mask of which windows are read in any order; `open_mask` makes it.

    Small ones are held in memory, of large ones what is wanted is read when it is. For one
    thread at a time.

    Attributes:
        shape: (1, height, width).
        empty: whether nothing is missing.

    Example:
        >>> mask = open_mask("scratches.png")
        >>> mask.shape, mask.empty
        ((1, 480, 640), False)
    """

    def __init__(self, picture: PictureWindows, *, in_alpha: bool, empty: bool) -> None:
        self.shape = (1, picture.height, picture.width)
        self.empty = empty
        self._look: Callable[..., Tensor] = partial(_by_alpha if in_alpha else _by_colour, picture)
        if picture.height * picture.width <= _IN_MEMORY:
            whole = self._look(0, 0, picture.height, picture.width)
            self._look = partial(_part, whole)

    def read(self, top: int, left: int, height: int, width: int) -> Bool[Tensor, "1 height width"]:
        """Return what is known in a window: False is missing, True is known.

        Raises:
            ImageError: the file is damaged there, or another one has taken its place.
        """
        return self._look(top, left, height, width)


def open_mask(path: str | Path, *, limit_pixels: int = _LIMIT_MASK) -> MaskWindows:
    """Open a mask, painted white (above 50 %) where the picture is missing.

    Colours count by their luminance. Alpha is ignored, unless all is of one colour and only alpha
    varies: then what is opaque is missing. The mask is looked through once, so that damage shows
    now; memory stays bounded whatever the size, as with `open_windows`.

    Raises:
        ImageError: as `open_windows`; more pixels than ``limit_pixels``.

    Example:
        >>> open_mask("scratches.png").read(0, 0, 32, 64).shape
        torch.Size([1, 32, 64])
    """
    from sfumato.io.windows import open_windows, picture_shape

    _, height, width = picture_shape(path)
    if height * width > limit_pixels:
        raise ImageError(
            f"the mask {path} of {width} x {height} pixels",
            expected=f"at most {limit_pixels / 1e6:g} megapixels",
        )
    picture = open_windows(path)
    first, one_colour, alphas = picture.read(0, 0, 1, 1), True, set()
    full, opaque = True, False
    for top in range(0, height, _LOOK):
        for left in range(0, width, _LOOK):
            part = top, left, min(_LOOK, height - top), min(_LOOK, width - left)
            pixels = picture.read(*part)
            one_colour = one_colour and torch.equal(pixels, first.expand_as(pixels))
            full = full and bool(_known(pixels).all())
            if picture.has_alpha:
                alpha = picture.read_alpha(*part)
                alphas |= {float(alpha.min()), float(alpha.max())}
                opaque = opaque or bool((alpha > 0.5).any())
    in_alpha = one_colour and len(alphas) > 1
    return MaskWindows(picture, in_alpha=in_alpha, empty=not opaque if in_alpha else full)


def read_mask(
    path: str | Path, *, limit_pixels: int = _LIMIT_MASK
) -> Bool[Tensor, "1 height width"]:
    """Read a mask as a whole: what `open_mask` opens, a byte for each pixel.

    Returns:
        bool (1, height, width): False is missing, True is known.

    Raises:
        ImageError: as `open_mask`.

    Example:
        >>> read_mask("scratches.png").unique()
        tensor([False,  True])
    """
    mask = open_mask(path, limit_pixels=limit_pixels)
    return mask.read(0, 0, *mask.shape[1:])


def _by_colour(picture: PictureWindows, *window: int) -> Tensor:
    return _known(picture.read(*window))


def _by_alpha(picture: PictureWindows, *window: int) -> Tensor:
    return picture.read_alpha(*window) <= 0.5


def _part(whole: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return whole[:, top : top + height, left : left + width]


def _known(pixels: Tensor) -> Tensor:
    weights = _LUMINANCE if pixels.shape[0] == 3 else (1.0,)
    paint = (pixels * pixels.new_tensor(weights)[:, None, None]).sum(0, keepdim=True)
    return paint <= 0.5
