"""Pictures larger than memory, read window by window."""

import os
import tempfile
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sfumato.errors import ImageError
from sfumato.io._atomic import _output_error
from sfumato.io._exif import check_tiles
from sfumato.io._formats import NUMPY, damaged, read_head, vips_reason
from sfumato.io._parts import copy_head
from sfumato.io._read import (
    Header,
    as_float,
    check_finite,
    decode_window,
    is_tiled,
    map_array,
    read_header,
    stored_type,
    upright,
)
from sfumato.io._write import save_to_file
from sfumato.io.storage import address

if TYPE_CHECKING:
    import pyvips

#: Of the decoded tiles of a TIFF, kept by libvips.
_KEPT_BYTES = 8 * 2**20

#: (left, top, width, height) of stored pixels, to float32 (bands, height, width), undivided.
_Fetch: TypeAlias = Callable[[int, int, int, int], Tensor]


@final
class PictureWindows:
    """A picture on disk, of any size; `open_windows` makes it.

    For one thread at a time.

    Attributes:
        channels: 1 is grey, 3 are red, green and blue; of an array of numbers any.
        height: of the upright picture, in pixels.
        width: of the upright picture, in pixels.
        bits: bits of each stored value, 8 or 16. Fewer count as 8, as do the numbers of an array.
        has_alpha: whether there is an alpha channel.
        icc: the colour profile.
        exif: the EXIF block, from its TIFF header on.
        xmp: the XMP packet.
        resolution: dots per inch, across and down; None if the file does not tell.
        format: png, jpeg, webp, tiff; "" for an array.
        notes: plain sentences on what reading changes.

    Example:
        >>> windows = open_windows("photo.png")
        >>> windows.channels, windows.height, windows.width, windows.bits, windows.has_alpha
        (3, 480, 640, 8, False)
    """

    def __init__(self, shape: tuple[int, int, int], fetch: _Fetch, header: Header | None) -> None:
        self.channels, self.height, self.width = shape
        self._fetch, self._header = fetch, header
        self.bits = header.bits if header else 8
        self.has_alpha = header.has_alpha if header else False
        self.icc = header.icc if header else None
        self.exif = header.exif if header else None
        self.xmp = header.xmp if header else None
        self.resolution = header.resolution if header else None
        self.format = header.kind if header else ""
        self.notes = header.notes if header else ()

    def read(
        self, top: int, left: int, height: int, width: int
    ) -> Float[Tensor, "channels height width"]:
        """Read a window of the upright picture.

        Returns:
            float32 (channels, height, width): exactly ``read_picture(path).pixels`` there, which
            is in [0, 1]; of an array exactly ``read_measurement(path)`` there.

        Raises:
            ImageError: a window that is not inside the picture; the file is damaged there.

        Example:
            >>> open_windows("photo.png").read(100, 200, 32, 64).shape
            torch.Size([3, 32, 64])
        """
        return self._planes(top, left, height, width)[: self.channels].contiguous()

    def read_alpha(
        self, top: int, left: int, height: int, width: int
    ) -> Float[Tensor, "1 height width"]:
        """Read a window of the alpha channel, where 1 is opaque.

        Returns:
            float32 (1, height, width) in [0, 1]: exactly ``read_picture(path).alpha`` there.

        Raises:
            ImageError: as `read`; a picture without alpha.
        """
        if not self.has_alpha:
            raise ImageError("a picture without an alpha channel", expected="one with it")
        return self._planes(top, left, height, width)[self.channels :].contiguous()

    def _planes(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Read all bands of a window, upright and divided by the maximum."""
        down, across = range(top, top + height), range(left, left + width)
        inside = min(top, left) >= 0 and down.stop <= self.height and across.stop <= self.width
        if not inside or not down or not across:
            raise ImageError(
                f"a window of {width} × {height} pixels at ({left}, {top})",
                expected=f"one inside the picture of {self.width} × {self.height}",
            )
        if self._header is None:
            return self._fetch(left, top, width, height)
        orientation = self._header.orientation
        stored = _stored_window((self.height, self.width), down, across, orientation)
        values = self._fetch(*stored).div_(2**self.bits - 1)
        return upright(values, orientation)


def open_windows(path: str | Path, *, scratch: str | Path | None = None) -> PictureWindows:
    """Open a picture, or an array of numbers (``.npy``), of which windows are read in any order.

    Memory stays bounded whatever the size. Tiles of a tiled TIFF are decoded when they are wanted,
    and about the last two rows of tiles are kept, if these are no more than 8 MB. All other
    pictures are decoded once, now, to a file without a name, which is gone with the returned
    object. Arrays are mapped.

    What a format itself holds in memory stays: interlaced PNG, progressive JPEG and WebP are
    decoded as a whole.

    Of a tiled TIFF at an address (see `sfumato.io.storage`) only the tiles that are wanted are
    fetched, once each; all other files are fetched as a whole.

    Args:
        path: the file, or an address; its kind is told by its first bytes, not by its name.
        scratch: folder for the decoded pixels, which take height * width * bands * bits / 8 bytes,
            and for what is fetched; None for the system's temporary folder. Made if it is missing.

    Raises:
        ImageError: as `read_picture`, save for the limit of pixels, which there is not; for an
            array as `read_measurement`. Damage inside a tile, a number that is not finite, or
            another file in its place are found when they are read. No way to an address.
        OutputError: no room in ``scratch``.

    Example:
        >>> windows = open_windows("photo.png")
        >>> torch.equal(
        ...     windows.read(100, 200, 32, 64),
        ...     sfumato.io.read_picture("photo.png").pixels[:, 100:132, 200:264],
        ... )
        True
    """
    if url := address(path):
        return _open_remote(url, scratch)
    path = Path(path)
    if read_head(path).startswith(NUMPY):
        return PictureWindows(map_array(path).shape, _fetch_mapped(path), None)
    header = read_header(path, limit_pixels=None, windows=True)
    image = header.image
    if is_tiled(image):
        check_tiles(path)
        fetch = _Tiles(path, image).fetch
        fetch(0, 0, 1, 1)  # not all kinds of tiles are known
    else:
        fetch = _Copy(path, image, scratch).fetch
    return PictureWindows(_upright_shape(header), fetch, header)


def picture_shape(path: str | Path) -> tuple[int, int, int]:
    """Return (channels, height, width) of the upright picture, or of an array, from its header.

    Raises:
        ImageError: as `open_windows`, for what the header tells.

    Example:
        >>> picture_shape("photo.png")
        (3, 480, 640)
    """
    if url := address(path):
        copy, _ = copy_head(url)
        with copy.named():
            return picture_shape(copy.path)
    path = Path(path)
    if read_head(path).startswith(NUMPY):
        return map_array(path).shape
    return _upright_shape(read_header(path, limit_pixels=None, windows=True))


def _open_remote(url: str, scratch: str | Path | None) -> PictureWindows:
    copy, tiles = copy_head(url, scratch)
    with copy.named():
        windows = open_windows(copy.path, scratch=scratch)

    def fetch(left: int, top: int, width: int, height: int) -> Tensor:
        if tiles:
            copy.fill(*tiles.parts(left, top, width, height))
        with copy.named():
            return windows._fetch(left, top, width, height)

    shape = windows.channels, windows.height, windows.width
    return PictureWindows(shape, fetch, windows._header)


def _upright_shape(header: Header) -> tuple[int, int, int]:
    size = (header.image.height, header.image.width)
    return (header.n_channels, *(size if header.orientation < 5 else size[::-1]))


def _stored_window(
    size: tuple[int, int], down: range, across: range, orientation: int
) -> tuple[int, int, int, int]:
    """Return (left, top, width, height) of a window as it is stored: `upright` the other way."""
    height, width = size
    if orientation in (3, 4, 7, 8):
        down = range(height - down.stop, height - down.start)
    if orientation in (2, 3, 6, 7):
        across = range(width - across.stop, width - across.start)
    if orientation >= 5:
        down, across = across, down
    return across.start, down.start, len(across), len(down)


def _fetch_mapped(path: Path) -> _Fetch:
    def fetch(left: int, top: int, width: int, height: int) -> Tensor:
        # Mapped anew each time: pages that were read once would count as this program's memory.
        window = map_array(path)[:, top : top + height, left : left + width]
        return check_finite(path, as_float(window))

    return fetch


class _Tiles:
    """The tiles of a TIFF that windows meet, decoded when they are wanted.

    libvips keeps those of two rows of tiles. Where that is too much, the file is opened again
    after as much was read: windows that go from side to side meet few tiles twice.

    They are decoded in a thread of their own, which has its own part of the heap: among what the
    caller gets and lets go, tiles that stay would leave holes too small for it.
    """

    def __init__(self, path: Path, image: "pyvips.Image") -> None:
        self._path, self._image, self._file = path, image, _identity(path)
        self._n_pixel = image.bands * stored_type(image).itemsize
        n_two_rows = 2 * image.get("tile-height") * image.width * self._n_pixel
        self._keeps_all = n_two_rows <= _KEPT_BYTES
        self._n_read = 0
        self._start_thread()

    def fetch(self, left: int, top: int, width: int, height: int) -> Tensor:
        """Read a window."""
        if os.getpid() != self._process:  # threads do not come along
            self._start_thread()
        return as_float(self._thread.submit(self._decode, left, top, width, height).result())

    def _start_thread(self) -> None:
        self._process, self._thread = os.getpid(), ThreadPoolExecutor(1, "tiles")
        weakref.finalize(self, self._thread.shutdown, wait=False)

    def _decode(self, left: int, top: int, width: int, height: int) -> NDArray[Any]:
        if self._n_read > _KEPT_BYTES and not self._keeps_all:
            self._open_again()
        self._n_read += width * height * self._n_pixel
        return decode_window(self._path, self._image, left, top, width, height)

    def _open_again(self) -> None:
        if _identity(self._path) != self._file:
            raise ImageError(
                f"{self._path} is another file than before", do="leave it as it is, and begin anew"
            )
        self._image = read_header(self._path, limit_pixels=None, windows=True).image
        self._n_read = 0


def _identity(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise damaged(path, str(error)) from error
    return status.st_dev, status.st_ino, status.st_size


class _Copy:
    """All pixels of an image, decoded from the top down to a file that has no name."""

    def __init__(self, path: Path, image: "pyvips.Image", folder: str | Path | None) -> None:
        import pyvips

        self._dtype = stored_type(image)
        self._bands = image.bands
        self._n_line = image.width * image.bands * self._dtype.itemsize
        try:
            if folder:
                Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                save_to_file(image, "rawsave", file)
                file.flush()
                self._descriptor = os.dup(file.fileno())
        except pyvips.Error as error:
            raise damaged(path, vips_reason(error)) from error
        except OSError as error:
            raise _output_error(folder or "the temporary folder", error) from error
        weakref.finalize(self, os.close, self._descriptor)

    def fetch(self, left: int, top: int, width: int, height: int) -> Tensor:
        """Read a window; by lines, so that not more is held than is wanted."""
        values = np.empty((height, width, self._bands), self._dtype)
        start = top * self._n_line + left * self._bands * self._dtype.itemsize
        for line in values:
            os.preadv(self._descriptor, [line], start)
            start += self._n_line
        return as_float(values.transpose(2, 0, 1))
