"""Which result belongs to which reference: files of two folders that have one name."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final, overload

from typing_extensions import override

from sfumato.errors import ImageError, SettingsError
from sfumato.evaluation.measure import Picture
from sfumato.io import find_pictures, read_measurement
from sfumato.io._formats import FORMATS

#: What `sfumato --samples` writes beside a result.
_BESIDE = re.compile(r"(.+)\.(sample-\d+|mean|std)")
#: Names that an error lists; the rest is counted.
_SHOWN = 5
_NO_LIMIT = 1 << 62


@final
@dataclass(frozen=True)
class Pair:
    """A result with what belongs to it, as files. ``key`` is its name without the ending."""

    key: str
    result: Path
    reference: Path | None = None
    measurement: Path | None = None
    samples: tuple[Path, ...] = ()


def pair_up(
    results: Path,
    references: Path | None,
    *,
    measurements: Path | None = None,
    samples: bool = False,
    recursive: bool = False,
    allow_missing: bool = False,
) -> list[Pair]:
    """Match results with references and measurements by name, endings aside, sorted.

    Each is a folder, or a file; two files belong together whatever their names. What
    ``sfumato --samples`` wrote beside a result is no result of its own; with ``samples`` it
    belongs to it. With ``allow_missing`` only those are returned that have all there could be.

    Raises SettingsError for names that lack a counterpart, on either side, or that come twice;
    ImageError for folders that cannot be read, or hold no picture.
    """
    own = _named(results, recursive)
    if samples and not results.is_dir():
        beside = results.parent.glob(f"{glob.escape(results.stem)}.sample-*")
        own |= {path.stem: path for path in sorted(beside) if path.suffix == results.suffix}
    extra = {k: m[1] for k in own if (m := _BESIDE.fullmatch(k)) and m[1] in own}
    others: dict[str, Mapping[str, Path]] = {}
    for what, place in (("reference", references), ("measurement", measurements)):
        if place is not None:
            single = len(own) - len(extra) == 1 and not results.is_dir() and not place.is_dir()
            found = _named(place, recursive)
            others[what] = {next(iter(own)): place} if single else found
    kept = [k for k in own if k not in extra]
    both = [k for k in kept if all(k in there for there in others.values())]
    if not allow_missing:
        _refuse_unmatched(kept, others)
    if not both:
        raise SettingsError(
            f"{results} and {references or measurements} have no name in common",
            expected="results named like their references, endings aside",
        )
    return [
        Pair(
            k,
            own[k],
            others.get("reference", {}).get(k),
            others.get("measurement", {}).get(k),
            tuple(own[e] for e, of in extra.items() if of == k and ".sample-" in e[len(of) :])
            if samples
            else (),
        )
        for k in both
    ]


def _named(place: Path, recursive: bool) -> dict[str, Path]:
    """Return the pictures of a folder, or the one file, by their names without ending."""
    if not place.is_dir():
        if not place.exists():
            raise ImageError(f"there is no {place}", expected="a picture or a folder of them")
        return {place.stem: place}
    named: dict[str, Path] = {}
    arrays = sorted(place.rglob("*.npy") if recursive else place.glob("*.npy"))
    for path in [*find_pictures(place, recursive=recursive), *arrays]:
        key = path.relative_to(place).with_suffix("").as_posix()
        if key in named:
            raise SettingsError(
                f"{named[key]} and {path}, of one name", expected="one file of each name"
            )
        named[key] = path
    if not named:
        raise ImageError(
            f"the folder {place} holds no pictures ({', '.join(FORMATS)}, .npy)",
            do="" if recursive else "try --recursive",
        )
    return dict(sorted(named.items()))


def _refuse_unmatched(kept: Sequence[str], others: Mapping[str, Mapping[str, Path]]) -> None:
    told = []
    for what, there in others.items():
        without = [k for k in kept if k not in there]
        alone = [k for k in there if k not in kept]
        if without:
            told.append(f"{len(without)} results without a {what} ({_some(without)})")
        if alone:
            told.append(f"{len(alone)} {what}s without a result ({_some(alone)})")
    if told:
        raise SettingsError(
            " and ".join(told),
            expected="files of the same names, endings aside",
            do="rename them, or leave them out with --allow-missing",
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def read(path: Path) -> Picture:
    """Read a picture whole, or an array's numbers, as float32 in [0, 1].

    Raises ImageError, for NaN too.
    """
    return read_measurement(path, limit_pixels=_NO_LIMIT)


@final
class PictureFiles(Sequence[Picture]):
    """The pictures of files, each read when it is asked for and not kept."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)

    @override
    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, k: int) -> Picture: ...
    @overload
    def __getitem__(self, k: slice) -> PictureFiles: ...
    @override
    def __getitem__(self, k: int | slice) -> Picture | PictureFiles:
        return PictureFiles(self.files[k]) if isinstance(k, slice) else read(self.files[k])
