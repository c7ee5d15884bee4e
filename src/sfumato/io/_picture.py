"""The one value that a picture is between reading and writing."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ImageError


@dataclass(frozen=True, eq=False)
class Picture:
    """A still picture: its stored values, and all that must travel with them.

    The values are those of the file, divided by their maximum: no colour conversion takes place,
    the profile is kept instead and attached again on writing.

    Attributes:
        pixels: float32 (channels, height, width) in [0, 1]; 1 channel is grey, 3 are red, green
            and blue.
        alpha: float32 (1, height, width) in [0, 1], 1 is opaque; None for a picture without.
        bits: bits of each stored value, 8 or 16. A picture of fewer bits counts as 8.
        icc: the colour profile.
        exif: the EXIF block, from its TIFF header on (without what JPEG puts before it).
        xmp: the XMP packet.
        resolution: dots per inch, across and down; None if the file does not tell.
        format: format of the source: png, jpeg, webp, tiff; "" if it never was a file.
        notes: plain sentences on what reading changed, such as a conversion from CMYK.

    Raises:
        ImageError: shapes or ``bits`` that no picture has.

    Example:
        >>> Picture(torch.zeros(3, 4, 5), bits=16).pixels.shape
        torch.Size([3, 4, 5])
    """

    pixels: Float[Tensor, "channels height width"]
    alpha: Float[Tensor, "1 height width"] | None = None
    bits: int = 8
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    resolution: tuple[float, float] | None = None
    format: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse shapes that no picture has."""
        shape = tuple(self.pixels.shape)
        if len(shape) != 3 or shape[0] not in (1, 3) or 0 in shape:
            raise ImageError(
                f"a picture of shape {shape}", expected="(1 or 3 channels, height, width)"
            )
        if self.alpha is not None and tuple(self.alpha.shape) != (1, *shape[1:]):
            raise ImageError(
                f"an alpha channel of shape {tuple(self.alpha.shape)}",
                expected=f"{(1, *shape[1:])}, the size of the picture",
            )
        if self.bits not in (8, 16):
            raise ImageError(f"a picture of {self.bits} bits", expected="8 or 16")
