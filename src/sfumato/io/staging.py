"""Work between addresses, done in a folder on this machine: fetched first, put at the end."""

import hashlib
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from sfumato.errors import SettingsError
from sfumato.io.storage import address, check_place, fetch, name_of, put

_INPUTS = "inputs"


@final
@dataclass(frozen=True)
class Staged:
    """One result: where its files are on this machine, and the address that it goes to.

    What lies on this machine already stays where it is, and nothing is made for it.

    Attributes:
        folder: holds the copies, named after the result: the same one in the next run.
        source: the input, or its copy.
        target: the result, or what becomes of it.
        job: where the work keeps how far it is: a folder beside the target, or what ``work`` says.
        report: the report on it, or what becomes of it.
        goes_to: the address of the result; None if it stays.
        report_to: the address of the report; None if it stays.

    Example:
        >>> sfumato.io.storage.put("photo.png", "memory://bucket/in.png")
        >>> staged = Staged.open("memory://bucket/in.png", "memory://bucket/out.png")
        >>> n_bytes = staged.target.write_bytes(staged.source.read_bytes())
        >>> n_bytes = staged.report.write_text("{}")
        >>> staged.finish()
        >>> sfumato.io.storage.exists("memory://bucket/out.png.json")
        True
    """

    folder: Path
    source: Path
    target: Path
    job: str | Path
    report: Path
    goes_to: str | None
    report_to: str | None

    @classmethod
    def open(
        cls,
        source: str | Path,
        target: str | Path,
        report: str | Path | None = None,
        *,
        work: str | Path | None = None,
        reported: bool = True,
    ) -> "Staged":
        """Check that the result can be put, and fetch the input.

        Args:
            source: a path or an address.
            target: a path or an address.
            report: as well; None is beside the target, as ``TARGET.json``.
            work: where the work is done: a folder for the copies and the job, or an address for
                the job alone. None is beside a result that stays, else the current folder.
            reported: whether there will be a report.

        Raises:
            SettingsError: the result would take the place of the input.
            ImageError: the input cannot be fetched.
            OutputError: the result could not be put; no room here.
        """
        goes_to = address(target)
        _refuse_overwriting(goes_to, source)
        beside = f"{goes_to or target}.json"
        report_to = address(beside if report is None else report) if reported else None
        key = hashlib.sha256(str(goes_to or Path(target).absolute()).encode()).hexdigest()[:8]
        parent = Path() if goes_to else Path(target).parent
        far = None if work is None else address(work)
        name = f"{name_of(target)}.{key}"
        folder = Path(parent if work is None or far else work) / f"{name}.work"
        here = folder / name_of(goes_to) if goes_to else Path(target)
        job: str | Path = here.with_name(here.name + ".job")
        if far:
            job = f"{far.rstrip('/')}/{name}.job"
        elif work is not None:
            job = folder / f"{here.name}.job"
        for place in (goes_to, report_to, job if far else None):
            if place:
                check_place(place)
        copy = fetch(source, folder / _INPUTS)
        if goes_to or report_to:
            folder.mkdir(parents=True, exist_ok=True)
        return cls(
            folder=folder,
            source=copy,
            target=here,
            job=job,
            report=folder / name_of(report_to) if report_to else Path(report or beside),
            goes_to=goes_to,
            report_to=report_to,
        )

    def fetched(self, place: str | Path) -> Path:
        """Return where another input is, or its copy.

        Raises:
            SettingsError: the result would take its place.
            ImageError: it cannot be fetched.
        """
        _refuse_overwriting(self.goes_to, place)
        return fetch(place, self.folder / _INPUTS)

    @property
    def job_outlives(self) -> bool:
        """Whether the job is at an address, and needed until the result is at its own.

        What this machine has made of it goes with this machine.
        """
        return self.goes_to is not None and address(self.job) is not None

    @property
    def waits(self) -> bool:
        """Whether an earlier run has left a result here that it could not put."""
        there = self.target.exists() and self.report.exists()
        return there and self.goes_to is not None

    def finish(self) -> None:
        """Put the result with all that was written beside it, the report last; clear the folder.

        A job's folder stays, where one is kept.

        Raises:
            OutputError: it cannot be put. All is still here.
        """
        done = []
        if self.goes_to:
            parent = self.goes_to.removesuffix("/").rpartition("/")[0]
            others = sorted(p for p in self.folder.iterdir() if self._is_beside(p))
            for path in (*others, self.target):
                put(path, self.goes_to if path == self.target else f"{parent}/{path.name}")
                done.append(path)
        if self.report_to:
            put(self.report, self.report_to)
            done.append(self.report)
        for path in done:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(self.folder / _INPUTS, ignore_errors=True)
        with suppress(OSError):  # a job that is kept
            self.folder.rmdir()

    def give_up(self) -> None:
        """Clear the folder, unless the next run can go on with a job or a result in it."""
        if self.folder.is_dir() and all(p.name == _INPUTS for p in self.folder.iterdir()):
            shutil.rmtree(self.folder)

    def _is_beside(self, path: Path) -> bool:
        """Say whether a file is a further sample, the mean or the spread."""
        named = path.name.startswith(f"{self.target.stem}.") and path.suffix == self.target.suffix
        return named and path.is_file() and path != self.target


def _refuse_overwriting(goes_to: str | None, source: str | Path) -> None:
    if goes_to and goes_to == address(source):
        raise SettingsError(
            f"the output {goes_to} is the input itself",
            expected="another name",
            do="inputs are never overwritten",
        )
