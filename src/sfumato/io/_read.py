"""Reading pictures and measurements, whole or not at all."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sfumato.errors import ImageError
from sfumato.io._exif import (
    clean_exif,
    clean_xmp,
    exif_orientation,
    exif_resolution,
    read_tiff_exif,
)
from sfumato.io._formats import NUMPY, damaged, read_head, read_png_exif, sniff, vips_reason
from sfumato.io._picture import Picture

if TYPE_CHECKING:
    import pyvips

#: Pictures of more pixels are refused before they are decoded, unless the caller says otherwise.
LIMIT_PIXELS = 100_000_000

_GREY = ("b-w", "grey16")
_COLOUR = ("srgb", "rgb16", "rgb")
_BITS = {"uchar": 8, "ushort": 16}
_MM_PER_INCH = 25.4


def read_picture(path: str | Path, *, limit_pixels: int = LIMIT_PIXELS) -> Picture:
    """Read a PNG, JPEG, WebP or TIFF picture of 8 or 16 bits; palettes and single bits become 8.

    The values are those stored. Two things are changed, and the second is told in ``notes``: an
    EXIF orientation is applied (and the kept EXIF then says upright), and CMYK, which no model
    here speaks, is converted to sRGB through its profile.

    Colours that a TIFF stores multiplied by alpha are divided by it.

    A file of several pictures (pages, animation) is refused, rather than one of them chosen in
    silence; the smaller copies and thumbnails of a pyramid in TIFF are passed over.

    Args:
        path: the file; its kind is told by its first bytes, not by its name.
        limit_pixels: refuse larger pictures, by the size in their header.

    Raises:
        ImageError: no such file, not a picture, damaged, cut short, too large, of another kind.

    Example:
        >>> read_picture("photo.png").pixels.shape
        torch.Size([3, 480, 640])
    """
    header = read_header(Path(path), limit_pixels=limit_pixels)
    n_channels = header.n_channels
    values = decode(header.path, header.image).div_(2**header.bits - 1)
    planes = upright(values, header.orientation)
    return Picture(
        pixels=planes[:n_channels].contiguous(),
        alpha=planes[n_channels:].contiguous() if header.has_alpha else None,
        bits=header.bits,
        icc=header.icc,
        exif=header.exif,
        xmp=header.xmp,
        resolution=header.resolution,
        format=header.kind,
        notes=header.notes,
    )


def read_measurement(
    path: str | Path, *, limit_pixels: int = LIMIT_PIXELS
) -> Float[Tensor, "channels height width"]:
    """Read numbers as they are, within [0, 1] or not, as float32 (channels, height, width).

    Args:
        path: a .npy array of floats, (height, width), (channels, height, width) or, when only the
            last axis can be red, green and blue, (height, width, 3); a float TIFF; or any picture,
            whose pixels in [0, 1] are returned without its alpha.
        limit_pixels: refuse more pixels (height * width).

    Raises:
        ImageError: as `read_picture`; and for numbers that are not finite in float32, an array of
            another type or shape, Python objects.

    Example:
        >>> read_measurement("coefficients.npy").shape
        torch.Size([3, 64, 64])
    """
    path = Path(path)
    if read_head(path).startswith(NUMPY):
        array = map_array(path)
        _check_size(path, array.shape[2], array.shape[1], limit_pixels)
        return check_finite(path, as_float(array))
    kind = sniff(path)
    image = _open(path, kind)
    if image.format not in ("float", "double"):
        return read_picture(path, limit_pixels=limit_pixels).pixels
    _check_size(path, image.width, image.height, limit_pixels)
    _check_single(path, kind, image)
    _stored_exif(path, kind, image)  # for its check that the file is whole
    return check_finite(path, decode(path, image))


@dataclass(frozen=True)
class Header:
    """All that a file tells of its picture before the pixels are decoded.

    ``image`` is not yet upright; the rest is as in `Picture`.
    """

    path: Path
    kind: str
    image: "pyvips.Image"
    n_channels: int
    orientation: int
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    resolution: tuple[float, float] | None
    notes: tuple[str, ...]

    @property
    def bits(self) -> int:
        """Bits of each stored value: 8 or 16."""
        return _BITS[self.image.format]

    @property
    def has_alpha(self) -> bool:
        """Whether the last band is alpha."""
        return bool(self.image.bands > self.n_channels)


def read_header(path: Path, *, limit_pixels: int | None, windows: bool = False) -> Header:
    """Read all but the pixels, and refuse what `read_picture` refuses, as far as is known by then.

    Args:
        path: the file.
        limit_pixels: refuse larger pictures; None for no limit.
        windows: open tiled TIFF for access in any order; all else is to be read from the top down.

    Raises:
        ImageError: as `read_picture`.
    """
    kind = sniff(path)
    image = _open(path, kind)
    _check_size(path, image.width, image.height, limit_pixels)
    _check_single(path, kind, image)
    if windows and is_tiled(image):
        image = _open(path, kind, access="random")
    image, notes = _to_light(path, image)
    n_channels = _count_channels(path, image)
    stored_exif = _stored_exif(path, kind, image)
    exif = clean_exif(stored_exif)
    if stored_exif and not exif:
        notes.append("The EXIF block is damaged and was left out.")
    icc = _blob(image, "icc-profile-data")
    if icc and not icc_fits(icc, n_channels):
        icc = None
        notes.append("The colour profile belongs to another kind of picture and was left out.")
    orientation = _orientation(image, stored_exif)
    return Header(
        path=path,
        kind=kind,
        image=image,
        n_channels=n_channels,
        orientation=orientation,
        icc=icc,
        exif=exif,
        xmp=clean_xmp(_blob(image, "xmp-data")),
        resolution=_resolution(image, exif, swapped=orientation >= 5),
        notes=tuple(notes),
    )


def is_tiled(image: "pyvips.Image") -> bool:
    """Tell whether libvips decodes single tiles of the file: only those of TIFF."""
    return bool(image.get_typeof("tile-width"))


def icc_fits(icc: bytes, n_channels: int) -> bool:
    """Tell whether a profile is for grey (1 channel) or RGB (3): ICC.1, section 7.2.6."""
    return icc[16:20] == {1: b"GRAY", 3: b"RGB "}[n_channels]


def _open(path: Path, kind: str, page: int = 0, access: str = "sequential") -> "pyvips.Image":
    """Return an image of which only the header is read.

    ``revalidate``: else libvips answers from its cache when the file has changed since. It is to
    remember nothing at all: with an operation it remembers the tiles that were decoded for it.
    """
    import pyvips

    pyvips.cache_set_max(0)
    # Not `Image.new_from_file`: it reads "photo[1].png" as a name with options.
    load = getattr(pyvips.Image, f"{kind}load")
    options = {"page": page} if page else {}
    # libvips 8.18 takes a damaged tile of a TIFF for a warning, and gives zeros instead of it.
    fail_on = "warning" if kind == "tiff" else "error"
    try:
        return load(str(path), access=access, fail_on=fail_on, revalidate=True, **options)
    except pyvips.Error as error:
        raise damaged(path, vips_reason(error)) from error


def decode(path: Path, image: "pyvips.Image") -> Tensor:
    """Decode all pixels, as float32 (bands, height, width).

    Raises:
        ImageError: the file is damaged or cut short.
    """
    import pyvips

    try:
        values = image.numpy()
    except pyvips.Error as error:
        raise damaged(path, vips_reason(error)) from error
    values = values.reshape(image.height, image.width, image.bands)
    return as_float(values.transpose(2, 0, 1))


def decode_window(
    path: Path, image: "pyvips.Image", left: int, top: int, width: int, height: int
) -> NDArray[Any]:
    """Decode a window of an image of 8 or 16 bits: stored values (bands, height, width).

    Not by an operation of libvips (``crop``), which would remember it, and with it the image.

    Raises:
        ImageError: as `decode`.
    """
    import pyvips

    try:
        buffer = pyvips.Region.new(image).fetch(left, top, width, height)
    except pyvips.Error as error:
        raise damaged(path, vips_reason(error)) from error
    values = np.frombuffer(buffer, stored_type(image)).reshape(height, width, image.bands)
    return values.transpose(2, 0, 1)


def stored_type(image: "pyvips.Image") -> np.dtype[Any]:
    """Return the type of the values of an image of 8 or 16 bits."""
    return np.dtype({8: np.uint8, 16: np.uint16}[_BITS[image.format]])


def as_float(values: NDArray[Any]) -> Tensor:
    """Return numbers of any type as a float32 tensor of its own memory."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.array(values, np.float32, order="C"))


def _check_size(path: Path, width: int, height: int, limit_pixels: int | None) -> None:
    if limit_pixels is not None and width * height > limit_pixels:
        raise ImageError(
            f"{path} has {width} × {height} pixels ({width * height / 1e6:.0f} megapixels)",
            expected=f"at most {limit_pixels / 1e6:g} megapixels",
            do="raise limit_pixels if it is meant to be so large",
        )


def _check_single(path: Path, kind: str, image: "pyvips.Image") -> None:
    """Refuse films and documents; pages of at most half the size are a pyramid or a thumbnail."""
    n_pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    copies = n_pages <= 32 and kind == "tiff"
    for page in range(1, n_pages if copies else 1):
        other = _open(path, kind, page)
        copies &= 2 * other.width <= image.width + 1 and 2 * other.height <= image.height + 1
    if n_pages > 1 and not copies:
        raise ImageError(
            f"{path} holds {n_pages} pictures (pages or frames)",
            expected="one",
            do="save the wanted one to a file of its own",
        )


def _to_light(path: Path, image: "pyvips.Image") -> tuple["pyvips.Image", list[str]]:
    """Convert CMYK, the amounts of ink, to sRGB; return other images as they are."""
    import pyvips

    if image.interpretation != "cmyk":
        return image, []
    profile = "its profile" if image.get_typeof("icc-profile-data") else "a usual CMYK profile"
    try:
        image = image.icc_transform(
            "srgb",
            embedded=True,
            input_profile="cmyk",
            intent="relative",
            black_point_compensation=True,
            depth=_BITS.get(image.format, 8),
        )
    except pyvips.Error as error:
        raise damaged(path, vips_reason(error)) from error
    return image, [f"CMYK was converted to sRGB through {profile}."]


def _count_channels(path: Path, image: "pyvips.Image") -> int:
    """Return the number of bands that are no alpha: 1 or 3."""
    if image.format not in _BITS:
        measured = image.format in ("float", "double")
        raise ImageError(
            f"{path} stores its values as {image.format}",
            expected="8 or 16 bits, unsigned",
            do="use read_measurement for numbers that are no picture" if measured else "",
        )
    n_channels = 1 if image.interpretation in _GREY else 3
    known = image.interpretation in _GREY + _COLOUR
    if not known or image.bands - n_channels not in (0, 1):
        raise ImageError(
            f"{path} has {image.bands} channels of the kind {image.interpretation}",
            expected="grey or RGB, with or without alpha",
        )
    return n_channels


def _blob(image: "pyvips.Image", name: str) -> bytes | None:
    return bytes(image.get(name)) if image.get_typeof(name) else None


def _stored_exif(path: Path, kind: str, image: "pyvips.Image") -> bytes | None:
    """Return the EXIF block as stored; on the way, refuse PNG and TIFF whose end is missing."""
    if kind == "png":
        return read_png_exif(path) or _blob(image, "exif-data")
    if kind == "tiff":
        return read_tiff_exif(path)
    return _blob(image, "exif-data")


def _orientation(image: "pyvips.Image", exif: bytes | None) -> int:
    stored = image.get("orientation") if image.get_typeof("orientation") else 1
    return stored if 2 <= stored <= 8 else exif_orientation(exif)


def upright(planes: Tensor, orientation: int) -> Tensor:
    """Undo an EXIF orientation: a transposition for 5 to 8, then mirrors of axes."""
    if orientation >= 5:
        planes = planes.transpose(1, 2)
    mirrored = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation, ())
    return planes.flip(mirrored) if mirrored else planes


def _resolution(
    image: "pyvips.Image", exif: bytes | None, *, swapped: bool
) -> tuple[float, float] | None:
    """Return dots per inch; libvips says 1 per mm where the file says nothing."""
    x, y = image.xres, image.yres
    stored = exif_resolution(exif) if (x, y) == (1, 1) else (x * _MM_PER_INCH, y * _MM_PER_INCH)
    if stored is None or min(stored) <= 0:
        return None
    return (stored[1], stored[0]) if swapped else stored


def map_array(path: Path) -> NDArray[Any]:
    """Map a .npy file as (channels, height, width), so that no number is read before its turn.

    Neither its size nor its end are believed.

    Raises:
        ImageError: damaged, cut short, of another type or shape.
    """
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise damaged(path, str(error)) from error
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and array.shape[2] == 3 and array.shape[0] not in (1, 3):
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or array.dtype.kind != "f":
        raise ImageError(
            f"{path} is an array of {array.dtype}, shape {array.shape}",
            expected="floats (height, width) or (channels, height, width)",
        )
    return array


def check_finite(path: Path, values: Tensor) -> Tensor:
    """Return the values.

    Raises:
        ImageError: some of them are no number, or too large for float32.
    """
    n_bad = int((~torch.isfinite(values)).sum())
    if n_bad:
        raise ImageError(
            f"{path} holds {n_bad} values that are no number or too large for float32",
            expected="finite numbers",
        )
    return values
