"""What a study is: its tasks, how long pictures are shown, and in what words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, final

from sfumato.errors import SettingsError

#: What a subject's file says that it is.
FORMAT = "sfumato-study-1"
#: What a study's folder keeps for the analysis.
KEY = "study.json"
#: A pair is checked for attention for every so many that count.
PAIRS_A_CHECK = 8
_LISTS = ("consent", "how", "task_1", "task_2")


@final
@dataclass(frozen=True)
class StudySettings:
    """How a study asks which of two pictures was taken by a camera.

    Task 1 shows what was restored between the two, task 2 does not (Saharia et al. 2021, section
    4.1). ``images`` are the pairs a subject sees in each task, at most 50 by default; ``seconds``
    how long each is shown. ``n_checks`` attention checks are added to each task, one for every 8
    pairs by default, two at least. Pictures longer than ``side`` are cut to their middle;
    ``zoom`` enlarges all, pixel by pixel.

    >>> StudySettings(tasks=(1, 2)).seconds
    3.0
    """

    tasks: tuple[int, ...] = (2,)
    images: int | None = None
    seconds: float = 3.0
    n_checks: int | None = None
    break_every: int = 20
    side: int = 512
    zoom: int = 1
    seed: int = 0
    title: str = ""
    language: str = "en"
    post: str = ""

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks) or set(self.tasks) - {1, 2}:
            raise SettingsError(f"tasks {self.tasks}", expected="1, 2 or both")
        for name, value, least in (
            ("images", self.images, 1),
            ("n_checks", self.n_checks, 0),
            ("break_every", self.break_every, 1),
            ("side", self.side, 16),
            ("zoom", self.zoom, 1),
        ):
            if value is not None and value < least:
                raise SettingsError(f"{name} {value}", expected=f"{least} or more")
        if not 0.1 <= self.seconds <= 600:
            raise SettingsError(f"{self.seconds:g} seconds", expected="0.1 to 600")
        if self.post and not self.post.startswith(("http://", "https://", "/")):
            raise SettingsError(f"--post {self.post}", expected="an address, https://…")

    def images_of(self, n_pictures: int) -> int:
        """Return the pairs of a task, out of ``n_pictures``; no picture is in two pairs."""
        most = n_pictures // len(self.tasks)
        if most < 1 or (self.images is not None and self.images > most):
            tasks = "" if len(self.tasks) == 1 else f" for each of {len(self.tasks)} tasks"
            raise SettingsError(
                f"{self.images or 1} images{tasks} out of {n_pictures}",
                expected=f"at most {most}, so that nobody sees a picture twice",
                do="add pictures, or take fewer --images",
            )
        return min(50, most) if self.images is None else self.images

    def checks_of(self, images: int) -> int:
        """Return the attention checks among so many pairs."""
        return max(2, images // PAIRS_A_CHECK) if self.n_checks is None else self.n_checks


def load_words(language: str, consent: Path | None = None) -> dict[str, Any]:
    """Return all that the page says: of a language that came with sfumato, or of a JSON file.

    ``consent`` is a text file whose paragraphs replace the words of consent.

    Raises:
        SettingsError: no such language, a file that lacks words.

    >>> load_words("de")["start"]
    'Los'
    """
    texts = files("sfumato.evaluation.study") / "page" / "texts"
    known = sorted(one.name.removesuffix(".json") for one in texts.iterdir())
    english = json.loads((texts / "en.json").read_text(encoding="utf-8"))
    if language in known:
        words: dict[str, Any] = json.loads((texts / f"{language}.json").read_text("utf-8"))
    elif language.endswith(".json"):
        words = _own_words(Path(language), english)
    else:
        raise SettingsError(
            f"--language {language}",
            expected=f"one of {', '.join(known)}, or a JSON file with the words of en.json",
        )
    if consent is not None:
        words["consent"] = _paragraphs(consent)
    return words


def _own_words(path: Path, english: dict[str, Any]) -> dict[str, Any]:
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SettingsError(f"{path} is no JSON: {error}", do="mend it") from error
    if not isinstance(words, dict):
        raise SettingsError(f"{path} is no list of words", expected='{"title": "…", …}')
    if missing := sorted(set(english) - set(words)):
        raise SettingsError(f"{path} lacks {', '.join(missing)}", do="add these words")
    for name in english:
        value = words[name]
        right = _strings(value) if name in _LISTS else isinstance(value, str)
        if not right:
            kind = "a list of texts" if name in _LISTS else "a text"
            raise SettingsError(f"{name} in {path}", expected=kind)
    return words


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _paragraphs(path: Path) -> Sequence[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is no text in UTF-8", do="save it as UTF-8") from error
    found = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
    if not found:
        raise SettingsError(f"{path} is empty", expected="the words of consent")
    return found
