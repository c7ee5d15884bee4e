"""Make a study: a folder that any web server, or a browser by itself, can show."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, final

from torch import Tensor

from sfumato._version import __version__
from sfumato.errors import OutputError, SettingsError
from sfumato.evaluation._order import shuffled
from sfumato.evaluation.study.pictures import Cut, Sources, cut, match, spoilt
from sfumato.evaluation.study.settings import FORMAT, KEY, StudySettings, load_words
from sfumato.io import Picture, write_picture

PAGE = ("index.html", "study.css", "plan.js", "pair.js", "study.js", "vendor")
_CHECKS = 7  # the purpose of the random order


@final
@dataclass(frozen=True)
class Made:
    """What was made: the study's name, and what a subject will see."""

    id: str
    methods: Sequence[str]
    pictures: int
    images: int
    n_checks: int


def make_study(
    results: Path,
    references: Path,
    output: Path,
    settings: StudySettings,
    *,
    inputs: Path | None = None,
    consent: Path | None = None,
) -> Made:
    """Write a study into a new folder, whole or not at all.

    The page is static, needs no server, and is the same for all subjects: whom it asks what, is a
    function of the subject's name. Names of pictures tell nothing. ``study.json`` repeats what the
    page knows, for the analysis.

    Args:
        results: pictures, or a folder of them for each method.
        references: photographs of the same names and sizes.
        output: a folder that does not exist yet, or is empty.
        settings: what is asked, and how.
        inputs: what was restored, for task 1.
        consent: a text that replaces the words of consent.

    Raises:
        ImageError: pictures that do not belong together, see `match` and `cut`.
        SettingsError: task 1 without ``inputs``, more images than there are.
        OutputError: the folder holds something.
    """
    if 1 in settings.tasks and inputs is None:
        raise SettingsError(
            "task 1 without --inputs", expected="the folder of what was restored", do="name it"
        )
    words = load_words(settings.language, consent)
    sources = match(results, references, inputs)
    images = settings.images_of(len(sources))
    n_checks = settings.checks_of(images)
    with _new_folder(output) as folder:
        (folder / "pictures").mkdir()
        store = _Store(folder, settings.seed)
        order = shuffled(settings.seed, _CHECKS, len(sources))
        checked = {sources[k].name for k in order[: n_checks * len(settings.tasks)]}
        pictures, checks, sizes = [], [], {}
        for k, one in enumerate(sources):
            parts = cut(one, settings.side)
            pictures.append(_stored(store, one, parts))
            if one.name in checked:
                wrong = store.put(one.name, "check", spoilt(parts.reference, settings.seed + k))
                checks.append(_without(pictures[-1], "results") | {"spoilt": wrong})
            height, width = parts.reference.shape[1:]
            sizes[one.name] = [width * settings.zoom, height * settings.zoom]
        study = {
            "format": FORMAT,
            "id": "",
            "title": settings.title or words["title"],
            "language": settings.language if len(settings.language) == 2 else "",
            "tasks": sorted(settings.tasks, reverse=True),
            "methods": list(sources[0].results),
            "images": images,
            "n_checks": n_checks,
            "seconds": settings.seconds,
            "break_every": settings.break_every,
            "post": settings.post,
            "sizes": sizes,
            "pictures": pictures,
            "checks": checks,
            "consent": words["consent"],
            "words": _without(words, "consent"),
        }
        study["id"] = _digest(study, store.digests)
        _write(folder, study)
    return Made(str(study["id"]), tuple(sources[0].results), len(sources), images, n_checks)


@final
class _Store:
    """Writes pictures under names that tell nothing, and remembers what was written."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        self.digests: list[str] = []

    def put(self, name: str, role: str, pixels: Tensor) -> str:
        """Write a picture; return its address on the page."""
        values = (pixels.clamp(0, 1) * 255).round().byte().contiguous().numpy().tobytes()
        self.digests.append(hashlib.sha256(values).hexdigest())
        secret = f"{self._seed}\0{name}\0{role}\0{self.digests[-1]}"
        address = f"pictures/{hashlib.sha256(secret.encode()).hexdigest()[:20]}.png"
        write_picture(Picture(pixels), self._folder / address)
        return address


def _stored(store: _Store, sources: Sources, parts: Cut) -> dict[str, Any]:
    return {
        "name": sources.name,
        "reference": store.put(sources.name, "reference", parts.reference),
        "input": None if parts.input is None else store.put(sources.name, "input", parts.input),
        "results": {
            method: store.put(sources.name, f"method {method}", pixels)
            for method, pixels in parts.results.items()
        },
    }


def _without(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key != name}


def _digest(study: Mapping[str, Any], digests: Sequence[str]) -> str:
    """Return the study's name: a function of all that a subject may see."""
    text = json.dumps([study, digests], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _write(folder: Path, study: Mapping[str, Any]) -> None:
    # Browsers do not let a page of file:// fetch JSON, so it is a script.
    text = json.dumps(study, indent=1).replace("</", "<\\/")
    (folder / "list.js").write_text(f'"use strict";\n\nwindow.STUDY = {text};\n', "utf-8")
    key = {"version": __version__, **study}
    (folder / KEY).write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")
    with as_file(files("sfumato.evaluation.study") / "page") as page:
        for name in PAGE:
            if (page / name).is_dir():
                shutil.copytree(page / name, folder / name)
            else:
                shutil.copyfile(page / name, folder / name)


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Give a hidden folder beside ``path`` that takes its place on success, or is removed."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise OutputError(f"{path} is there already", do="choose a new folder, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".sfumato-{secrets.token_hex(8)}.part")
    hidden.mkdir()
    try:
        yield hidden
        hidden.replace(path)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
