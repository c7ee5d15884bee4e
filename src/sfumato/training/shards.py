"""Photographs in shards, of which one at a time lies in memory.

A shard is a tar file as webdataset writes them: files of one name are one example, ``0007.jpg``
with its class in ``0007.cls``. It is indexed once (names, places, classes) and decoded when its
turn comes. Which shard serves a step is a function of seed and step: the examples of all steps
are counted, every picture stands for one of them, and each epoch goes through the shards in an
order of its own. So a run that was interrupted goes on with the same crops, without any state.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TypeAlias, final

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.errors import SettingsError
from sfumato.training._draws import Draws, Purpose
from sfumato.training.data import Photographs, Reading, gather, indices, ordered
from sfumato.training.pictures import Entry, Skipped

_PICTURES = frozenset(
    ("avif", "bmp", "gif", "heic", "jpeg", "jpg", "jxl", "png", "ppm", "tif", "tiff", "webp")
)
_LABEL = "cls"
_TAIL = 64  # bytes of a picture that go into the digest


_Decoded: TypeAlias = tuple[Photographs | None, tuple[Skipped, ...]]


@dataclass(frozen=True)
class Sample:
    """A picture in a shard: its name, where its bytes are, how they end, and its class."""

    name: str
    offset: int
    size: int
    tail: bytes
    label: str | None


@dataclass(frozen=True)
class Shard:
    """A tar file and the pictures in it."""

    path: Path
    samples: tuple[Sample, ...]

    def entries(self) -> Iterator[Entry]:
        """Yield the pictures of the shard, not yet decoded, one after the other.

        Raises SettingsError where the file is gone.
        """
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise _unreadable(self.path, error) from error
        with file:
            for s in self.samples:
                file.seek(s.offset)
                yield Entry(self.path / s.name, file.read(s.size), s.label)


def index_shard(path: Path) -> Shard:
    """Read the names in a tar file, not the pictures; SettingsError where it cannot be read."""
    samples = []
    try:
        with tarfile.open(path, "r:") as tar, path.open("rb") as file:
            files = (member for member in tar if member.isfile())
            for _, group in itertools.groupby(files, lambda member: _split(member.name)[0]):
                parts = {_split(member.name)[1]: member for member in group}
                label = _text(file, parts[_LABEL]) if _LABEL in parts else None
                for suffix in sorted(_PICTURES & parts.keys())[:1]:
                    m = parts[suffix]
                    tail = _bytes(file, m.offset_data + max(0, m.size - _TAIL), min(_TAIL, m.size))
                    samples.append(Sample(m.name, m.offset_data, m.size, tail, label))
    except (OSError, tarfile.TarError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    return Shard(path, tuple(samples))


def _unreadable(path: Path, error: Exception) -> SettingsError:
    return SettingsError(
        f"the shard {path} cannot be read: {error}",
        expected="a tar file that is whole and not compressed",
    )


def _split(name: str) -> tuple[str, str]:
    """Split a name at the first dot of its last part, as webdataset does."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return folder + slash + stem, suffix.lower()


def _bytes(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _text(file: IO[bytes], member: tarfile.TarInfo) -> str:
    return _bytes(file, member.offset_data, member.size).decode().strip()


def find_shards(data: str) -> list[Path]:
    """Return the tar files of a folder, or of a name with braces, in order.

    >>> [str(path) for path in find_shards("photos-{08..10}.tar")]
    ['photos-08.tar', 'photos-09.tar', 'photos-10.tar']
    """
    folder = Path(data)
    if folder.is_dir():
        return sorted(p for p in folder.glob("*.tar") if not p.name.startswith("."))
    return [Path(name) for name in _expanded(data)]


def _expanded(name: str) -> list[str]:
    """Expand ``{a..b}`` (numbers, as wide as ``a``) and ``{x,y}``, from left to right."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", name)
    if match is None:
        return [name]
    low, high, names = match.groups()
    if names is None:
        choices = [str(k).zfill(len(low)) for k in range(int(low), int(high) + 1)]
    else:
        choices = names.split(",")
    before, after = name[: match.start()], name[match.end() :]
    return [before + choice + rest for choice in choices for rest in _expanded(after)]


@final
class Shards:
    """A ``Source`` that decodes one shard at a time, and the next one while it is used.

    ``examples_before(step)`` counts the examples of all steps before: the clock of the epochs.
    ``n_photographs`` and ``labels`` are those of the index; ``skipped`` grows as shards are
    decoded. ``digest`` names the pictures by name, size, class and their last bytes. Raises
    SettingsError where a shard cannot be read, or none holds pictures.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        reading: Reading,
        *,
        seed: int,
        examples_before: Callable[[int], int],
        device: torch.device,
    ) -> None:
        self._shards = [index_shard(path) for path in paths]
        self._reading = reading
        self._seed = seed
        self._before = examples_before
        self.device = device
        samples = [s for shard in self._shards for s in shard.samples]
        if not samples:
            raise SettingsError(
                f"no picture in {len(paths)} shards, {', '.join(p.name for p in paths[:3])}",
                expected="tar files of pictures, such as 0007.jpg, with 0007.cls for their class",
            )
        self.n_photographs = len(samples)
        self._sizes = torch.tensor([len(shard.samples) for shard in self._shards])
        self._first = self._sizes.cumsum(0) - self._sizes
        self.classes = ordered(s.label for s in samples)
        labels = indices([s.label for s in samples], self.classes)
        self.labels = None if labels is None else labels.to(device)
        self.digest = _digest(self._shards)
        self._left_out: dict[int, tuple[Skipped, ...]] = {}
        self._held: tuple[int, Photographs | None] = (-1, None)
        self._ahead: tuple[int, Future[_Decoded]] | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="shards")

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was left out of the shards decoded so far."""
        return tuple(s for some in self._left_out.values() for s in some)

    def crops(self, draws: Draws, side: int) -> Images:
        """Return a random crop for each example: (n, 3, side, side) in [-1, 1].

        All are of the shard that serves the step of ``draws``.
        """
        return self._serving(draws.step)[1].crops(draws, side)

    def picture_of(self, draws: Draws) -> Tensor:
        """Return the index among all pictures of what each crop shows: (n,) int64."""
        shard, held = self._serving(draws.step)
        return self._first[shard].item() + held.places[held.picture_of(draws)]

    def order(self, epoch: int) -> list[int]:
        """Return in which order an epoch goes through the shards."""
        return list(_order(self._seed, epoch, len(self._shards)))

    def turns(self, step: int) -> list[int]:
        """Return the shards in order from the one on that has its turn at ``step``."""
        epoch, at = divmod(self._before(step), self.n_photographs)
        order = self.order(epoch)
        ends = self._sizes[order].cumsum(0)
        place = int(torch.searchsorted(ends, at, right=True))
        return order[place:] + self.order(epoch + 1)

    def _serving(self, step: int) -> tuple[int, Photographs]:
        """Return the first shard from ``step`` on that has a picture one can use."""
        turns = self.turns(step)
        for place, shard in enumerate(turns):
            held = self._decoded(shard)
            if held is not None:
                self._look_ahead(turns[place + 1 :])
                return shard, held
        reasons = "; ".join(f"{s.path.name}: {s.reason}" for s in self.skipped[:3])
        raise SettingsError(
            f"no photograph of {self.n_photographs} in shards can be used ({reasons})",
            expected=f"colour pictures of at least {self._reading.smallest} pixels a side",
        )

    def _decoded(self, shard: int) -> Photographs | None:
        if self._held[0] != shard:
            if self._ahead is not None and self._ahead[0] == shard:
                held, left_out = self._ahead[1].result()
            else:
                held, left_out = self._decode(shard)
            self._ahead = None
            self._left_out[shard] = left_out
            self._held = shard, None if held is None else held.to(self.device)
        return self._held[1]

    def _decode(self, shard: int) -> _Decoded:
        return gather(self._shards[shard].entries(), self._reading, self.classes)

    def _look_ahead(self, turns: Sequence[int]) -> None:
        """Begin to decode the shard whose turn comes next, if it is another one."""
        if turns and self._ahead is None and turns[0] != self._held[0]:
            self._ahead = turns[0], self._worker.submit(self._decode, turns[0])


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, n: int) -> tuple[int, ...]:
    u = Draws(seed, epoch, 0, 1).uniform(Purpose.SHARDS, n)[0]
    return tuple(u.argsort(stable=True).tolist())


def _digest(shards: Sequence[Shard]) -> str:
    sha = hashlib.sha256()
    for shard in shards:
        sha.update(repr(shard.path.name).encode())
        for s in shard.samples:
            sha.update(repr((s.name, s.size, s.label, s.tail)).encode())
    return sha.hexdigest()
