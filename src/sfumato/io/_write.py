"""Writing pictures: rounded once, with all that travels with them, whole or not at all."""

from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sfumato.errors import ImageError, OutputError, SettingsError
from sfumato.io._atomic import atomic_path, check_place
from sfumato.io._exif import add_exif_to_tiff
from sfumato.io._formats import FORMATS, vips_reason
from sfumato.io._picture import Picture
from sfumato.io._read import icc_fits

if TYPE_CHECKING:
    import pyvips

#: Largest width and height that a format can tell.
_LONGEST_SIDE = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383, "tiff": 2**31 - 1}
#: What most programs take for granted where a file tells no resolution, in dots per inch.
DEFAULT_RESOLUTION = (72.0, 72.0)
CLASSIC_TIFF_LIMIT_BYTES = 4_000_000_000


@runtime_checkable
class Description(Protocol):
    """What travels with the pixels of a picture; see `Picture`."""

    @property
    def icc(self) -> bytes | None:
        """The colour profile."""

    @property
    def exif(self) -> bytes | None:
        """The EXIF block."""

    @property
    def xmp(self) -> bytes | None:
        """The XMP packet."""

    @property
    def resolution(self) -> tuple[float, float] | None:
        """Dots per inch, across and down."""


def write_picture(
    picture: Picture, path: str | Path, *, quality: int = 95, lossless: bool = True
) -> None:
    """Write a picture in the format that the name ends in: .png, .jpg, .jpeg, .webp, .tif, .tiff.

    Each value v in [0, 1] is stored as round(v * (2^bits - 1)), after clipping; never truncated.
    PNG and TIFF keep 16 bits, JPEG and WebP have 8. Profile, EXIF, XMP and resolution are kept (in
    WebP the resolution only where there is EXIF); without a resolution 72 dots per inch are
    written. A profile for another number of channels is left out, as is a grey one in WebP, which
    knows RGB only. Folders that are missing are made.

    Args:
        picture: what to write. An alpha channel that is opaque everywhere is left out of JPEG.
        path: the file; what stands there is replaced, but only by a file that is complete.
        quality: of JPEG, and of WebP that is not lossless: 1 to 100.
        lossless: WebP stores the exact values.

    Raises:
        OutputError: see `check_output`; no room, no permission.
        ImageError: the picture holds values that are no number.
        SettingsError: a quality that does not exist.

    Example:
        >>> write_picture(Picture(torch.rand(3, 480, 640)), "photo.png")
    """
    path = Path(path)
    if not 1 <= quality <= 100:
        raise SettingsError(f"a quality of {quality}", expected="1 to 100")
    see_through = picture.alpha is not None and bool((picture.alpha < 1).any())
    height, width = picture.pixels.shape[1:]
    kind = check_output(path, alpha=see_through, size=(height, width))
    data = _encode(picture, path, kind, quality=quality, lossless=lossless)
    if kind == "tiff" and picture.exif:
        data = add_exif_to_tiff(data, picture.exif)
    # Encoded in memory, because libvips does not notice everything a full disk does to a file.
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def check_output(
    path: str | Path, *, alpha: bool = False, size: tuple[int, int] | None = None
) -> str:
    """Return the format that a picture will be written in; refuse now what would fail hours later.

    Args:
        path: the file that will be written.
        alpha: whether the picture will have transparent parts.
        size: (height, width) of the picture, if known.

    Raises:
        OutputError: an ending that is not known; a folder or device there; no permission; a format
            without transparency, or for smaller pictures only.

    Example:
        >>> check_output("photo.jpg")
        'jpeg'
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise OutputError(
            f"{path} does not end in the name of a format that is known",
            expected=", ".join(FORMATS),
        )
    if alpha and kind == "jpeg":
        raise OutputError(f"{path}: JPEG has no transparency", do="choose .png, .webp or .tif")
    if size and max(size) > _LONGEST_SIDE[kind]:
        raise OutputError(
            f"{path}: a picture of {size[1]} × {size[0]} pixels",
            expected=f"sides of at most {_LONGEST_SIDE[kind]} in {kind}",
            do="choose .png or .tif",
        )
    check_place(path)
    return kind


def _encode(picture: Picture, path: Path, kind: str, *, quality: int, lossless: bool) -> bytes:
    """Return the bytes of the file, without the EXIF of a TIFF."""
    import pyvips

    bits = stored_bits(kind, picture.bits)
    values = _stored_values(picture, bits, with_alpha=kind != "jpeg")
    n_channels = picture.pixels.shape[0]
    image = describe(pyvips.Image.new_from_array(values), picture, kind, n_channels=n_channels)
    options = save_options(picture, kind, quality=quality, lossless=lossless)
    if kind == "tiff":
        options["bigtiff"] = values.nbytes > CLASSIC_TIFF_LIMIT_BYTES
    try:
        data = getattr(image, f"{kind}save_buffer")(**options)
    except pyvips.Error as error:
        raise OutputError(f"{path} cannot be written: {vips_reason(error)}") from error
    return bytes(data)


def stored_bits(kind: str, bits: int) -> int:
    """Return the bits that a format keeps of each value."""
    return bits if kind in ("png", "tiff") else 8


def save_options(
    like: Description, kind: str, *, quality: int, lossless: bool
) -> dict[str, object]:
    """Return how libvips is to save each format."""
    import pyvips

    keep = pyvips.ForeignKeep.ICC | pyvips.ForeignKeep.XMP
    if like.exif:
        keep |= pyvips.ForeignKeep.EXIF
    options: dict[str, dict[str, object]] = {
        "png": {"compression": 6, "filter": pyvips.ForeignPngFilter.ALL},
        "jpeg": {"Q": quality, "optimize_coding": True},
        # exact: colours under transparent pixels are data too.
        "webp": {"lossless": lossless, "Q": 75 if lossless else quality, "exact": True},
        "tiff": {"compression": "deflate", "predictor": "horizontal"},
    }
    return options[kind] | {"keep": keep}


def save_to_file(image: "pyvips.Image", saver: str, file: IO[bytes], **options: object) -> None:
    """Save through Python's writes: libvips does not notice all that a full disk does to a file.

    Raises:
        OSError: no room.
        pyvips.Error: of the image.
    """
    import pyvips

    failures: list[BaseException] = []

    def write(data: bytes) -> int:
        try:
            return file.write(data)
        except BaseException as error:  # none can go through libvips, which calls this
            failures.append(error)
            return -1

    target = pyvips.TargetCustom()
    target.on_write(lambda data: write(bytes(data)))
    try:
        getattr(image, f"{saver}_target")(target, **options)
    finally:
        if failures:
            raise failures[0]


def _stored_values(
    picture: Picture, bits: int, *, with_alpha: bool
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return unsigned integers (height, width, bands)."""
    planes = [picture.pixels]
    if picture.alpha is not None and with_alpha:
        planes.append(picture.alpha)
    rounded = [round_values(plane, bits).permute(1, 2, 0).numpy() for plane in planes]
    if bits == 8:
        return np.concatenate(rounded, axis=2, dtype=np.uint8, casting="unsafe")
    return np.concatenate(rounded, axis=2, dtype=np.uint16, casting="unsafe")


def round_values(
    values: Float[Tensor, "channels height width"], bits: int
) -> Float[Tensor, "channels height width"]:
    """Return round(v * (2^bits - 1)), clipped.

    Raises:
        ImageError: values that are no number.
    """
    values = values.detach().cpu()
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if bool(values.isnan().any()):
        raise ImageError("the picture holds values that are no number", expected="0 to 1")
    return values.clamp(0, 1).mul(2**bits - 1).round()


def describe(
    image: "pyvips.Image", like: Description, kind: str, *, n_channels: int
) -> "pyvips.Image":
    """Attach what travels with the pixels."""
    import pyvips

    sixteen = image.format == "ushort"
    names = ("grey16", "rgb16") if sixteen else ("b-w", "srgb")
    x, y = like.resolution or DEFAULT_RESOLUTION
    image = image.copy(interpretation=names[n_channels == 3], xres=x / 25.4, yres=y / 25.4)
    blobs = {"xmp-data": like.xmp}
    if like.icc and icc_fits(like.icc, 3 if kind == "webp" else n_channels):
        blobs["icc-profile-data"] = like.icc
    if like.exif:
        blobs["exif-data"] = b"Exif\0\0" + like.exif
    for name, blob in blobs.items():
        if blob:
            image.set_type(pyvips.GValue.blob_type, name, blob)
    return image


def write_blank(path: str | Path, size: tuple[int, int], bits: int = 8) -> None:
    """Write a black colour picture of (height, width) pixels as a tiled TIFF, of any size."""
    import pyvips

    height, width = size
    image = pyvips.Image.black(width, height, bands=3)
    image = image.cast("ushort") if bits == 16 else image
    image = image.copy(interpretation="rgb16" if bits == 16 else "srgb")
    image.tiffsave(str(path), tile=True, compression="deflate", bigtiff=True)
