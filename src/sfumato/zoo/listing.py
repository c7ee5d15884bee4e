"""The models at hand, in a list: those of the package, and those in the hub's cache.

Read from headers and JSON, without torch and without any weights.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from sfumato.errors import ModelError
from sfumato.zoo.prior import list_priors

#: Of what comes with the package.
OWN_LICENCE = "Apache-2.0"


@final
@dataclass(frozen=True)
class Listed:
    """A model in a list. ``n_parameters`` is None where only its weights would tell."""

    name: str
    source: Path
    size_bytes: int
    n_parameters: int | None
    tile: int
    sizes: str
    licence: str
    summary: str


def list_models(cache: Path | None = None) -> list[Listed]:
    """Describe the models at hand; ``cache`` is the hub's, by custom that of its own programs.

    >>> [model.name for model in list_models(Path("no-cache"))]
    ['embedded', 'sr3']
    """
    return [*_own(), *_fetched(cache)]


def _own() -> Iterator[Listed]:
    for prior in list_priors():
        header = _header(prior.source)
        said = json.loads(header.get("__metadata__", {}).get("config", "{}"))
        yield Listed(
            prior.name,
            prior.source,
            prior.size_bytes,
            _count(header),
            int(said.get("tile", 512)),
            "any",
            OWN_LICENCE,
            prior.summary,
        )


def _fetched(cache: Path | None) -> Iterator[Listed]:
    from sfumato.zoo.diffusers_folder import sizes, summary, weights
    from sfumato.zoo.folder import read_folder
    from sfumato.zoo.hub import cached

    for name, path in cached(cache):
        try:
            folder = read_folder(path)
            tile, sees = folder.tile, sizes(folder)
        except ModelError:
            continue  # the cache holds what other programs use too, as networks of latent images
        files = weights(folder)
        safe = all(file.suffix == ".safetensors" for file in files)
        yield Listed(
            str(name),
            path,
            sum(file.stat().st_size for file in files),
            sum(_count(_header(file)) for file in files) if safe else None,
            tile,
            sees,
            folder.licence or "not stated",
            summary(folder),
        )


def _header(path: Path) -> dict[str, dict[str, str]]:
    """Read the header of a safetensors file; empty where it is damaged, which loading tells."""
    with path.open("rb") as file:
        start = file.read(8)
        n = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        text = file.read(min(n, 100 << 20))
    try:
        header: dict[str, dict[str, str]] = json.loads(text)
    except ValueError:
        return {}
    return header


def _count(header: Mapping[str, Mapping[str, object]]) -> int:
    shapes = [tensor.get("shape") for name, tensor in header.items() if name != "__metadata__"]
    return sum(math.prod(shape) for shape in shapes if isinstance(shape, list))
