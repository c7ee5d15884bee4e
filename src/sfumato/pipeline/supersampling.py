"""An image that is restored larger than it was asked for, which is its means.

An SR3 model enlarges by one factor. What 2x asks for are the means of what a model for 4x makes:
``A`` of the means is what was measured, if ``A`` after the means is what the model is held to.
"""

from __future__ import annotations

from typing import final

import numpy as np

from sfumato.io.canvas import Canvas, Values
from sfumato.operators import Degradation
from sfumato.zoo import Prior

#: Of the larger image, whose rounding is not to be seen in the means.
FINE_BITS = 16


def supersampling(prior: Prior, degradation: Degradation) -> int:
    """Return how many times as wide and high as asked for ``prior`` restores; 1 for all but SR3.

    >>> from sfumato.operators import parse
    >>> from sfumato.zoo import load_prior
    >>> supersampling(load_prior("sr3"), parse("bicubic:2"))
    2
    """
    model = prior.super_resolution
    factor = degradation.source_shape((3, 1, 1))[1]
    if model is None or len(degradation.links) != 1 or factor == 1 or model.scale % factor:
        return 1
    return model.scale // factor


def means(values: Values, times: int, bits: int) -> Values:
    """Return the means of squares of ``times`` pixels a side, of 16 bits, rounded to ``bits``.

    Whole numbers only, so that an image in memory and one on a disk have the same means.

    >>> means(np.full((2, 2, 3), 65535, np.uint16), 2, 8)[0, 0, 0]
    np.uint8(255)
    """
    height, width, channels = values.shape
    squares = values.reshape(height // times, times, width // times, times, channels)
    total = squares.sum((1, 3), dtype=np.uint64)
    top, whole = 2**bits - 1, times**2 * (2**FINE_BITS - 1)
    rounded: Values = (2 * top * total + whole) // (2 * whole)
    return rounded.astype(np.uint8 if bits == 8 else np.uint16)


@final
class Means:
    """The means of a canvas, as something that reads like one."""

    def __init__(self, canvas: Canvas, times: int, bits: int) -> None:
        self._canvas, self._times = canvas, times
        self.bits = bits
        self.channels = canvas.channels
        self.height, self.width = canvas.height // times, canvas.width // times
        high, wide = canvas.chunk
        self.chunk = max(1, high // times), max(1, wide // times)

    def read(self, top: int, left: int, height: int, width: int) -> Values:
        """Return a window, (height, width, channels)."""
        k = self._times
        return means(self._canvas.read(top * k, left * k, height * k, width * k), k, self.bits)
