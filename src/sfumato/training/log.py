"""What a run leaves to be looked at: a table, sheets of pictures, and TensorBoard's files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, final

from torch import Tensor

from sfumato.errors import OutputError
from sfumato.io import Picture, write_picture
from sfumato.io._atomic import atomic_path
from sfumato.training._optional import installed
from sfumato.training.events import Event, Finished, Started, Stepped, Stopped, Validated

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_Row: TypeAlias = dict[str, str]

#: In the folder of a run.
TABLE, SAMPLES, BOARD = "log.csv", "samples", "tensorboard"

_COLUMNS = ("step", "loss", "rate", "seconds")


@final
class Log:
    """Keeps the events of one run in its folder ``out``: call it with each of them.

    ``log.csv`` has a row for each report, with step, loss, learning rate, seconds of training, and
    the figures of a validation where there was one. ``samples/step-000100.png`` is the sheet of
    the validation at step 100. ``tensorboard/`` has all of it, where tensorboard is installed (the
    extra ``train``). A run that goes on drops what came after the step it goes on from.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._rows: list[_Row] = []
        self._columns: list[str] = list(_COLUMNS)
        self._board: SummaryWriter | None = None

    @property
    def remark(self) -> str | None:
        """A line for the user where something is left out, else None."""
        if installed("tensorboard"):
            return None
        return 'Without tensorboard; its logs need: pip install "sfumato[train]"'

    def __call__(self, event: Event) -> None:
        """Keep what ``event`` tells; OutputError where it cannot be written."""
        match event:
            case Started():
                self._start(event.step)
            case Stepped():
                self._add(event)
            case Validated():
                self._validate(event)
            case Stopped() | Finished():
                self.close()

    def close(self) -> None:
        """Write what TensorBoard's writer still holds."""
        if self._board is not None:
            self._board.close()

    def _start(self, step: int) -> None:
        self._read(step)
        self._write()
        for path in (self._out / SAMPLES).glob("step-*.png"):
            if _step_of(path) > step:
                path.unlink()
        if installed("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self._out / BOARD), purge_step=step + 1)

    def _add(self, event: Stepped) -> None:
        named = {"loss": event.loss, "rate": event.learning_rate, "seconds": event.seconds}
        row = {"step": str(event.step)} | {name: f"{value:.6g}" for name, value in named.items()}
        self._rows.append(row)
        try:
            with (self._out / TABLE).open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        except OSError as error:
            raise OutputError(
                f"{self._out / TABLE} cannot be written: {error.strerror}"
            ) from error
        self._scalars(named, event.step)

    def _validate(self, event: Validated) -> None:
        self._columns += [name for name in event.figures if name not in self._columns]
        if not self._rows or self._rows[-1]["step"] != str(event.step):
            self._rows.append({"step": str(event.step)})
        self._rows[-1] |= {name: f"{value:.6g}" for name, value in event.figures.items()}
        self._write()
        self._scalars({f"figures/{k}": v for k, v in event.figures.items()}, event.step)
        if event.sheet is not None:
            self._show(event.sheet, event.step)

    def _scalars(self, named: dict[str, float], step: int) -> None:
        if self._board is not None:
            for name, value in named.items():
                self._board.add_scalar(name, value, step)

    def _show(self, sheet: Tensor, step: int) -> None:
        write_picture(Picture(sheet), self._out / SAMPLES / f"step-{step:06d}.png")
        if self._board is not None:
            self._board.add_image("samples", sheet, step)
            self._board.flush()

    def _read(self, step: int) -> None:
        """Take over the rows up to ``step`` of a table that is there."""
        path = self._out / TABLE
        if not path.is_file():
            return
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            self._columns += [c for c in reader.fieldnames or () if c not in self._columns]
            for row in reader:
                if (row.get("step") or "").isdecimal() and int(row["step"]) <= step:
                    self._rows.append({k: v for k, v in row.items() if k in self._columns and v})

    def _write(self) -> None:
        """Write the whole table anew: its columns may have changed."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self._rows)
        with atomic_path(self._out / TABLE) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="")


def _step_of(path: Path) -> int:
    number = path.stem.removeprefix("step-")
    return int(number) if number.isdecimal() else -1
