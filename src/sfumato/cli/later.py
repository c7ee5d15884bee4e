"""Groups of commands that are imported when one of them is used, so that --help stays quick."""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typing_extensions import override


def later(place: str, about: str) -> typer.Typer:
    """Return a group that stands for the one at ``place``, as ``package.module:name``.

    >>> later("sfumato.cli.models:models_app", "The priors at hand.").info.help
    'The priors at hand.'
    """

    class Later(TyperGroup):
        @cached_property
        def real(self) -> TyperGroup:
            module, name = place.split(":")
            return typer.main.get_group(getattr(import_module(module), name))

        @override
        def list_commands(self, ctx: Any) -> list[str]:
            return self.real.list_commands(ctx)

        @override
        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return self.real.get_command(ctx, cmd_name)

        @override
        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            return self.real.resolve_command(ctx, args)

    return typer.Typer(cls=Later, help=about, no_args_is_help=True)
