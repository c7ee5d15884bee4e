"""Pictures inside a page: as good as fits."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from sfumato.errors import ImageError, SettingsError

if TYPE_CHECKING:
    import pyvips

#: Pictures of no more pixels than these, such as inputs, are always exact.
SMALL = 40_000
#: So many are looked at before all are encoded; what seems so much too large is passed over.
_FEW, _SURELY = 12, 1.15
_HEAD = "data:image/webp;base64,"


@final
@dataclass(frozen=True)
class Encoding:
    """How pictures are stored, and ``words`` that say so on the page."""

    words: str
    options: Mapping[str, Any] = field(default_factory=dict)
    shrink: float = 1.0


EXACT = Encoding("exact, every value as in its file", {"lossless": True, "effort": 1})


def _lossy(quality: int) -> dict[str, Any]:
    return {"Q": quality, "smart_subsample": True, "effort": 2}


#: From exact to small; the first that fits is taken, for all pictures alike.
LADDER = (
    EXACT,
    Encoding(
        "nearly exact: values are off by at most a few of 255 (WebP, near-lossless 60)",
        {"near_lossless": True, "Q": 60, "effort": 1},
    ),
    *(
        Encoding(f"compressed with loss (WebP, quality {q})", _lossy(q))
        for q in (98, 95, 90, 80, 65)
    ),
    *(
        Encoding(
            f"made smaller, to {shrink:.0%} of their sides, and compressed with loss "
            "(WebP, quality 80)",
            _lossy(80),
            shrink,
        )
        for shrink in (0.7, 0.5, 0.35, 0.25)
    ),
)


@final
@dataclass(frozen=True)
class Embedded:
    """Addresses of pictures that hold the pictures themselves, by key."""

    encoding: Encoding
    addresses: Mapping[str, str]


def embed(pictures: Mapping[str, Path], limit_bytes: int) -> Embedded:
    """Encode pictures so that together they take at most ``limit_bytes`` on the page.

    Raises:
        ImageError: a file that is no picture.
        SettingsError: they do not fit even when they are small.
    """
    for encoding in LADDER:
        if _estimate(pictures, encoding) > _SURELY * limit_bytes:
            continue
        found = _within(pictures, encoding, limit_bytes)
        if found is not None:
            return Embedded(encoding, found)
    raise SettingsError(
        f"{len(pictures)} pictures do not fit into {limit_bytes / 1e6:.1f} MB",
        do="allow more with --max-mb, or compare fewer pictures",
    )


def size_of(path: Path) -> tuple[int, int]:
    """Return height and width, from the header of a file."""
    image = _open(path)
    return image.height, image.width


def _estimate(pictures: Mapping[str, Path], encoding: Encoding) -> float:
    """Return about how much all would take, from a few of them."""
    few = list(pictures.values())[:: 1 + len(pictures) // _FEW]
    n_bytes = sum(len(encoded(path, encoding)) for path in few)
    areas = {path: math.prod(size_of(path)) for path in pictures.values()}
    return 4 / 3 * n_bytes * sum(areas.values()) / sum(areas[path] for path in few)


def _within(
    pictures: Mapping[str, Path], encoding: Encoding, limit_bytes: int
) -> dict[str, str] | None:
    """Return the addresses, or None as soon as they are too much."""
    found: dict[str, str] = {}
    total = 0
    for key, path in pictures.items():
        data = encoded(path, encoding)
        total += len(_HEAD) + 4 * ((len(data) + 2) // 3)
        if total > limit_bytes:
            return None
        found[key] = _HEAD + base64.b64encode(data).decode()
    return found


def encoded(path: Path, encoding: Encoding) -> bytes:
    """Return a picture as WebP of 8 bits. Small ones are exact whatever the encoding."""
    import pyvips

    image = _open(path)
    small = image.width * image.height <= SMALL
    options = EXACT.options if small else encoding.options
    try:
        if image.format == "ushort":
            image = (image / 257).rint().cast("uchar").copy(interpretation="srgb")
        if encoding.shrink < 1 and not small:
            image = image.resize(encoding.shrink)
        data: bytes = image.webpsave_buffer(keep="icc", **options)
    except pyvips.Error as error:
        raise ImageError(f"{path} cannot be read: {error}", do="make it again") from error
    return data


def _open(path: Path) -> pyvips.Image:
    import pyvips

    try:
        return pyvips.Image.new_from_file(str(path))
    except pyvips.Error as error:
        raise ImageError(f"{path} is no picture", do="make it again") from error
