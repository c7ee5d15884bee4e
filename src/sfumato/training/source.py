"""Where photographs come from: a folder, a dataset, or shards; and what a lesson asks of them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.errors import SettingsError
from sfumato.training._draws import Draws
from sfumato.training.data import Orientations, Photographs, Reading, gather
from sfumato.training.hub import PREFIX, SAVED, dataset_entries
from sfumato.training.pictures import Entry, Skipped, folder_entries
from sfumato.training.settings import RunSettings
from sfumato.training.shards import Shards, find_shards, index_shard

#: Files that may lie beside shards and parquet files.
_BESIDE = frozenset((".json", ".txt", ".md", ".csv", ".idx", ".lock", ""))
_ROWS = (".parquet", ".arrow")


class Source(Protocol):
    """Photographs, and random crops of them that are a function of (seed, step, example).

    There is no state: a run that was interrupted asks for the next step and gets what it would
    have got.
    """

    @property
    def device(self) -> torch.device:
        """Where crops are."""
        ...

    @property
    def n_photographs(self) -> int:
        """How many there are."""
        ...

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was left out so far."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of what they are."""
        ...

    @property
    def labels(self) -> Tensor | None:
        """Indices into ``classes``, (n_photographs,) int64; None where one has no class."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, none where there are none."""
        ...

    def crops(self, draws: Draws, side: int) -> Images:
        """Return one crop for each example, (n, 3, side, side) in [-1, 1]."""
        ...

    def picture_of(self, draws: Draws) -> Tensor:
        """Return which photograph each crop shows, (n,) int64: an index into ``labels``."""
        ...


def kind_of(data: str | Path) -> Literal["folder", "dataset", "shards"]:
    """Tell what ``data`` names.

    A folder is one of shards, or a dataset, only where nothing but those lies in it.

    >>> kind_of("hf:user/name"), kind_of("photos-{00..12}.tar"), kind_of("photos")
    ('dataset', 'shards', 'folder')
    """
    name, path = str(data), Path(data)
    if name.startswith(PREFIX):
        return "dataset"
    if not path.is_dir():
        if path.suffix == ".tar":
            return "shards"
        return "dataset" if path.suffix in _ROWS else "folder"
    if any((path / saved).is_file() for saved in SAVED):
        return "dataset"
    shown = [p for p in path.iterdir() if not p.name.startswith(".")]
    kinds = {"/" if p.is_dir() else p.suffix.lower() for p in shown} - _BESIDE
    if kinds == {".tar"}:
        return "shards"
    return "dataset" if len(kinds) == 1 and kinds <= set(_ROWS) else "folder"


def entries_of(data: str | Path) -> tuple[Iterable[Entry], tuple[str, ...]]:
    """Return all pictures of ``data``, not yet decoded, and the names of classes if it gives them.

    Raises SettingsError where ``data`` cannot be opened.
    """
    kind = kind_of(data)
    if kind == "folder":
        return folder_entries(Path(data)), ()
    if kind == "dataset":
        return dataset_entries(str(data))
    shards = map(index_shard, find_shards(str(data)))
    return chain.from_iterable(shard.entries() for shard in shards), ()


def load_photographs(
    data: str | Path,
    *,
    min_side: int = 128,
    halvings: int = 2,
    prepare: int | None = None,
    orientations: Orientations = "all",
) -> Photographs:
    """Read all pictures of a folder, a dataset or shards into memory.

    Any format that libvips knows will do. Colours are taken as sRGB, 8 bits; alpha is laid over
    white. See ``Reading`` for the rest. It takes 4 bytes of memory a pixel. What is no picture,
    too small or grey is listed in ``skipped``; SettingsError says so where nothing is left.
    """
    return _load(str(data), Reading(min_side, halvings, prepare, orientations))


def _load(data: str, reading: Reading) -> Photographs:
    entries, classes = entries_of(data)
    photographs, skipped = gather(entries, reading, classes)
    if photographs is None:
        reasons = "; ".join(f"{s.path.name}: {s.reason}" for s in skipped[:3]) or "it is empty"
        side = reading.smallest
        raise SettingsError(
            f"no photograph in {data} can be used ({reasons})",
            expected=f"colour pictures of at least {side} x {side} pixels",
            do="a prior worth using wants hundreds of photographs",
        )
    return photographs


def open_source(data: str | Path, settings: RunSettings, device: torch.device) -> Source:
    """Return the photographs of ``data`` as ``settings`` want them, their crops on ``device``.

    Shards are decoded one by one, all else is read into memory. Raises SettingsError where
    ``data`` cannot be read or nothing in it can be used.
    """
    s = settings
    reading = Reading(max(s.crop_cycle), s.halvings, s.prepare, s.orientations)
    if kind_of(data) != "shards":
        return _load(str(data), reading).to(device)
    paths = find_shards(str(data))
    return Shards(paths, reading, seed=s.seed, examples_before=s.examples_before, device=device)
