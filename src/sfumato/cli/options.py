"""The options that all restoring commands share, declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_type_hints

import typer

if TYPE_CHECKING:
    from sfumato.pipeline import Settings
    from sfumato.zoo import Prior

_PICTURE = "Picture"
_HOW = "How to restore"
_TILES = "Tiles"
_FILES = "Files"


class Objective(StrEnum):
    """What to aim at."""

    distortion = "distortion"
    perception = "perception"


class Method(StrEnum):
    """Zero-shot methods."""

    ddnm = "ddnm"
    ddnm_plus = "ddnm+"
    proximal = "proximal"


class SamplerName(StrEnum):
    """Samplers."""

    ddim = "ddim"
    ddpm = "ddpm"
    dpm_solver = "dpm-solver++"
    rounds = "rounds"


class Stitch(StrEnum):
    """How tiles become one image."""

    auto = "auto"
    mask_shift = "mask-shift"
    joint = "joint"
    independent = "independent"
    whole = "whole"


class Order(StrEnum):
    """Which tile comes first."""

    raster = "raster"
    reverse = "reverse"
    centre = "centre"
    known_first = "known-first"


class Precision(StrEnum):
    """Arithmetic of the network."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


RecursiveOption = Annotated[
    bool, typer.Option("--recursive", "-r", help="Folders below too.", rich_help_panel=_FILES)
]
SkipOption = Annotated[
    bool,
    typer.Option("--skip-existing", help="Leave outputs that are there.", rich_help_panel=_FILES),
]
ContinueOption = Annotated[
    bool,
    typer.Option(
        "--continue-on-error",
        help="After a file that fails go on; exit 3 at the end.",
        rich_help_panel=_FILES,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit-pixels",
        min=1,
        help="Refuse inputs of more pixels. Default: 100 million.",
        rich_help_panel=_FILES,
    ),
]


@dataclass(frozen=True)
class Shared:
    """What every restoring command is told; the annotations are the command line's."""

    output: Annotated[Path, typer.Option("-o", "--output", help="File, or folder for a folder.")]
    model: Annotated[
        str, typer.Option("-n", "--model", help="Name or path of a prior.", rich_help_panel=_HOW)
    ] = "embedded"
    objective: Annotated[
        Objective | None,
        typer.Option(help="Least error, or one natural sample.", rich_help_panel=_HOW),
    ] = None
    method: Annotated[
        Method | None,
        typer.Option(
            help="How the input is kept to; ddnm+ and proximal know its noise.",
            rich_help_panel=_HOW,
        ),
    ] = None
    sampler: Annotated[
        SamplerName | None,
        typer.Option(
            help="ddim, ddpm: one natural sample; rounds: least error.", rich_help_panel=_HOW
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Network evaluations per tile.", rich_help_panel=_HOW),
    ] = None
    eta: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of fresh noise (ddim).", rich_help_panel=_HOW),
    ] = None
    time_travel: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH:TIMES",
            help="Every LENGTH steps jump back and redo, TIMES in all. Default: 1:1.",
            rich_help_panel=_HOW,
        ),
    ] = None
    samples: Annotated[
        int,
        typer.Option(
            min=1, help="Several answers, beside them their mean and spread.", rich_help_panel=_HOW
        ),
    ] = 1
    seed: Annotated[
        int, typer.Option(min=0, help="Same seed, same result.", rich_help_panel=_HOW)
    ] = 0
    tile: Annotated[
        int | None,
        typer.Option(
            "-t",
            "--tile",
            min=16,
            help="Side in pixels. Default: the model's, or less.",
            rich_help_panel=_TILES,
        ),
    ] = None
    overlap: Annotated[
        int | None,
        typer.Option(
            min=0, help="In pixels. Default: 64, at most a quarter.", rich_help_panel=_TILES
        ),
    ] = None
    stitch: Annotated[
        Stitch, typer.Option(help="How tiles become one image.", rich_help_panel=_TILES)
    ] = Stitch.auto
    order: Annotated[
        Order,
        typer.Option(help="Which tile comes first (mask-shift).", rich_help_panel=_TILES),
    ] = Order.raster
    levels: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Coarser levels first. Default: as the task needs.",
            rich_help_panel=_TILES,
        ),
    ] = None
    batch: Annotated[
        int | None, typer.Option(min=1, help="Tiles at once.", rich_help_panel=_TILES)
    ] = None
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu"
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the network.")] = (
        Precision.auto
    )
    recursive: RecursiveOption = False
    skip_existing: SkipOption = False
    continue_on_error: ContinueOption = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done.", rich_help_panel=_FILES)
    ] = False
    report: Annotated[
        Path | None,
        typer.Option(help="JSON report [OUTPUT.json beside it].", rich_help_panel=_FILES),
    ] = None
    limit_pixels: LimitOption = None
    keep_job: Annotated[
        bool,
        typer.Option("--keep-job", help="Keep OUTPUT.job at the end.", rich_help_panel=_FILES),
    ] = False
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Begin anew what OUTPUT.job holds.", rich_help_panel=_FILES
        ),
    ] = False

    def settings(self) -> Settings:
        """Return the pipeline's settings; raises SettingsError."""
        from sfumato.errors import SettingsError
        from sfumato.pipeline import make_settings

        travel = self.time_travel or "1:1"
        parts = travel.split(":")
        if len(parts) != 2 or not all(p.isdigit() for p in parts):
            raise SettingsError(
                f"--time-travel {travel}", expected="LENGTH:TIMES, two whole numbers such as 10:3"
            )
        return make_settings(
            objective=self.objective,
            method=self.method,
            sampler=self.sampler,
            steps=self.steps,
            eta=self.eta,
            time_travel=(int(parts[0]), int(parts[1])),
            tile=self.tile,
            overlap=self.overlap,
            stitch=self.stitch,
            order=self.order,
            levels=self.levels,
            batch=self.batch,
            seed=self.seed,
            samples=self.samples,
        )

    def prior(self) -> Prior:
        """Load the model; raises ModelError."""
        from sfumato.zoo import load_prior

        return load_prior(self.model, device=self.device, precision=self.precision.value)


def with_shared(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command(..., shared: Shared)`` all shared options on the command line.

    The command's own parameters come first; typer reads the joined signature.
    """
    own = inspect.signature(command, eval_str=True)
    hints = get_type_hints(Shared, include_extras=True)
    parameters = [p for p in own.parameters.values() if p.name != "shared"]
    names = {f.name for f in fields(Shared)}
    for f in fields(Shared):
        default = inspect.Parameter.empty if f.name == "output" else f.default
        parameters.append(
            inspect.Parameter(
                f.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=hints[f.name],
            )
        )

    @wraps(command)
    def joined(**given: object) -> None:
        shared = Shared(**{k: v for k, v in given.items() if k in names})  # type: ignore[arg-type]
        command(shared=shared, **{k: v for k, v in given.items() if k not in names})

    as_keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    joined.__signature__ = own.replace(parameters=as_keywords)  # type: ignore[attr-defined]
    joined.__annotations__ = {p.name: p.annotation for p in as_keywords} | {"return": None}
    return joined
