"""The pictures of a benchmark: where they are, and how they are prepared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sfumato.errors import ImageError, SettingsError
from sfumato.evaluation.learned import label_of, labels_of_folders, read_labels
from sfumato.evaluation.measure import Picture
from sfumato.evaluation.recipe import Data
from sfumato.io import find_pictures, read_picture
from sfumato.training.pictures import prepared


@dataclass(frozen=True)
class Photograph:
    """A picture of a data set: a name that is safe in a file name, its file, its number from 0."""

    name: str
    path: Path
    number: int

    @property
    def folder(self) -> str:
        """The name of the folder it lies in."""
        return self.path.parent.name


def find_data(data: Data, places: Sequence[Path]) -> Path:
    """Return the folder of the pictures: in one of ``places``, by name in any case, or one itself.

    Raises SettingsError where there is none, in one line: what, where, and how to say it.
    """
    wanted = data.name.lower()
    for place in places:
        if place.is_dir():
            inside = sorted(p for p in place.iterdir() if p.is_dir())
            named = [p for p in inside if p.name.lower() == wanted]
            if named:
                return named[0]
            if place.name.lower() == wanted or find_pictures(place):
                return place
    where = " or ".join(map(str, places)) or "no folder at all"
    raise SettingsError(
        f"{data.name} was looked for in {where}",
        expected=f"a folder {data.name}" + (f" with {data.about}" if data.about else ""),
        do="give --data FOLDER, or set SFUMATO_DATA to the folder that holds it",
    )


def photographs(data: Data, folder: Path, *, limit: int | None = None) -> list[Photograph]:
    """List the pictures in ``folder`` and below by name, the first ones where that is asked for.

    Raises SettingsError where there is none.
    """
    found = find_pictures(folder, recursive=True)[: data.first]
    if not found:
        raise SettingsError(f"{folder} holds no pictures", expected=data.about or data.name)
    names: dict[str, int] = {}
    listed = []
    for number, path in enumerate(found[:limit]):
        inner = path.relative_to(folder).with_suffix("").as_posix()
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", inner).strip(".-") or "picture"
        names[name] = names.get(name, 0) + 1
        again = f"-{names[name]}" if names[name] > 1 else ""
        listed.append(Photograph(name + again, path, number))
    return listed


def load_photograph(photograph: Photograph, data: Data) -> Picture:
    """Return the prepared picture (channels, height, width) in [0, 1], of 8 bits.

    Raises ImageError for one that cannot be read, is too small, or is grey where that is left out.
    """
    x = (read_picture(photograph.path).pixels * 255).round().to(torch.uint8)
    if len(x) == 1 and data.grey == "skip":
        raise ImageError(f"{photograph.path.name} is grey", expected="a picture with colours")
    channels = len(x)
    if data.side is not None:
        rows = np.ascontiguousarray(x.expand(3, -1, -1).permute(1, 2, 0).numpy())
        x = torch.from_numpy(prepared(rows, data.side)).permute(2, 0, 1)[:channels]
    if channels == 1 and data.grey == "repeat":
        x = x.expand(3, -1, -1)
    height, width = (n - n % data.multiple for n in x.shape[1:])
    if min(height, width) < 1:
        raise ImageError(
            f"{photograph.path.name} of {x.shape[2]} x {x.shape[1]} pixels",
            expected=f"at least {data.multiple} a side",
        )
    return (x[:, :height, :width].float() / 255).contiguous()


def classes(
    listed: Sequence[Photograph], folder: Path, labels: Path | None = None
) -> dict[str, int]:
    """Return the classes of photographs by their names: from a list, or by their folders.

    Raises ImageError for a list that lacks one, SettingsError for folders that name none.
    """
    keys = [p.path.relative_to(folder).with_suffix("").as_posix() for p in listed]
    known = labels_of_folders(keys) if labels is None else read_labels(labels)
    return {p.name: label_of(key, known) for p, key in zip(listed, keys, strict=True)}
