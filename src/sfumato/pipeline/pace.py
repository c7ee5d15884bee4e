"""The time left for many pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import final

from sfumato.errors import SfumatoError
from sfumato.io.windows import picture_shape

#: Of many pictures the headers of so many are read ahead, for no longer than this at a time.
_SAMPLE, _SAMPLE_SECONDS = 64, 0.05


@final
class Pace:
    """The time left for pictures that are restored one after the other, by pixels.

    ``pixels_of(k)`` reads the size of picture ``k``; 0 where it cannot. Of many pictures some are
    asked, spread over all of them and a few at a time, and their mean stands for the others.
    """

    def __init__(
        self, n: int, pixels_of: Callable[[int], int], clock: Callable[[], float]
    ) -> None:
        self._n, self._pixels_of, self._clock = n, pixels_of, clock
        m = min(n, _SAMPLE)
        # Shuffled: the first few that are read are to stand for all.
        self._unread = sorted((i * n // m for i in range(m)), key=lambda k: k * 0.618 % 1)
        self._ahead: dict[int, int] = {}
        #: Pixels restored and the seconds it took; pixels and number of the pictures begun.
        self._done, self._begun = (0.0, 0.0), (0, 0)
        self.begin(0)

    def begin(self, k: int) -> None:
        """Take in that picture ``k`` is next, and that those before are done or left out."""
        self._k, self._start, self._size = k, self._clock(), 0
        self._first, self._second, self._share = 0.0, 0.0, 0.0
        self._ahead = {j: pixels for j, pixels in self._ahead.items() if j >= k}

    def advance(self, done: int, total: int) -> None:
        """Take in how far the picture is.

        It may begin with what an earlier run has done, which costs nothing now.
        """
        self._share = done / total
        if not self._first:
            self._first = self._share
        elif not self._second:
            self._second = self._share

    def left(self) -> float | None:
        """Return the seconds left; None where nobody knows yet."""
        pixels, seconds = self._worked() if self._second else self._done
        if not pixels:
            return None
        return seconds / pixels * (self._pixels() * (1 - self._share) + self._to_come())

    def finish(self) -> None:
        """Take in that the picture is done."""
        self._share = 1.0
        self._done = self._worked()

    def _worked(self) -> tuple[float, float]:
        """Return the pixels restored so far, and the seconds it took."""
        # One step before the first that was told of.
        before = max(0.0, 2 * self._first - self._second) if self._second else 0.0
        pixels, seconds = self._done
        pixels += self._pixels() * (self._share - before)
        return pixels, seconds + self._clock() - self._start

    def _pixels(self) -> int:
        """Return the size of this picture; the mean, where it does not tell."""
        if not self._size:
            pixels, n = self._begun
            size = self._ahead.pop(self._k, 0) or self._pixels_of(self._k)
            self._begun = (pixels + size, n + 1) if size else self._begun
            self._size = size or pixels // max(1, n) or 1
        return self._size

    def _to_come(self) -> float:
        """Return the pixels of all pictures after this one."""
        end = self._clock() + _SAMPLE_SECONDS
        while self._unread and self._clock() < end:
            k = self._unread.pop()
            if k > self._k and (size := self._pixels_of(k)):
                self._ahead[k] = size
        known = sum(self._ahead.values())
        pixels, n = self._begun
        mean = (pixels + known) / max(1, n + len(self._ahead))
        return known + mean * (self._n - 1 - self._k - len(self._ahead))


def pixels_of(path: Path) -> int:
    """Return the number of a picture's pixels, from its header; 0 where it cannot be read."""
    try:
        _, height, width = picture_shape(path)
    except (SfumatoError, OSError, UnicodeEncodeError):
        return 0
    return height * width
