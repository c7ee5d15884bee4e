"""What the metrics ask of the pictures they are given."""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ImageError, ShapeError

#: One picture (channels, height, width) or a batch of them, values in [0, 1].
Pictures: TypeAlias = Float[Tensor, "*batch channels height width"]

#: One number a picture: () for a single one, (batch,) for a batch.
Scores: TypeAlias = Float[Tensor, "*batch"]


def check_pictures(*pictures: Tensor) -> None:
    """See that all are floating, have 3 or 4 axes, and one shape.

    Raises ImageError for integer values, ShapeError for a wrong or a differing shape.
    """
    for picture in pictures:
        if not picture.is_floating_point():
            raise ImageError(
                f"a picture of {picture.dtype}",
                expected="floating values in [0, 1]",
                do="divide 8-bit values by 255",
            )
        if picture.dim() not in (3, 4):
            raise ShapeError(
                f"a picture of shape {tuple(picture.shape)}",
                expected="(channels, height, width) or (batch, channels, height, width)",
            )
        if picture.shape != pictures[0].shape:
            raise ShapeError(
                f"pictures of shapes {tuple(pictures[0].shape)} and {tuple(picture.shape)}",
                expected="two of one shape",
            )


def crop(
    picture: Pictures, border: int
) -> Float[Tensor, "*batch channels inner_height inner_width"]:
    """Take ``border`` pixels off each side.

    Raises ShapeError where nothing would be left.
    """
    height, width = picture.shape[-2:]
    if border < 0 or 2 * border >= min(height, width):
        raise ShapeError(
            f"a border of {border} pixels on a picture of {height} x {width}",
            expected="0 or more, and less than half of the shorter side",
        )
    return picture[..., border : height - border, border : width - border]
