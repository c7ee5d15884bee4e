"""A benchmark as a file: which pictures, what is done to them, who restores them, what counts.

The files are TOML, in ``evaluation/recipes`` or anywhere (docs/benchmarks.md). One file may stand
for a family: of ``{set}`` and ``{scale}`` in its text each combination of the values in
``[family]`` is put. With ``base`` a file has everything of another recipe that it does not say
itself.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, final

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, field_validator

from sfumato.errors import SettingsError, SfumatoError
from sfumato.operators import parse

FOLDER = Path(__file__).parent / "recipes"

#: The table of a family, which may stand anywhere in its file.
_FAMILY = re.compile(r"^\[family\]\n(?:(?!\[).*\n)*", re.MULTILINE)

Count: TypeAlias = Annotated[StrictInt, Field(ge=1)]
#: Names are parts of file names.
Slug: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$", max_length=80)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@final
class Data(_Part):
    """Which pictures, and how they are prepared, in this order.

    ``name`` is that of their folder, ``pictures`` how many it holds in the published protocol,
    ``about`` says what lies there and where it is from. ``first`` takes the first ones by name;
    ``grey`` ones are kept as they are, left out ("skip") or made three equal channels ("repeat");
    ``side`` cuts the largest square in the middle and resizes it by area; ``multiple`` cuts the
    sides to multiples.
    """

    name: str
    pictures: Count | None = None
    about: str = ""
    first: Count | None = None
    grey: Literal["keep", "skip", "repeat"] = "keep"
    side: Count | None = None
    multiple: Count = 1


@final
class TaskPart(_Part):
    """What happens to a picture: ``degradation`` in its text form. ``caption`` is for people."""

    name: Slug
    degradation: str
    caption: str = ""

    @field_validator("degradation")
    @classmethod
    def _parses(cls, value: str) -> str:
        try:
            return str(parse(value))
        except SfumatoError as error:
            raise ValueError(str(error)) from error


@final
class MethodPart(_Part):
    """Who restores: ``use`` in its text form (``sfumato.evaluation.contenders``).

    ``model`` is a name or path, or a role that is described in ``[models]``; ``settings`` are
    those of ``sfumato.Settings``; ``tasks`` the names of the tasks it is for (none: all);
    ``samples`` how many results, of other seeds, are made of each picture: the first one is
    measured as all results are, and ``diversity`` is that of all of them.
    """

    name: Slug
    use: str = "default"
    caption: str = ""
    model: str | None = None
    settings: Mapping[str, Any] = Field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    samples: Count = 1


@final
class PublishedPart(_Part):
    """What others reported: ``values`` by the names of measures, and the ``source`` of them.

    ``recipe`` names the one member of a family that it belongs to.
    """

    task: str
    method: str
    values: Mapping[str, float]
    source: str
    recipe: str | None = None

    @field_validator("values")
    @classmethod
    def _finite(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        if not value or not all(map(math.isfinite, value.values())):
            raise ValueError("at least one number, and each one finite")
        return value


@final
class Recipe(_Part):
    """A benchmark.

    ``models`` says which models the user has to bring, by role. Picture ``k`` (from 0, in the
    order of names) has the seed ``seed + k``, for the noise of its measurement and of its
    restoration. ``border`` pixels at each side count in no measure but those of consistency and
    tiles. ``notes`` are what readers of the table must know.

    >>> Recipe.of({"tilte": "x"}, "mine")
    Traceback (most recent call last):
    sfumato.errors.SettingsError: recipe mine: tilte is no key of it; did you mean title?
    """

    name: str
    title: str
    data: Data
    tasks: Annotated[tuple[TaskPart, ...], Field(min_length=1)]
    methods: tuple[MethodPart, ...] = ()
    measures: Annotated[tuple[str, ...], Field(min_length=1)]
    border: Annotated[StrictInt, Field(ge=0)] = 0
    seed: Annotated[StrictInt, Field(ge=0, lt=1 << 62)] = 0
    models: Mapping[str, str] = Field(default_factory=dict)
    published: tuple[PublishedPart, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any], name: str) -> Recipe:
        """Check ``values``; SettingsError names the first that is wrong, and the likely spelling.

        Each name of a task or method stands once, and what refers to one must find it.
        """
        try:
            recipe = cls.model_validate({"name": name, **values})
        except ValidationError as error:
            raise _plain(error, name) from None
        recipe._check()
        return recipe

    def _check(self) -> None:
        tasks, methods = [t.name for t in self.tasks], [m.name for m in self.methods]
        for what, names in (("task", tasks), ("method", methods)):
            twice = [n for n in names if names.count(n) > 1]
            if twice:
                raise SettingsError(f"recipe {self.name}: two of one {what} name, {twice[0]}")
        named = [(p.task, "published") for p in self.published]
        named += [(task, f"method {m.name}") for m in self.methods for task in m.tasks]
        for task, where in named:
            if task not in tasks:
                raise SettingsError(
                    f"recipe {self.name}, {where}: task {task}",
                    expected=f"one of {', '.join(tasks)}",
                )

    def only(self, tasks: str) -> Recipe:
        """Keep the tasks of these names, with commas between them.

        Raises SettingsError for another name.
        """
        wanted, known = tasks.split(","), [task.name for task in self.tasks]
        for name in wanted:
            if name not in known:
                raise unknown("task", name, known, self.name)
        return self.model_copy(
            update={
                "tasks": tuple(t for t in self.tasks if t.name in wanted),
                "published": tuple(p for p in self.published if p.task in wanted),
            }
        )


def unknown(kind: str, name: str, known: list[str], where: str = "") -> SettingsError:
    """Return the error that there is none of this name, with the likely spelling."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return SettingsError(
        f"there is no {kind} {name}" + (f" in {where}" if where else ""),
        expected=f"one of {', '.join(sorted(known))}",
        do=f"did you mean {' or '.join(near)}?" if near else "",
    )


def recipe_names() -> list[str]:
    """Return the names of all recipes that come with the package, in order.

    >>> "set14-x4" in recipe_names()
    True
    """
    return sorted(_members())


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a recipe by its name, or from a TOML file; of a family's file the first member.

    Raises SettingsError where there is none such, and for what is wrong in it.

    >>> load_recipe("set14-x4").tasks[0].degradation
    'bicubic:4'
    """
    name, members = str(name_or_path), _members()
    if name.endswith(".toml"):
        own = _expanded(Path(name))
        members |= own
        name = next(iter(own))
    if name not in members:
        raise unknown("recipe", name, list(members))
    return Recipe.of(_based(name, members, ()), name)


def _members() -> dict[str, dict[str, Any]]:
    """Return the tables of all recipes of the package."""
    members: dict[str, dict[str, Any]] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        members |= _expanded(path)
    return members


def _expanded(path: Path) -> dict[str, dict[str, Any]]:
    """Read a file: one recipe by the file's name, or those of a family."""
    try:
        text = path.read_text(encoding="utf-8")
        found = _FAMILY.search(text)
        if found is None:
            return {path.stem: tomllib.loads(text)}
        family = tomllib.loads(found[0])["family"]
        if not all(isinstance(values, list) and values for values in family.values()):
            raise SettingsError(f"{path}: [family]", expected="a list of values for each word")
        text, members = _FAMILY.sub("", text), {}
        for values in product(*family.values()):
            own = text
            for word, value in zip(family, values, strict=True):
                own = own.replace("{" + word + "}", str(value))
            table = tomllib.loads(own)
            members[str(table.pop("name", path.stem)).lower()] = table
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the recipe {path} cannot be read: {error}") from error
    if len(members) < math.prod(len(values) for values in family.values()):
        raise SettingsError(f"{path}: members of one name", expected='name = "...{word}..."')
    return members


def _based(
    name: str, members: Mapping[str, dict[str, Any]], seen: tuple[str, ...]
) -> dict[str, Any]:
    """Return the table of a recipe with that of its base beneath it; tables in it too."""
    table = dict(members[name])
    table["published"] = [p for p in table.get("published", []) if p.get("recipe") in (None, name)]
    base = table.pop("base", None)
    if base is None:
        return table
    if base in (*seen, name):
        raise SettingsError(f"recipe {name} is based on itself")
    if base not in members:
        raise unknown("recipe", str(base), list(members), f"recipe {name}")
    below = _based(base, members, (*seen, name))
    below["published"] = []  # figures are of one recipe's tasks
    return below | table | {"data": below.get("data", {}) | table.get("data", {})}


def _plain(error: ValidationError, name: str) -> SettingsError:
    """Turn pydantic's report into one line."""
    errors = error.errors(include_url=False)
    # A misspelt key often lacks under its right name, too.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    parts = (Recipe, Data, TaskPart, MethodPart, PublishedPart)
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = [field for part in parts for field in part.model_fields]
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        return SettingsError(
            f"recipe {name}: {where} is no key of it",
            do=f"did you mean {near[0]}?" if near else "see docs/benchmarks.md",
        )
    if first["type"] == "missing":
        return SettingsError(f"recipe {name} without {where}", do="see docs/benchmarks.md")
    said = first["msg"].removeprefix("Value error, ").replace("Input should be", "input")
    return SettingsError(f"recipe {name}: {where} = {first['input']!r}", expected=said)
