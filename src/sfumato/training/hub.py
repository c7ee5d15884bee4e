"""Pictures of Hugging Face datasets, read by their library, ``datasets`` (the extra ``train``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sfumato.errors import SettingsError
from sfumato.training._optional import installed
from sfumato.training.pictures import Entry

#: What a name of a dataset begins with; ``hf:NAME:SPLIT`` names a split, by default "train".
PREFIX = "hf:"
#: Files that lie in a folder written by ``save_to_disk``.
SAVED = ("dataset_info.json", "dataset_dict.json")

_IMAGES = ("image", "img", "jpg", "png", "webp", "picture")
_LABELS = ("label", "cls", "class")
_SPLIT = "train"


def dataset_entries(data: str) -> tuple[Iterator[Entry], tuple[str, ...]]:
    """Return the pictures of a dataset, not yet decoded, and the names of its classes.

    ``data`` is ``hf:NAME`` or ``hf:NAME:SPLIT``, a folder written by ``save_to_disk``, or a file
    or folder of parquet or arrow files. Raises SettingsError where the library is missing, there
    is no such dataset or split, or no column holds pictures.
    """
    if not installed("datasets"):
        raise SettingsError(
            f"{data} is a dataset, and the library for those is not installed",
            do='install it with: pip install "sfumato[train]"',
        )
    import datasets

    try:
        rows = _open(data)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"the dataset {data} cannot be opened: {str(error).splitlines()[0]}",
            expected="hf:NAME, hf:NAME:SPLIT, or a folder or file of a dataset",
        ) from error
    features: Mapping[str, object] = rows.features or {}
    image = _column(features, datasets.Image, _IMAGES)
    if image is None:
        raise SettingsError(
            f"the dataset {data} has the columns {', '.join(features) or 'none'}",
            expected=f"one of pictures, or one called {', '.join(_IMAGES)}",
        )
    label = _column(features, datasets.ClassLabel, _LABELS)
    names = tuple(getattr(features.get(label or ""), "names", None) or ())
    columns = [image] if label is None else [image, label]
    rows = rows.select_columns(columns).cast_column(image, datasets.Image(decode=False))
    return _entries(data, rows, image, label, names), names


# `Any`: the library is optional, and so are its types.
def _open(data: str) -> Any:  # noqa: ANN401
    """Return the dataset; FileNotFoundError or ValueError say why not."""
    import datasets

    if data.startswith(PREFIX):
        name, _, split = data.removeprefix(PREFIX).partition(":")
        return datasets.load_dataset(name, split=split or _SPLIT)
    path = Path(data)
    if path.is_dir() and any((path / name).is_file() for name in SAVED):
        saved = datasets.load_from_disk(str(path))
        return saved if hasattr(saved, "features") else _split_of(saved)
    files = [path] if path.is_file() else sorted(path.glob("*"))
    for kind in ("parquet", "arrow"):
        found = [str(p) for p in files if p.suffix == f".{kind}"]
        if found:
            # Streamed, or all would be copied into the library's cache.
            return datasets.load_dataset(kind, data_files=found, split=_SPLIT, streaming=True)
    raise FileNotFoundError(f"there is no {path} of parquet or arrow files")


def _split_of(saved: Mapping[str, object]) -> object:
    if _SPLIT not in saved and len(saved) != 1:
        raise ValueError(f"it has the splits {', '.join(saved)}; give the folder of one")
    return saved[_SPLIT] if _SPLIT in saved else next(iter(saved.values()))


def _column(features: Mapping[str, object], kind: type, names: Iterable[str]) -> str | None:
    """Return the first column of a kind, else the first that has one of ``names``."""
    known = [name for name, feature in features.items() if isinstance(feature, kind)]
    named = [name for name in names if name in features]
    return next(iter(known + named), None)


def _entries(
    data: str,
    rows: Iterable[Mapping[str, Any]],
    image: str,
    label: str | None,
    names: tuple[str, ...],
) -> Iterator[Entry]:
    for k, row in enumerate(rows):
        picture, place = row[image] or {}, Path(data) / str(k)
        found = _name(row[label], names) if label is not None else None
        if picture.get("bytes") is not None:
            yield Entry(place, picture["bytes"], found)
        elif picture.get("path") is not None:
            yield Entry(Path(picture["path"]), None, found)
        else:
            yield Entry(place, None, found, missing="empty")


def _name(value: object, names: tuple[str, ...]) -> str | None:
    """Return the name of a class; numbers stand for ``names``, those below 0 for none at all."""
    if value is None or (isinstance(value, int) and value < 0):
        return None
    return names[value] if names and isinstance(value, int) else str(value)
