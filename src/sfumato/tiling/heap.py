"""The memory that the allocator keeps of what was freed: enough for the next tile, and no more."""

from __future__ import annotations

import ctypes
import math
import os
from pathlib import Path

#: Holes that the allocator may have more than after a moment's work, before it gives them back.
_HOLES_BYTES = 32 * 2**20
#: glibc's numbers of what it is told, and what: to map only what is larger than any tensor of a
#: tile, and to leave the end of the heap as it is. What it finds out by itself depends on what
#: was freed before; it may get and return the same memory at every step, a quarter of the time.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAPPED_BYTES, _END_BYTES = 32 * 2**20, 64 * 2**20


def keep_freed() -> None:
    """Tell glibc to keep what a tile frees for the next one; nothing where there is no glibc."""
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        option(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        option(_M_TRIM_THRESHOLD, _END_BYTES)


class Trimmer:
    """Returns what the allocator keeps of freed memory, as often as that has grown by some.

    Between the small things that stay, the large ones that come and go leave holes, which soon
    are twice of what is in use. What one tile leaves is left for the next one: to return it and
    to get it again takes longer than one might think.
    """

    def __init__(self) -> None:
        self._least = math.inf
        keep_freed()
        self._give_back()

    def trim(self) -> None:
        """Return it, if it has grown."""
        resident = _resident_bytes()
        self._least = min(self._least, resident)
        if resident > self._least + _HOLES_BYTES:
            self._give_back()
            self._least = math.inf

    @staticmethod
    def _give_back() -> None:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _resident_bytes() -> float:
    """Return the memory of this process; without end where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    except OSError:
        return math.inf
    return int(pages) * float(os.sysconf("SC_PAGE_SIZE"))
