"""Files of a restoration: what is read, what is refused, and what is written beside what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from sfumato.errors import ImageError, OutputError, SettingsError
from sfumato.io import LIMIT_PIXELS, Picture, digest, read_measurement, read_picture
from sfumato.io._atomic import check_place
from sfumato.io._formats import NUMPY, read_head
from sfumato.io._read import is_tiled, read_header
from sfumato.io.windows import PictureWindows, picture_shape
from sfumato.operators import Degradation
from sfumato.pipeline.problem import Problem
from sfumato.pipeline.report import Report


@dataclass(frozen=True)
class Read:
    """A measurement as it came from its file: the numbers, and the picture they belong to."""

    y: Tensor
    picture: Picture
    digest: str


def read_source(path: Path, *, limit_pixels: int | None = None) -> Read:
    """Read a picture, or a measurement that is none (a ``.npy`` array, a float TIFF).

    Raises ImageError where the file cannot be read.
    """
    limit = {} if limit_pixels is None else {"limit_pixels": limit_pixels}
    if path.suffix.lower() == ".npy":
        y = read_measurement(path, **limit)
        picture = Picture(y.new_zeros((3, 1, 1)), bits=8)
    else:
        picture = read_picture(path, **limit)
        y = picture.pixels
    return Read(y, picture, digest(path))


def check_limit(path: Path, limit_pixels: int | None) -> int:
    """Refuse, by its header, a picture of more pixels than are wanted; return the limit.

    Where none is given it is LIMIT_PIXELS for what is decoded as a whole, to memory or to the
    disk, and for each tile of a tiled TIFF. Such a TIFF, or an array, may have any size.
    """
    limit = LIMIT_PIXELS if limit_pixels is None else limit_pixels
    _, height, width = picture_shape(path)
    if limit_pixels is None:
        height, width = _decoded_at_once(path, height, width)
    if height * width > limit:
        raise ImageError(
            f"{path} has {width} × {height} pixels",
            expected=f"at most {limit:,} pixels",
            do="raise --limit-pixels",
        )
    return limit


def _decoded_at_once(path: Path, height: int, width: int) -> tuple[int, int]:
    """Return the size of what cannot be decoded but together."""
    if read_head(path).startswith(NUMPY):
        return 1, 1
    image = read_header(path, limit_pixels=None).image
    if not is_tiled(image):
        return height, width
    return image.get("tile-height"), image.get("tile-width")


def beside(target: Path, n_samples: int) -> list[Path]:
    """Return where the other samples, their mean and their standard deviation are written."""
    return [companion(target, word) for word in words_beside(n_samples)]


def words_beside(n_samples: int) -> list[str]:
    """Name what is written besides the first of several samples."""
    if n_samples == 1:
        return []
    return [*(f"sample-{k}" for k in range(2, n_samples + 1)), "mean", "std"]


def json_beside(target: Path) -> Path:
    """Return where the report of a target is written."""
    return target.with_name(target.name + ".json")


def companion(target: Path, word: str) -> Path:
    """Return  NAME.WORD.png  for  NAME.png."""
    return target.with_name(f"{target.stem}.{word}{target.suffix}")


def files_of(degradation: Degradation) -> list[Path]:
    """List the files that a degradation names: masks, strokes, kernels."""
    return [link.file for link in degradation.links if link.file is not None]


def see_through(picture: Picture) -> bool:
    """Tell whether anything of the picture is not opaque."""
    return picture.alpha is not None and bool((picture.alpha < 1).any())


def refuse_overwriting(targets: list[Path], sources: list[Path]) -> None:
    """Refuse an output that is one of the inputs: what is lost there cannot be made again."""
    for target in targets:
        for source in sources:
            if target.exists() and source.exists() and target.samefile(source):
                raise SettingsError(
                    f"the output {target} is the input {source} itself",
                    expected="another name",
                    do="inputs are never overwritten",
                )


def check_report(path: Path) -> None:
    """Refuse a place where no report can be written."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder", expected="the name of a file for the report")
    check_place(path)


def proven(report: Report, problem: Problem, target: Path, input_digest: str) -> Report:
    """Return the report with the consistency of the file that was written."""
    height, width = problem.measurement.A.in_shape[1:]
    stored = read_picture(target, limit_pixels=height * width).pixels[None]
    rmse = 255 * problem.residual_rmse(stored.expand(1, 3, -1, -1))
    return replace(report, input_digest=input_digest, consistency_rmse_255=rmse)


def losses(picture: Picture | PictureWindows, target: Path) -> list[str]:
    """Say what the format of the target cannot keep."""
    kind = target.suffix.lower()
    notes = []
    if kind in (".jpg", ".jpeg"):
        notes.append("JPEG is lossy: in .png, .webp or .tif the result agrees better.")
    if picture.bits == 16 and kind not in (".png", ".tif", ".tiff", ".zarr"):
        notes.append("16 bits became 8: .png and .tif keep them.")
    return notes
