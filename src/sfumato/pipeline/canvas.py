"""The result as it grows: whole numbers of a file's bits, seen by the engine as [-1, 1]."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato._typing import Images
from sfumato.operators import Window

Numbers: TypeAlias = NDArray[Any]

_TYPES: dict[int, type[np.uint8] | type[np.uint16]] = {8: np.uint8, 16: np.uint16}


@runtime_checkable
class Store(Protocol):
    """Where the numbers are: an array in memory, or a folder of chunks."""

    @property
    def channels(self) -> int:
        """Of each pixel."""

    def read(self, top: int, left: int, height: int, width: int) -> Numbers:
        """Return (height, width, channels)."""

    def write(self, top: int, left: int, array: Numbers) -> None:
        """Write (height, width, channels)."""


class ArrayStore:
    """Numbers in memory."""

    def __init__(self, height: int, width: int, channels: int, bits: int) -> None:
        self.array: Numbers = np.zeros((height, width, channels), _TYPES[bits])
        self.channels = channels

    def read(self, top: int, left: int, height: int, width: int) -> Numbers:
        """Return a copy."""
        return self.array[top : top + height, left : left + width].copy()

    def write(self, top: int, left: int, array: Numbers) -> None:
        """Write."""
        self.array[top : top + array.shape[0], left : left + array.shape[1]] = array


class GridCanvas:
    """Pixels in [-1, 1] kept as ``k`` of ``x = 2 k / (2^bits − 1) − 1``.

    What is read is what was written, rounded once; a result that was read from a folder has the
    bits of one that stayed in memory. A store of one channel stands for ``channels`` equal ones.

    >>> canvas = GridCanvas(ArrayStore(2, 2, 3, 8), 8)
    >>> canvas.write(Window(0, 0, 2, 2), torch.ones(1, 3, 2, 2))
    >>> float(canvas.read(Window(1, 1, 1, 1)).mean())
    1.0
    """

    def __init__(self, store: Store, bits: int, *, channels: int = 3) -> None:
        self.store = store
        self.channels = channels
        self.top = float(2**bits - 1)
        self._dtype = _TYPES[bits]

    def read(self, window: Window) -> Images:
        """Return (1, channels, height, width) in [-1, 1]."""
        k = self.store.read(window.top, window.left, window.height, window.width)
        u = torch.from_numpy(k.astype(np.float32)).permute(2, 0, 1)[None] / self.top
        return (2 * u - 1).expand(1, self.channels, -1, -1).contiguous()

    def write(self, window: Window, x: Images) -> None:
        """Round to the grid, and write."""
        n = self.store.channels
        x = x.mean(1, keepdim=True) if n < self.channels else x
        k = ((x[0].clamp(-1, 1) + 1) / 2 * self.top).round()
        array: Numbers = k.permute(1, 2, 0).cpu().numpy().astype(self._dtype)
        self.store.write(window.top, window.left, array)
