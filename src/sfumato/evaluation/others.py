"""Other programs: by a command that is run for each picture, or by a folder of their results."""

from __future__ import annotations

import os
import shlex
import signal
import string
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import final

from typing_extensions import override

from sfumato.errors import ImageError, SettingsError
from sfumato.evaluation.posed import (
    Answer,
    Contender,
    Posed,
    as_shaped,
    digest_of,
    eight_bits,
)
from sfumato.io import Picture, read_picture, write_picture
from sfumato.io._formats import FORMATS

#: Seconds that a command may take for a picture.
TIMEOUT = 600.0
_FIELDS = {"input", "output", "scale", "seed", "folder"}
#: Characters of a line of standard error that are kept.
_WIDTH = 200


@final
class Command(Contender):
    """A program that reads ``{input}`` and writes ``{output}``, both PNG.

    It may also be told the ``{scale}``, the picture's ``{seed}``, and the ``{folder}`` that the
    picture lies in. The template is cut to words as a shell would, and run without one. A program
    that fails, or takes longer than ``timeout`` seconds, has no result: the last line of its
    standard error says why.

    Raises SettingsError for a template without ``{output}``, without ``{input}`` and ``{seed}``,
    or with other fields.

    >>> Command("copy", "cp {input} {output}").caption
    'copy'
    """

    def __init__(
        self, name: str, template: str, caption: str = "", *, timeout: float = TIMEOUT
    ) -> None:
        try:
            self._words = shlex.split(template)
            found = {f for word in self._words for _, f, _, _ in string.Formatter().parse(word)}
        except ValueError as error:
            raise SettingsError(f"the command {template!r}: {error}") from error
        found.discard(None)
        if not found <= _FIELDS or "output" not in found or found.isdisjoint({"input", "seed"}):
            raise SettingsError(
                f"the command {template!r}",
                expected="{input} and {output}; {scale}, {seed} and {folder} are known too",
                do="double the braces that are meant as such",
            )
        self.name, self.caption, self.template = name, caption or name, template
        self._timeout = timeout

    @override
    def identity(self, picture: str) -> Mapping[str, object]:
        return {"command": self.template}

    @override
    def answer(self, posed: Posed) -> Answer:
        if not posed.is_picture:
            raise posed.cannot("a picture for an input")
        with tempfile.TemporaryDirectory(prefix="sfumato-") as folder:
            source, target = Path(folder, "input.png"), Path(folder, "output.png")
            write_picture(Picture(posed.y), source)
            fields: dict[str, object] = {"input": source, "output": target, "scale": posed.scale}
            fields |= {"seed": posed.seed, "folder": posed.folder}
            self._run([word.format(**fields) for word in self._words])
            if not target.is_file():
                raise ImageError(f"{self._words[0]} wrote no {{output}}")
            x = read_picture(target).pixels
        return Answer(eight_bits(as_shaped(x, posed.shape)).contiguous())

    def _run(self, words: list[str]) -> None:
        """Run it in a group of its own, which goes with it when the time is up."""
        try:
            process = subprocess.Popen(  # noqa: S603 - the user's own command, and no shell
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ImageError(f"{words[0]}: {error.strerror}") from error
        try:
            _, said = process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            raise ImageError(
                f"{words[0]} took more than {self._timeout:g} s", do="give it a longer --timeout"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if process.returncode:
            lines = said.decode(errors="replace").strip().splitlines()
            last = lines[-1].strip()[:_WIDTH] if lines else "it said nothing"
            raise ImageError(f"{words[0]} failed ({process.returncode}): {last}")


@final
class Folder(Contender):
    """Results that were made elsewhere: in ``folder``, each of the name of its picture.

    With several tasks those of one are in a folder of the task's name in it, if there is one.

    Raises SettingsError where there is no such folder.
    """

    def __init__(self, name: str, folder: Path, caption: str = "") -> None:
        if not folder.is_dir():
            raise SettingsError(f"there is no folder {folder}", expected="results, by name")
        self.name, self.caption, self._folder = name, caption or name, folder

    def at(self, task: str) -> Folder:
        """Return the results of a task."""
        own = self._folder / task
        return Folder(self.name, own, self.caption) if own.is_dir() else self

    @override
    def identity(self, picture: str) -> Mapping[str, object]:
        path = self._path(picture)
        return {"result": digest_of(path) if path else None}

    @override
    def answer(self, posed: Posed) -> Answer:
        path = self._path(posed.picture)
        if path is None:
            raise ImageError(f"there is no {posed.picture} in {self._folder}")
        x = read_picture(path).pixels
        return Answer(eight_bits(as_shaped(x, posed.shape)).contiguous())

    def _path(self, picture: str) -> Path | None:
        names = (self._folder / f"{picture}{ending}" for ending in FORMATS)
        return next((path for path in names if path.is_file()), None)
