"""Photographs to train on, held in memory, and random crops of them.

All pictures lie one after the other in one flat array of pixels, so that a batch of crops is one
gather, on the CPU or on a GPU. Each is kept at full size and, averaged over boxes, at half size
(and at a quarter, ...), which widens the range of scales that a network sees.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.errors import ImageError
from sfumato.training._draws import Draws, Purpose
from sfumato.training.pictures import Entry, Pixels, Skipped, copies, prepared

#: All eight positions of a square, half of the crops mirrored, or as they are.
Orientations: TypeAlias = Literal["all", "flip", "none"]


@dataclass(frozen=True)
class Reading:
    """How pictures are read.

    ``min_side`` is the side of the largest crop, in pixels: pictures, and copies, with a shorter
    side are left out; ``halvings`` counts the smaller copies. ``prepare`` is the side that all are
    brought to by the paper's preparation, None for full size; ``orientations`` are those that
    crops show.
    """

    min_side: int = 128
    halvings: int = 2
    prepare: int | None = None
    orientations: Orientations = "all"

    @property
    def smallest(self) -> int:
        """The shortest side of a picture that can be used."""
        return max(self.min_side, self.prepare or 0)

    def read(self, entry: Entry) -> Pixels:
        """Decode a picture, large enough for what is to come of it; ImageError says why not."""
        return entry.decode(self.smallest)

    def copies(self, picture: Pixels) -> list[Pixels]:
        """Return what is kept of a picture: it, prepared, and its copies that are large enough.

        There is at least one, where ``read`` returned the picture.
        """
        whole = prepared(picture, self.prepare) if self.prepare else picture
        return [c for c in copies(whole, self.halvings) if min(c.shape[:2]) >= self.min_side]


@final
@dataclass(frozen=True)
class Photographs:
    """Pictures and their smaller copies, as one array: a ``Source`` that is held in memory.

    ``pixels`` is (n_pixels, 3) uint8; copy ``k`` has ``height[k]`` rows of ``width[k]`` pixels
    from ``start[k]`` on, shows photograph ``photograph[k]``, and is drawn with a probability
    proportional to the root of its area, summed in ``cumulative``. ``labels`` (n_photographs,)
    int64 are indices into ``classes``; None where a photograph has no class. ``places``
    (n_photographs,) int64 say which of all pictures read the photographs are. ``digest`` (SHA-256)
    names the pixels.
    """

    pixels: Tensor
    start: Tensor
    height: Tensor
    width: Tensor
    photograph: Tensor
    cumulative: Tensor
    places: Tensor
    orientations: Orientations
    labels: Tensor | None
    classes: tuple[str, ...]
    n_photographs: int
    skipped: tuple[Skipped, ...]
    digest: str

    @property
    def device(self) -> torch.device:
        """Where the pixels lie, and the crops will."""
        return self.pixels.device

    def to(self, device: torch.device) -> Photographs:
        """Return the same photographs on ``device``."""
        moved = {
            name: getattr(self, name).to(device)
            for name in (
                "pixels",
                "start",
                "height",
                "width",
                "photograph",
                "cumulative",
                "places",
            )
        }
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, labels=labels, **moved)

    def crops(self, draws: Draws, side: int) -> Images:
        """Return a random crop for each example of ``draws``, flipped and turned at random.

        (n, 3, side, side), float32 in [-1, 1]. ``side`` must be at most the ``min_side`` the
        photographs were loaded with.
        """
        u, k = self._chosen(draws)
        i = torch.arange(side, device=self.pixels.device)
        turned = self.orientations == "all"
        rows = _along(u[1], u[3] if turned else None, self.height[k], i)
        cols = _along(u[2], None if self.orientations == "none" else u[4], self.width[k], i)
        at = rows[:, :, None] * self.width[k][:, None, None] + cols[:, None, :]
        if turned:
            at = torch.where(u[5][:, None, None] < 0.5, at, at.mT)
        at = at + self.start[k][:, None, None]
        return self.pixels[at].permute(0, 3, 1, 2).float() / 127.5 - 1

    def picture_of(self, draws: Draws) -> Tensor:
        """Return the index of the photograph that each crop of ``draws`` shows: (n,) int64."""
        return self.photograph[self._chosen(draws)[1]]

    def _chosen(self, draws: Draws) -> tuple[Sequence[Tensor], Tensor]:
        """Return six random numbers for each example, and the copy that the first one chooses."""
        u = draws.uniform(Purpose.CROP, 6).unbind(1)
        k = torch.searchsorted(self.cumulative, u[0].contiguous(), right=True)
        return u, k.clamp(max=len(self.start) - 1)


def _along(place: Tensor, flip: Tensor | None, size: Tensor, i: Tensor) -> Tensor:
    """Return the coordinates (n, side) of random windows along an axis, half of them reversed."""
    first = (place * (size - len(i) + 1)).long()
    if flip is None:
        return first[:, None] + i
    return first[:, None] + torch.where(flip[:, None] < 0.5, i, len(i) - 1 - i)


def gather(
    entries: Iterable[Entry], reading: Reading, classes: Sequence[str] = ()
) -> tuple[Photographs | None, tuple[Skipped, ...]]:
    """Decode ``entries`` into memory: photographs, and what was left out of them.

    None stands for no photographs at all. ``classes`` are the names of the labels in their order;
    without any they are put in order by ``ordered``. It takes 4 bytes of memory a pixel.
    """
    pictures: list[Pixels] = []
    photograph: list[int] = []
    places: list[int] = []
    labels: list[str | None] = []
    skipped, sha = [], hashlib.sha256()
    for place, (entry, picture) in enumerate(_decoded(entries, reading)):
        if isinstance(picture, ImageError):
            skipped.append(Skipped(entry.path, str(picture)))
            continue
        sha.update(repr(picture.shape).encode())
        sha.update(picture.data)
        kept = reading.copies(picture)
        photograph += [len(labels)] * len(kept)
        labels.append(entry.label)
        places.append(place)
        pictures += kept
    if not pictures:
        return None, tuple(skipped)
    names = tuple(classes) or ordered(labels)
    held = _flatten(pictures, reading.orientations, tuple(skipped), sha.hexdigest())
    return replace(
        held,
        photograph=torch.tensor(photograph),
        places=torch.tensor(places),
        n_photographs=len(labels),
        labels=indices(labels, names),
        classes=names,
    ), held.skipped


def _decoded(
    entries: Iterable[Entry], reading: Reading
) -> Iterator[tuple[Entry, Pixels | ImageError]]:
    """Yield ``entries`` in their order with what they hold, decoded by one thread a core."""

    def read(entry: Entry) -> tuple[Entry, Pixels | ImageError]:
        try:
            return entry, reading.read(entry)
        except ImageError as error:
            return entry, error

    n = os.cpu_count() or 1
    with ThreadPoolExecutor(n) as threads:
        waiting: deque[Future[tuple[Entry, Pixels | ImageError]]] = deque()
        for entry in entries:
            waiting.append(threads.submit(read, entry))
            if len(waiting) > 2 * n:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def ordered(labels: Iterable[str | None]) -> tuple[str, ...]:
    """Return the different labels in order: by number where all are numbers, else by name.

    >>> ordered(["10", "9", "10"]), ordered(["dog", "10", None])
    (('9', '10'), ('10', 'dog'))
    """
    names = {label for label in labels if label is not None}
    numbers = all(name.isdecimal() for name in names)
    return tuple(sorted(names, key=(lambda n: (int(n), n)) if numbers else (lambda n: (0, n))))


def indices(labels: Sequence[str | None], classes: Sequence[str]) -> Tensor | None:
    """Return the index of each label in ``classes``, (n,) int64; None where one has no label."""
    index = {name: k for k, name in enumerate(classes)}
    found = [index[label] for label in labels if label is not None]
    return torch.tensor(found) if len(found) == len(labels) else None


def _flatten(
    pictures: list[Pixels], orientations: Orientations, skipped: tuple[Skipped, ...], digest: str
) -> Photographs:
    """Return pictures as one array, each a photograph of its own without a label."""
    height = torch.tensor([p.shape[0] for p in pictures])
    width = torch.tensor([p.shape[1] for p in pictures])
    area = height * width
    cumulative = area.double().sqrt().cumsum(0)
    return Photographs(
        pixels=torch.from_numpy(np.concatenate([p.reshape(-1, 3) for p in pictures])),
        start=area.cumsum(0) - area,
        height=height,
        width=width,
        photograph=torch.arange(len(pictures)),
        cumulative=(cumulative / cumulative[-1]).float(),
        places=torch.arange(len(pictures)),
        orientations=orientations,
        labels=None,
        classes=(),
        n_photographs=len(pictures),
        skipped=skipped,
        digest=digest,
    )
