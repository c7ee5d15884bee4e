"""Who is compared, by text: baselines, networks, other programs, and all that sfumato has.

::

    bicubic, back-projection:rounds=5, total-variation, ...    baselines
    rrdb:PATH                                                  ESRGAN, BSRGAN, Real-ESRGAN
    command:NAME:TEMPLATE                                      another program, for each picture
    folder:NAME:PATH                                           results made elsewhere
    default, ddnm, dps:zeta=3, ...                             sfumato's methods
    ddnm@steps=20,objective=distortion                         with settings
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from typing_extensions import override

from sfumato.errors import SettingsError
from sfumato.evaluation.baselines import BASELINES, Classical
from sfumato.evaluation.others import TIMEOUT, Command, Folder
from sfumato.evaluation.own import Models, Restoring
from sfumato.evaluation.posed import Answer, Contender, Posed
from sfumato.evaluation.recipe import MethodPart, Recipe
from sfumato.evaluation.supervised import Supervised
from sfumato.guidance import METHODS
from sfumato.zoo import EMBEDDED

_FOREIGN = ("rrdb", "command", "folder")
#: What else a list of methods may name.
_LISTS = ("recipe", "baselines", "all")


@final
class Absent(Contender):
    """One whose model the user has to bring, and did not."""

    def __init__(self, name: str, role: str, wanted: str, caption: str = "") -> None:
        self.name, self.caption = name, caption or name
        self._role, self._wanted = role, wanted

    @override
    def identity(self, picture: str) -> Mapping[str, object]:
        return {"absent": self._role}

    @override
    def answer(self, posed: Posed) -> Answer:
        raise SettingsError(
            f"no model for {self._role}", expected=self._wanted, do=f"give -n {self._role}=PATH"
        )


def contender(
    part: MethodPart,
    models: Models,
    *,
    wanted: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> Contender:
    """Make one from what a recipe says; ``wanted`` describes the models that the user brings.

    In the template of a command ``[ROLE]`` stands for the model of that role. Raises SettingsError
    and ModelError where there is none such.
    """
    made = _made(part, models, wanted or {}, timeout)
    made.tasks, made.samples = part.tasks, part.samples
    return made


def _made(
    part: MethodPart, models: Models, wanted: Mapping[str, str], timeout: float
) -> Contender:
    word, _, rest = part.use.partition(":")
    needed = [role for role in wanted if f"[{role}]" in rest]
    for role in needed:
        if role not in models.roles:
            return Absent(part.name, role, wanted[role], part.caption)
        rest = rest.replace(f"[{role}]", shlex.quote(models.roles[role]))
    if word in BASELINES:
        return Classical(part.name, part.use, part.caption)
    if word == "rrdb":
        return Supervised(part.name, Path(rest), part.caption, device=models.device)
    if word in ("command", "folder"):
        own, _, what = rest.partition(":")
        if not own or not what:
            raise SettingsError(f"the method {part.use}", expected=f"{word}:NAME:...")
        if word == "folder":
            return Folder(part.name, Path(what), part.caption or own)
        return Command(part.name, what, part.caption or own, timeout=timeout)
    if word != "default" and word not in METHODS:
        raise _no_method(word)
    role = part.model or EMBEDDED
    if role in wanted and role not in models.roles:
        return Absent(part.name, role, wanted[role], part.caption)
    return Restoring(part.name, part.use, models, part.caption, model=role, settings=part.settings)


def method_parts(words: Sequence[str], recipe: Recipe) -> list[MethodPart]:
    """Read the methods of a command line, where each word may stand for several.

    A word is the name of a method of the recipe, or a text form as above; ``recipe`` stands for
    all of the recipe's, ``baselines`` for all baselines, ``all`` for these and all of sfumato's.

    Raises SettingsError for words that are neither.

    >>> from sfumato.evaluation.recipe import load_recipe
    >>> [p.name for p in method_parts(["bicubic dps:zeta=3"], load_recipe("set14-x4"))]
    ['bicubic', 'dps-zeta-3']
    """
    own = {part.name: part for part in recipe.methods}
    found: dict[str, MethodPart] = {}
    for word in (w for text in words for w in split(text)):
        if word in ("recipe", "all"):
            found |= own
        if word in ("baselines", "all"):
            found |= {name: _read(name) for name in BASELINES if name not in found}
        if word == "all":
            found |= {name: _read(name) for name in METHODS if name not in found}
        if word not in _LISTS:
            part = own[word] if word in own else _read(word)
            found[part.name] = part
    return list(found.values())


def split(text: str) -> list[str]:
    """Cut a text at its spaces, but for what names a file or a command: that is one word.

    >>> split("bicubic ddnm"), split("command:mine:cp {input} {output}")
    (['bicubic', 'ddnm'], ['command:mine:cp {input} {output}'])
    """
    if text.partition(":")[0] in _FOREIGN:
        return [text]
    return text.split()


def _read(word: str) -> MethodPart:
    """Read a text form."""
    kind, _, rest = word.partition(":")
    if kind in _FOREIGN:
        own = Path(rest).stem if kind == "rrdb" else rest.partition(":")[0]
        return MethodPart(name=slug(own or kind), use=word, caption=own)
    use, _, said = word.partition("@")
    kind = use.partition(":")[0]
    if kind not in BASELINES and kind not in METHODS and kind != "default":
        raise _no_method(kind)
    settings = {}
    for pair in filter(None, said.split(",")):
        key, found, value = pair.partition("=")
        if not found:
            raise SettingsError(f"the method {word}", expected=f"{use}@SETTING=VALUE,...")
        settings[key] = value
    return MethodPart(name=slug(word), use=use, caption=word, settings=settings)


def takes_model(part: MethodPart) -> bool:
    """Tell whether it is one of sfumato's, which restore with a model."""
    word = part.use.partition(":")[0]
    return word not in BASELINES and word not in _FOREIGN


def slug(text: str) -> str:
    """Return a text as a part of a file name.

    >>> slug("DPS:zeta=3,context=1")
    'dps-zeta-3-context-1'
    """
    return re.sub(r"[^a-z0-9.+]+", "-", text.lower()).strip("-.") or "x"


def _no_method(word: str) -> SettingsError:
    known = [*BASELINES, *METHODS, "default", *_LISTS]
    near = difflib.get_close_matches(word, known, n=1)
    return SettingsError(
        f"there is no method {word}",
        expected=f"one of {', '.join(known)}, rrdb:PATH, command:NAME:TEMPLATE or "
        "folder:NAME:PATH",
        do=f"did you mean {near[0]}?" if near else "",
    )
