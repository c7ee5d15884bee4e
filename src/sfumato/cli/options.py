"""The options that all restoring commands share, declared once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from sfumato.cli.saying import emit, fail

if TYPE_CHECKING:
    from sfumato.cli.classes import Asked
    from sfumato.pipeline import Settings
    from sfumato.tiling import Executor

T = TypeVar("T")

_PICTURE = "Picture"
_HOW = "How to restore"
_TILES = "Tiles"
_FILES = "Files"


class Objective(StrEnum):
    """What to aim at."""

    distortion = "distortion"
    perception = "perception"


class SamplerName(StrEnum):
    """Samplers."""

    ddim = "ddim"
    ddpm = "ddpm"
    dpm_solver = "dpm-solver++"
    rounds = "rounds"
    sr3 = "sr3"


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


class Progress(StrEnum):
    """How those who wait are told."""

    auto = "auto"
    bar = "bar"
    json = "json"
    none = "none"


class Kernels(StrEnum):
    """What computes the network."""

    auto = "auto"
    eager = "eager"
    compiled = "compiled"


class Precision(StrEnum):
    """Arithmetic of the network."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


Input = Annotated[Path, typer.Argument(help="A picture, or a folder of them.", metavar="INPUT")]
DegradationOption = Annotated[
    str,
    typer.Option(
        "-d", "--degradation", help='Left to right: "grayscale | average_pool:2 | noise:0.02".'
    ),
]
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
WorkOption = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="Where a job and copies lie: a folder, or an address for the job. Default: beside "
        "OUTPUT, or here if that is at an address.",
        rich_help_panel=_FILES,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit-pixels",
        min=1,
        help="Refuse inputs of more pixels. Default: 100 million; none for tiled TIFF that is "
        "restored tile by tile.",
        rich_help_panel=_FILES,
    ),
]


@dataclass(frozen=True)
class Share:
    """Of a list every ``n``-th, from the ``i``-th on; the first is 1."""

    i: int = 1
    n: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read ``I/N``; raises SettingsError.

        >>> Share.parse("2/3").of("abcdefgh")
        'beh'
        """
        from sfumato.errors import SettingsError

        i, slash, n = text.partition("/")
        whole = bool(slash) and all(k.isascii() and k.isdigit() for k in (i, n))
        if not whole or not 1 <= int(i) <= int(n):
            raise SettingsError(
                f"--shard {text}",
                expected="I/N with I from 1 to N: 3/16 for the third",
            )
        return cls(int(i), int(n))

    def of(self, files: Sequence[T]) -> Sequence[T]:
        """Return what is this share's."""
        return files[self.i - 1 :: self.n]


@dataclass(frozen=True)
class Shared:
    """What every restoring command is told; the annotations are the command line's."""

    output: Annotated[Path, typer.Option("-o", "--output", help="File, or folder for a folder.")]
    model: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--model",
            help="Name, file or folder of a model, or hf:OWNER/REPO. Default: sr3 for 2x and 4x, "
            "else embedded, the prior.",
            rich_help_panel=_HOW,
        ),
    ] = None
    label: Annotated[
        str | None,
        typer.Option(
            "--class",
            "--label",
            metavar="NAME|INDEX|auto",
            help="What the image shows, of the model's or the classifier's classes; auto: what "
            "the classifier sees in the input.",
            rich_help_panel=_HOW,
        ),
    ] = None
    classifier: Annotated[
        Path | None,
        typer.Option(
            help="A classifier of noisy images that leads any prior to the class: "
            "256x256_classifier.pt.",
            rich_help_panel=_HOW,
        ),
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="How strongly to the class: the scale of the classifier's gradient; without a "
            "classifier above 1 takes twice the time. Default: 1.",
            rich_help_panel=_HOW,
        ),
    ] = None
    objective: Annotated[
        Objective | None,
        typer.Option(help="Least error, or one natural sample.", rich_help_panel=_HOW),
    ] = None
    method: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="How the input is kept to: ddnm, ddnm+, proximal, ddrm, ilvr, repaint, diffpir, "
            "dps, pigdm, mmps, flow, none; with options as in dps:zeta=2.",
            rich_help_panel=_HOW,
        ),
    ] = None
    sampler: Annotated[
        SamplerName | None,
        typer.Option(
            help="ddim, ddpm, sr3: one natural sample; rounds: least error.",
            rich_help_panel=_HOW,
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Network evaluations per tile.", rich_help_panel=_HOW),
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEDULE",
            help="Noise levels on [-1, 1]: karras:STEPS:FIRST:LAST, linear:STEPS (SR3's), or "
            "numbers that fall, with commas.",
            rich_help_panel=_HOW,
        ),
    ] = None
    consistent: Annotated[
        bool | None,
        typer.Option(
            "--consistent/--no-consistent",
            help="Keep exactly what the input says (the default), also with an SR3 model.",
            rich_help_panel=_HOW,
        ),
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
            help="Side in pixels; of what the model makes, where that is made smaller (2x). "
            "Default: the model's, or less.",
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
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes for the tiles of one picture (mask-shift); the cores are shared out, "
            "the result is the same. Default: 1; with --ray as many as fit.",
            rich_help_panel=_TILES,
        ),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help='The workers are on this Ray cluster (auto: the one here); "local" starts one.',
            rich_help_panel=_TILES,
        ),
    ] = None
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu"
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the network.")] = (
        Precision.auto
    )
    kernels: Annotated[
        Kernels,
        typer.Option(
            help="Of the network: compiled takes a while, and pays for some. Default: what "
            "`sfumato doctor --measure` has found to pay."
        ),
    ] = Kernels.auto
    collaborative: Annotated[
        bool | None,
        typer.Option(
            "--collaborative/--no-collaborative",
            help="For the least error of denoising, filter alike patches after the network. "
            "Default: for sfumato's own priors.",
            rich_help_panel=_HOW,
        ),
    ] = None
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
    progress: Annotated[
        Progress,
        typer.Option(
            help="On standard error: a bar (auto: in a terminal), or JSON, an event a line.",
            rich_help_panel=_FILES,
        ),
    ] = Progress.auto
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Of a folder's files only each N-th, from the I-th on: one of N jobs.",
            rich_help_panel=_FILES,
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Leave outputs whose report tells of this input, model and settings.",
            rich_help_panel=_FILES,
        ),
    ] = False
    failed: Annotated[
        Path | None,
        typer.Option(
            help="List the files that failed in this file, as JSON.", rich_help_panel=_FILES
        ),
    ] = None
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="Restore only this part of the result, as a preview.",
            rich_help_panel=_FILES,
        ),
    ] = None
    work: WorkOption = None
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
        from sfumato.diffusion import parse_schedule
        from sfumato.errors import SettingsError
        from sfumato.pipeline import make_settings

        parts = (self.time_travel or "1:1").split(":")
        if len(parts) != 2 or not all(p.isdigit() for p in parts):
            raise SettingsError(
                f"--time-travel {self.time_travel}",
                expected="LENGTH:TIMES, two whole numbers such as 10:3",
            )
        if self.consistent is not None and self.method is not None:
            raise SettingsError("--consistent and --method", expected="one of them")
        return make_settings(
            objective=self.objective,
            method="none" if self.consistent is False else self.method,
            schedule=parse_schedule(self.schedule) if self.schedule else None,
            sampler=self.sampler,
            steps=self.steps,
            eta=self.eta,
            time_travel=(int(parts[0]), int(parts[1])) if self.time_travel else None,
            tile=self.tile,
            overlap=self.overlap,
            stitch=self.stitch,
            order=self.order,
            kernels=self.kernels,
            collaborative=self.collaborative,
            levels=self.levels,
            batch=self.batch,
            seed=self.seed,
            samples=self.samples,
        )

    def asked(self) -> Asked:
        """Return which model is asked for, and which class of it."""
        from sfumato.cli.classes import Asked
        from sfumato.zoo import EMBEDDED

        return Asked(
            self.model or EMBEDDED,
            self.device,
            self.precision.value,
            self.label,
            self.classifier,
            self.guidance,
        )

    def share(self) -> Share:
        """Return which files are this job's; raises SettingsError."""
        return Share.parse(self.shard) if self.shard else Share()

    def executor(self) -> AbstractContextManager[Executor | None]:
        """Return who restores the tiles, to be opened; None is this process itself."""
        gpu = self.device.startswith("cuda")
        if self.ray is not None:
            from sfumato.tiling.on_ray import OnRay

            return OnRay(
                self.workers,
                None if self.ray == "local" else self.ray,
                gpus_per_worker=1.0 if gpu else 0.0,
                threads=self.threads() if self.workers and self.ray == "local" else None,
                warned=self.warned,
            )
        if self.workers is None or self.workers == 1:
            return nullcontext()
        from sfumato.tiling.processes import Processes

        return Processes(self._devices(self.workers), self.threads(), warned=self.warned)

    def threads(self) -> int:
        """Return the threads of each worker: its share of the cores that this process may use.

        They are no more than this process has, which ``OMP_NUM_THREADS`` says.
        """
        import torch

        able = getattr(os, "sched_getaffinity", None)
        n_cores = len(able(0)) if able else os.cpu_count() or 1
        return max(1, min(torch.get_num_threads(), n_cores // (self.workers or 1)))

    def warned(self, text: str) -> None:
        """Tell those who wait of something that goes on all the same."""
        if self.progress is Progress.json:
            emit("warning", {"reason": text})
        else:
            fail(text)

    def _devices(self, n: int) -> list[str]:
        """Return a device for each worker: with ``cuda`` alone they take the GPUs in turn."""
        if self.device != "cuda":
            return [self.device] * n
        import torch

        return [f"cuda:{k % max(1, torch.cuda.device_count())}" for k in range(n)]
