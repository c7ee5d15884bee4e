"""``sfumato bench NAME``: run a benchmark by its recipe, and list the recipes there are."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup
from typing_extensions import override

from sfumato.cli.bars import behind_a_bar
from sfumato.cli.groups import with_group
from sfumato.cli.networks import NetworkFiles
from sfumato.cli.saying import guarded, say

if TYPE_CHECKING:
    from sfumato.evaluation.benchmark import Began, Event
    from sfumato.evaluation.recipe import MethodPart, Recipe

T = TypeVar("T")

#: The folder that holds data sets by name.
DATA = "SFUMATO_DATA"


class Recipes(TyperGroup):
    """A group in which whatever is no command of its own is the name of a recipe."""

    @override
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take ``NAME ...`` for ``run NAME ...``."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


@guarded
@with_group(NetworkFiles, "files")
def run(
    files: NetworkFiles,
    name: Annotated[str, typer.Argument(help="Of a recipe, or its TOML file.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help=f"The pictures, or the folder that holds them by name. Default: {DATA}."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of results. Default: bench/NAME.")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="Of the recipe by name, or bicubic, ddnm, dps:zeta=3, ddnm@steps=20, rrdb:PATH, "
            "command:NAME:TEMPLATE, folder:NAME:PATH, recipe, baselines, all; repeatable."
        ),
    ] = None,
    tasks: Annotated[str, typer.Option(help="With commas between them. Default: all.")] = "",
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-n", "--model", help="For what names none, or ROLE=MODEL for a recipe; repeatable."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Pictures at most.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    report: Annotated[
        bool, typer.Option("--report", help="Make a page, sheets and plots of it too.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a command may take for a picture.")
    ] = 600.0,
) -> None:
    """Run a benchmark, or go on with it, and print ours beside the published figures.

    What is done already is kept, as long as its method, model, pictures and seeds are the same.
    """
    from sfumato.evaluation.benchmark import Benchmark, numbers_of_sets, run_benchmark
    from sfumato.evaluation.contenders import contender
    from sfumato.evaluation.data_sets import classes, find_data, photographs
    from sfumato.evaluation.own import Models
    from sfumato.evaluation.recipe import load_recipe
    from sfumato.evaluation.run_folder import measures_for, write_run, write_tables

    recipe = load_recipe(name)
    recipe = recipe.only(tasks) if tasks else recipe
    folder = find_data(recipe.data, _places(data))
    roles, plain = _models(recipe, model or [])
    models = Models(device, roles)
    parts = _with_models(_parts(recipe, methods), plain)
    pictures = photographs(recipe.data, folder, limit=limit)
    measuring = measures_for(recipe, files.on(device))
    benchmark = Benchmark(
        recipe,
        pictures,
        [contender(p, models, wanted=recipe.models, timeout=timeout) for p in parts],
        measuring.chosen,
        out or Path("bench", recipe.name),
        folder.resolve().name,
        classes(pictures, folder, files.labels) if files.labels or files.classifier else {},
    )
    for why in measuring.lacking:
        say(f"not measured: {why}")
    write_run(benchmark)
    records = _shown(run_benchmark(benchmark), recipe.name)
    sets = _shown(numbers_of_sets(benchmark, records), "sets")
    say(write_tables(benchmark, records, sets=sets).markdown)
    if report:
        from sfumato.evaluation import report as making

        seen = making.read_run(benchmark.folder)
        plots = making.svg_plots(seen)
        page = making.write_page(seen, benchmark.folder / "report.html", plots=plots)
        making.write_plots(seen, benchmark.folder / "plots")
        making.write_sheets(seen, benchmark.folder / "sheets")
        say(f"The page is {page.path}, {page.size_bytes / 1e6:.1f} MB")
    say(f"The folder is {benchmark.folder}")


@guarded
def list_recipes(
    data: Annotated[
        Path | None, typer.Option(help=f"Folder of data sets. Default: {DATA}.")
    ] = None,
) -> None:
    """List the recipes, and whether their pictures are here."""
    from sfumato.errors import SettingsError
    from sfumato.evaluation.data_sets import find_data
    from sfumato.evaluation.recipe import load_recipe, recipe_names

    places = _places(data)
    for name in recipe_names():
        recipe = load_recipe(name)
        try:
            there = f"in {find_data(recipe.data, places)}"
        except SettingsError:
            there = f"needs {recipe.data.name}"
        brings = f", and a model: {'; '.join(recipe.models.values())}" if recipe.models else ""
        say(f"{name:24} {recipe.title} ({there}{brings})")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("run")(run)
    app.command("list")(list_recipes)


def _places(data: Path | None) -> list[Path]:
    """Return where data sets are looked for."""
    if data is not None:
        return [data]
    said = os.environ.get(DATA)
    return [Path(said)] if said else []


def _models(recipe: Recipe, asked: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the models by the recipe's roles, and those for methods that name none.

    In a recipe with roles a model alone is that of the first one.
    """
    from sfumato.errors import SettingsError
    from sfumato.evaluation.recipe import unknown

    roles: dict[str, str] = {}
    plain: list[str] = []
    for text in asked:
        role, found, place = text.partition("=")
        if found and role in recipe.models:
            roles[role] = place
        elif found and recipe.models and not Path(text).exists():
            raise unknown("model", role, list(recipe.models), f"recipe {recipe.name}")
        elif recipe.models:
            roles.setdefault(next(iter(recipe.models)), text)
        else:
            plain.append(text)
    if recipe.models and not roles:
        role, wanted = next(iter(recipe.models.items()))
        raise SettingsError(
            f"recipe {recipe.name} without a model",
            expected=f"{wanted} as {role}",
            do=f"give -n {role}=PATH",
        )
    return roles, plain


def _parts(recipe: Recipe, methods: list[str] | None) -> list[MethodPart]:
    from sfumato.evaluation.contenders import method_parts

    return method_parts(methods, recipe) if methods else list(recipe.methods)


def _with_models(parts: list[MethodPart], models: list[str]) -> list[MethodPart]:
    """Do what names no model with each of these."""
    from sfumato.evaluation.contenders import slug, takes_model

    if not models:
        return parts
    found = []
    for part in parts:
        if part.model is not None or not takes_model(part):
            found.append(part)
            continue
        for model in models:
            own = slug(Path(model).stem)
            more = {"name": f"{part.name}-{own}", "caption": f"{part.caption or part.name}, {own}"}
            found.append(
                part.model_copy(update={"model": model} | (more if len(models) > 1 else {}))
            )
    return found


def _shown(events: Generator[Event | Began, None, T], title: str) -> T:
    from sfumato.evaluation.benchmark import Began

    def place(event: Event | Began) -> tuple[int, int, str] | None:
        if not isinstance(event, Began):
            return None
        return event.done, event.total, f"{event.task}, {event.method}, {event.picture}"

    return behind_a_bar(events, title, place)
