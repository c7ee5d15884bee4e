"""Options that several commands share, declared once as the fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from dataclasses import MISSING, fields
from functools import cache, partial, wraps
from typing import Any, TypeAlias, cast, get_type_hints

Command: TypeAlias = Callable[..., None]

_hints = cache(partial(get_type_hints, include_extras=True))


def with_group(kind: type[Any], name: str) -> Callable[[Command], Command]:
    """Give ``command(..., name: kind)`` the fields of the dataclass ``kind`` as its options.

    The command's own parameters come first; typer reads the joined signature. A field without a
    default is an option that must be given.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Size:
    ...     width: int
    ...     height: int = 1
    >>> @with_group(Size, "size")
    ... def command(name: str, size: Size) -> None:
    ...     print(name, size)
    >>> command(name="a", width=3)
    a Size(width=3, height=1)
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        hints = _hints(cast(Hashable, kind))
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [p.replace(kind=keyword) for n, p in own.parameters.items() if n != name]
        shared = {f.name: f.default for f in fields(kind)}
        for option, default in shared.items():
            value = inspect.Parameter.empty if default is MISSING else default
            parameters.append(
                inspect.Parameter(option, keyword, default=value, annotation=hints[option])
            )

        @wraps(command)
        def joined(**given: object) -> None:
            group = kind(**{k: v for k, v in given.items() if k in shared})
            command(**{name: group}, **{k: v for k, v in given.items() if k not in shared})

        joined.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        joined.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return joined

    return decorate
