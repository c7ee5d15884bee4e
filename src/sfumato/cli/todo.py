"""Which files there are to do, and where their results go."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sfumato.cli.saying import fail
from sfumato.errors import ImageError, SettingsError

#: An output that ends like this is meant to be a file.
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".npy")


@dataclass(frozen=True)
class Todo:
    """Files in their order, and where results go: in ``output`` as the files lie in ``folder``."""

    files: Sequence[Path]
    output: Path
    folder: Path | None = None

    def target(self, file: Path) -> Path:
        """Return where the result of a file goes."""
        return self.output if self.folder is None else self.output / file.relative_to(self.folder)


def todo_of(
    source: Path,
    output: Path,
    *,
    recursive: bool = False,
    warned: Callable[[str], None] = fail,
) -> Todo:
    """List what is to be done: one file, or those of a folder, sorted, with its tree kept.

    What lies in the folder of the outputs is no input, wherever that is. ``warned`` is told of
    folders that cannot be read.
    """
    from sfumato.io import find_pictures
    from sfumato.io.storage import address, name_of

    folder = output.is_dir() and output.suffix.lower() != ".zarr"
    if address(source):
        return Todo([source], output / name_of(source) if folder else output)
    if not source.is_dir():
        if not source.exists():
            raise ImageError(f"there is no file {source}", expected="a picture or a folder")
        name = source.with_suffix(".png").name if source.suffix.lower() == ".npy" else source.name
        return Todo([source], output / name if folder else output)
    if output.is_file() or output.suffix.lower() in _PICTURES:
        raise SettingsError(
            f"the folder {source} to the file {output}", expected="a folder for --output"
        )
    found = find_pictures(source, recursive=recursive, unreadable=warned)
    outer, inner = (os.path.realpath(p) + os.sep for p in (source, output))
    if inner != outer and inner.startswith(outer):
        outputs = str(source / inner[len(outer) :]) + os.sep
        found = [p for p in found if not str(p).startswith(outputs)]
    if not found:
        raise ImageError(
            f"the folder {source} holds no pictures", do="" if recursive else "try --recursive"
        )
    return Todo(found, output, source)


def there_is(place: Path) -> bool:
    """Say whether there is something, here or at an address."""
    from sfumato.io.storage import address, exists

    return exists(place) if address(place) else place.exists()
