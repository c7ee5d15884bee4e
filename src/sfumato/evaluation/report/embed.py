"""Pictures inside a page: as good as fits."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from sfumato.errors import ImageError, SettingsError

if TYPE_CHECKING:
    import pyvips

#: Pictures of no more pixels than these, such as inputs, are always exact.
SMALL = 40_000
#: So many are looked at before all are encoded; what seems so much too large is passed over.
_FEW, _SURELY = 12, 1.15


@final
@dataclass(frozen=True)
class Encoding:
    """How pictures are stored, and ``words`` that say so on the page."""

    words: str
    form: Literal["webp", "jpeg"]
    options: Mapping[str, Any] = field(default_factory=dict)
    shrink: float = 1.0


EXACT = Encoding("exact, every value as in its file", "webp", {"lossless": True, "effort": 1})


def _near(level: int, error: int) -> Encoding:
    return Encoding(
        f"nearly exact: no value is off by more than {error} of 255 (WebP, near-lossless {level})",
        "webp",
        {"near_lossless": True, "Q": level, "effort": 1},
    )


def _lossy(quality: int) -> Encoding:
    # WebP with loss keeps colours at half resolution, and is off by 120 of 255 at their edges.
    return Encoding(
        f"compressed with loss (JPEG, quality {quality}, colours at full resolution)",
        "jpeg",
        {"Q": quality, "subsample_mode": "off", "optimize_coding": True},
    )


def _smaller(shrink: float) -> Encoding:
    return Encoding(
        f"made smaller, to {shrink:.0%} of their sides, and compressed (WebP, quality 80)",
        "webp",
        {"Q": 80, "smart_subsample": True, "effort": 2},
        shrink,
    )


#: From exact to small; the first that fits is taken, for all pictures alike.
LADDER = (
    EXACT,
    *(_near(level, error) for level, error in ((60, 2), (40, 4), (20, 8))),
    *(_lossy(quality) for quality in (92, 85, 75, 60)),
    *(_smaller(shrink) for shrink in (0.7, 0.5, 0.35, 0.25)),
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
        kind = "jpeg" if data[:2] == b"\xff\xd8" else "webp"
        found[key] = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        total += len(found[key])
        if total > limit_bytes:
            return None
    return found


def encoded(path: Path, encoding: Encoding) -> bytes:
    """Return a picture as WebP or JPEG of 8 bits. Small ones are exact whatever the encoding."""
    import pyvips

    image = _open(path)
    small = image.width * image.height <= SMALL
    chosen = EXACT if small else encoding
    try:
        if image.format == "ushort":
            image = (image / 257).rint().cast("uchar").copy(interpretation="srgb")
        if chosen.shrink < 1:
            image = image.resize(chosen.shrink)
        save = image.webpsave_buffer if chosen.form == "webp" else image.jpegsave_buffer
        data: bytes = save(keep="icc", **chosen.options)
    except pyvips.Error as error:
        raise ImageError(f"{path} cannot be read: {error}", do="make it again") from error
    return data


def _open(path: Path) -> pyvips.Image:
    import pyvips

    try:
        return pyvips.Image.new_from_file(str(path))
    except pyvips.Error as error:
        raise ImageError(f"{path} is no picture", do="make it again") from error
