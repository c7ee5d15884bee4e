"""Sheets: a row for each picture, with its input, all results, the photograph, and a crop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from sfumato.errors import SettingsError
from sfumato.evaluation.report.drawing import FRAME, INK, QUIET, figure, style
from sfumato.evaluation.report.run import Run
from sfumato.io import atomic_path, read_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Colours = Float[Tensor, "3 height width"]
Shown = Float[Tensor, "3 rows columns"]
#: Left, top, width and height: in parts of a picture's sides, or in pixels of a sheet.
Box: TypeAlias = tuple[float, float, float, float]
#: Of a sheet, in pixels: what is between cells, above all, for a line of text, for names.
_GAP, _TOP, _LINE, _HEAD = 10, 30, 20, 32
#: A crop is this part of the picture's width, and of this shape.
_PART, _SHAPE = 0.22, 0.75
#: Height of a sheet, at most, in pixels: matplotlib ends at 2^16.
_TALLEST = 60_000


@final
@dataclass(frozen=True, eq=False)
class _Cell:
    pixels: Colours
    caption: str
    note: str


def write_sheets(
    run: Run, folder: Path, *, width: int = 1600, pictures: Sequence[str] = ()
) -> list[Path]:
    """Write ``TASK.png`` for each task; return the files.

    The crop under each picture is where the methods differ most, its pixels shown as squares.

    Args:
        run: what is shown.
        folder: where sheets go.
        width: of a sheet, in pixels.
        pictures: those to show; all, if there are none.

    Raises:
        SettingsError: matplotlib is not installed, unknown pictures, a sheet too narrow or tall.
        OutputError: the folder cannot be written.
    """
    written = []
    with style():
        for task in run.tasks:
            known = run.pictures(task.name)
            if unknown := sorted(set(pictures) - set(known)):
                raise SettingsError(
                    f"no picture {unknown[0]} in {task.name}", expected=", ".join(known[:20])
                )
            rows = [_row(run, task.name, p) for p in (pictures or known)]
            rows = [row for row in rows if row]
            if not rows:
                continue
            names = list(pictures or known)
            sheet = _Sheet(width, task.caption or task.name, names, rows)
            path = folder / f"{task.name}.png"
            with atomic_path(path) as temporary:
                sheet.draw().savefig(temporary, format="png", dpi=100, facecolor="white")
            written.append(path)
    return written


def _row(run: Run, task: str, picture: str) -> list[_Cell]:
    """Return the pictures of a row, in the order of its columns; what is missing is white."""
    reference, given = run.reference(picture), run.input(task, picture)
    places = run.by_place(task)
    m = run.measures[0] if run.measures else None
    cells = [_Cell(_read(given), "input", "")] if given else []
    for method in run.methods:
        path = run.result(task, method.name, picture)
        record = places.get((picture, method.name))
        pixels = _read(path) if path else None
        if pixels is None and reference:
            pixels = torch.ones_like(_read(reference))
        if pixels is None:
            continue
        value = record.values.get(m.name, math.nan) if m and record else math.nan
        unit = f" {m.unit}" if m and m.unit else ""
        note = f"{value:.{m.digits}f}{unit}" if m and math.isfinite(value) else ""
        cells.append(_Cell(pixels, run.caption(method.name), note or ("" if path else "not done")))
    if reference:
        cells.append(_Cell(_read(reference), "reference", ""))
    return cells


@final
class _Sheet:
    """A sheet while it is laid out: pictures into one array, words and frames on top."""

    def __init__(
        self, width: int, title: str, names: Sequence[str], rows: Sequence[Sequence[_Cell]]
    ) -> None:
        n = max(len(row) for row in rows)
        self._cell = (width - _GAP * (n + 1)) // n
        if self._cell < 24:
            raise SettingsError(f"a sheet {width} pixels wide for {n} columns", do="make it wider")
        heights = [self._height(row) for row in rows]
        height = _TOP + _HEAD + sum(heights)
        if height > _TALLEST:
            raise SettingsError(
                f"a sheet {height} pixels high", expected=f"at most {_TALLEST}",
                do="choose a few --pictures, or a smaller --sheet-width",
            )  # fmt: skip
        self._rows, self._heights, self._names = rows, heights, names
        self._canvas = torch.ones(3, height, width)
        self._figure = figure(width / 100, height / 100)
        self._title = title

    def draw(self) -> Figure:
        """Return the sheet as a figure."""
        self._text(_GAP, 22, self._title, size=11, weight="bold")
        first, top = max(self._rows, key=len), _TOP + _HEAD
        for j, cell in enumerate(first):
            lines = wrap(cell.caption, max(4, self._cell // 7))[:2]
            for k, line in enumerate(reversed(lines)):
                self._text(self._left(j), top - 6 - 13 * k, line, size=8.5, weight="bold")
        boxes = []
        for name, row, height in zip(self._names, self._rows, self._heights, strict=True):
            boxes += self._row(name, row, top)
            top += height
        canvas = self._canvas.clamp(0, 1).permute(1, 2, 0).numpy()
        self._figure.figimage(canvas, 0, 0, origin="upper", zorder=0)
        for box in boxes:
            self._frame(*box)
        return self._figure

    def _row(self, name: str, row: Sequence[_Cell], top: int) -> list[Box]:
        box = _telling([cell.pixels for cell in row])
        shape = self._shape(row)
        below = top + shape[0] + 4
        crop = (round(self._cell * _SHAPE), self._cell)
        frames = []
        for j, cell in enumerate(row):
            left = self._left(j)
            self._put(_resized(cell.pixels, shape), top, left)
            self._put(_enlarged(cell.pixels, box, crop), below, left)
            h, w = shape
            frames += [
                (left + box[0] * w, top + box[1] * h, box[2] * w, box[3] * h),
                (left, below, crop[1], crop[0]),
            ]
            note = f"{name}  {cell.note}" if j == 0 else cell.note
            self._text(left, below + crop[0] + 14, note, size=7.5, colour=QUIET)
        return frames

    def _shape(self, row: Sequence[_Cell]) -> tuple[int, int]:
        """Return height and width of a row's pictures on the sheet."""
        h, w = row[-1].pixels.shape[1:]
        return max(8, round(self._cell * h / w)), self._cell

    def _height(self, row: Sequence[_Cell]) -> int:
        return self._shape(row)[0] + 4 + round(self._cell * _SHAPE) + _LINE + _GAP

    def _left(self, column: int) -> int:
        return _GAP + column * (self._cell + _GAP)

    def _put(self, pixels: Colours, top: int, left: int) -> None:
        _, h, w = pixels.shape
        self._canvas[:, top : top + h, left : left + w] = pixels

    def _text(
        self, x: float, y: float, text: str, *, size: float, colour: str = INK, weight: str = ""
    ) -> None:
        _, height, width = self._canvas.shape
        room = max(4, int((self._cell if weight and size < 10 else width) / (size * 0.86)))
        short = text if len(text) <= room else text[: room - 1] + "…"
        self._figure.text(
            x / width, 1 - y / height, short, fontsize=size, color=colour,
            fontweight=weight or "normal",
        )  # fmt: skip

    def _frame(self, left: float, top: float, width: float, height: float) -> None:
        from matplotlib.patches import Rectangle

        _, rows, columns = self._canvas.shape
        self._figure.add_artist(
            Rectangle(
                (left / columns, 1 - (top + height) / rows), width / columns, height / rows,
                fill=False, edgecolor=FRAME, linewidth=1.4, zorder=5,
            )
        )  # fmt: skip


def _telling(pictures: Sequence[Tensor]) -> Box:
    """Return where pictures of one row differ most: the box of the largest mean variance."""
    height, width = pictures[-1].shape[1:]
    alike = torch.stack([p for p in pictures if p.shape[1:] == (height, width)])
    w = min(width, max(16, round(_PART * width)))
    h = min(height, max(12, round(w * _SHAPE)))
    spread = alike.var(dim=0, correction=0).mean(0, keepdim=True)
    means = avg_pool2d(spread[None], (h, w), stride=2)[0, 0]
    row, column = divmod(int(means.argmax()), means.shape[1])
    return 2 * column / width, 2 * row / height, w / width, h / height


def _resized(pixels: Colours, shape: tuple[int, int]) -> Shown:
    """Return a picture at the size of its cell; smaller ones keep their pixels as squares."""
    if pixels.shape[1] <= shape[0]:
        return interpolate(pixels[None], size=shape, mode="nearest-exact")[0]
    small = interpolate(pixels[None], size=shape, mode="bicubic", antialias=True)
    return small[0].clamp(0, 1)


def _enlarged(pixels: Colours, box: Box, shape: tuple[int, int]) -> Shown:
    height, width = pixels.shape[1:]
    y, x = (
        (start + length * (torch.arange(n) + 0.5) / n).mul(side).long().clamp(0, side - 1)
        for start, length, n, side in (
            (box[1], box[3], shape[0], height),
            (box[0], box[2], shape[1], width),
        )
    )
    return pixels[:, y][:, :, x]


def _read(path: Path) -> Colours:
    pixels = read_picture(path).pixels
    return pixels if pixels.shape[0] == 3 else pixels.expand(3, -1, -1)
