"""The restoring commands: each builds a degradation and runs it over files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.options import (
    ContinueOption,
    LimitOption,
    RecursiveOption,
    Shared,
    SkipOption,
    with_shared,
)
from sfumato.cli.running import (
    Job,
    drain,
    guarded,
    pairs,
    progress_bar,
    run_all,
    run_over,
    say,
    tell,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sfumato.operators import Degradation

    Degradations = Callable[[Path], Degradation]

Input = Annotated[Path, typer.Argument(help="A picture, or a folder of them.", metavar="INPUT")]
NoiseOption = Annotated[
    float, typer.Option(min=0, help="Standard deviation of the input's noise, on [0, 1].")
]
DegradationOption = Annotated[
    str,
    typer.Option(
        "-d", "--degradation", help='Left to right: "grayscale | average_pool:2 | noise:0.02".'
    ),
]


class Kernel(StrEnum):
    """How the small picture was made."""

    bicubic = "bicubic"
    box = "box"


def _with_noise(words: str, noise: float) -> str:
    return f"{words} | noise:{noise:g}" if noise else words


def _restore(source: Path, shared: Shared, text: str) -> None:
    """Run one degradation over a file or a folder."""
    from sfumato.operators import parse

    degradation = parse(text)
    run_all(source, shared, _job(shared, lambda _: degradation))


def _job(shared: Shared, degradation_of: Degradations) -> Job:
    from sfumato.pipeline.files import restore_file

    settings = shared.settings()
    prior = shared.prior()
    return lambda source, target: restore_file(
        source,
        target,
        degradation_of(source),
        prior=prior,
        settings=settings,
        report=shared.report,
        limit_pixels=shared.limit_pixels,
        device=shared.device,
        keep_job=shared.keep_job,
        restart=shared.restart,
    )


def upscale(
    input: Input,
    *,
    scale: Annotated[
        int, typer.Option("-s", "--scale", min=1, help="Times as wide and as high.")
    ] = 4,
    kernel: Annotated[Kernel, typer.Option(help="How the input was made.")] = Kernel.bicubic,
    noise: NoiseOption = 0.0,
    shared: Shared,
) -> None:
    """Super-resolution: enlarge, agreeing exactly with the input when made small again."""
    word = "average_pool" if kernel is Kernel.box else "bicubic"
    _restore(input, shared, _with_noise(f"{word}:{scale}", noise))


def inpaint(
    input: Input,
    *,
    mask: Annotated[
        Path, typer.Option("-m", "--mask", help="White = missing; or a folder, by name.")
    ],
    noise: NoiseOption = 0.0,
    shared: Shared,
) -> None:
    """Fill what a mask marks as missing; all other pixels stay as they are."""
    from sfumato.errors import DegradationError
    from sfumato.operators import parse

    def degradation(source: Path) -> Degradation:
        own = _mask_of(source, input, mask) if mask.is_dir() else mask
        found = parse(_with_noise(_with_file("mask", own), noise))
        _refuse_empty(own)
        return found

    if mask.is_dir() and not input.is_dir():
        raise DegradationError(f"the folder {mask} as a mask for {input}", expected="a picture")
    run_all(input, shared, _job(shared, degradation))


def _mask_of(source: Path, folder: Path, masks: Path) -> Path:
    """Return the mask of the picture's name; its ending may be another."""
    from sfumato.io import find_pictures

    own = masks / source.relative_to(folder)
    if own.exists() or not own.parent.is_dir():
        return own
    return next((p for p in find_pictures(own.parent) if p.stem == own.stem), own)


def _with_file(word: str, path: Path) -> str:
    """Write a degradation word with its file; the text form has no way to quote a bar."""
    from sfumato.errors import DegradationError

    if "|" in str(path):
        raise DegradationError(f"the file name '{path}'", expected="one without |", do="rename it")
    return f"{word}:{path}"


def _refuse_empty(mask: Path) -> None:
    from sfumato.errors import DegradationError
    from sfumato.io import read_mask

    if bool(read_mask(mask).all()):
        raise DegradationError(
            f"the mask {mask} marks nothing", expected="white where the picture is missing"
        )


def colorize(
    input: Input,
    *,
    hints: Annotated[
        Path | None,
        typer.Option(help="Painted colour strokes on a transparent or black ground."),
    ] = None,
    noise: NoiseOption = 0.0,
    shared: Shared,
) -> None:
    """Colour a grey photograph; its grey (BT.601) stays exactly as it is."""
    words = _with_file("grayscale_hints", hints) if hints else "grayscale"
    _restore(input, shared, _with_noise(words, noise))


def denoise(input: Input, *, noise: NoiseOption, shared: Shared) -> None:
    """Remove Gaussian noise of a known standard deviation."""
    from sfumato.errors import SettingsError

    if not noise:
        raise SettingsError(
            "--noise 0, which leaves nothing to remove", expected="a standard deviation above 0"
        )
    _restore(input, shared, _with_noise("identity", noise))


def deblur(
    input: Input,
    *,
    blur: Annotated[
        str, typer.Option(help="gaussian:2.0, uniform:9, motion:15:30 or KERNEL.png.")
    ],
    noise: NoiseOption = 0.0,
    shared: Shared,
) -> None:
    """Undo a known blur."""
    from sfumato.operators import blur_word

    _restore(input, shared, _with_noise(blur_word(blur), noise))


def restore(input: Input, *, degradation: DegradationOption, shared: Shared) -> None:
    """Restore from any degradation, given in words."""
    _restore(input, shared, degradation)


@guarded
def degrade(
    input: Input,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="File, or folder for a folder; .npy keeps the exact numbers."
        ),
    ],
    degradation: DegradationOption,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    recursive: RecursiveOption = False,
    skip_existing: SkipOption = False,
    continue_on_error: ContinueOption = False,
    limit_pixels: LimitOption = None,
) -> None:
    """Make a measurement for experiments."""
    from sfumato.operators import parse
    from sfumato.pipeline.files import degrade_file

    words = parse(degradation)
    run_over(
        pairs(input, output, recursive=recursive),
        lambda file, target: say(
            degrade_file(file, target, words, seed=seed, limit_pixels=limit_pixels)
        ),
        skip_existing=skip_existing,
        continue_on_error=continue_on_error,
    )


@guarded
def project(
    result: Annotated[
        Path, typer.Argument(help="Any program's output: a picture.", metavar="RESULT")
    ],
    measurement: Annotated[Path, typer.Option(help="The picture that it was made from.")],
    degradation: DegradationOption,
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture to write.")],
    refine: Annotated[
        float, typer.Option(min=0, help="Restore it too, from this noise level ([0, 1]) on.")
    ] = 0.0,
    model: Annotated[
        str, typer.Option("-n", "--model", help="Name or path of a prior (with --refine).")
    ] = "embedded",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Network evaluations per tile (with --refine).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise (with --refine).")] = 0,
    limit_pixels: LimitOption = None,
) -> None:
    """Make any program's output agree exactly with the input it was made from."""
    from sfumato.operators import parse
    from sfumato.pipeline import make_settings
    from sfumato.pipeline.files import project_file
    from sfumato.zoo import load_prior

    job = project_file(
        result,
        measurement,
        output,
        parse(degradation),
        prior=load_prior(model, device=device) if refine else None,
        settings=make_settings(steps=steps, seed=seed),
        refine=refine,
        limit_pixels=limit_pixels,
        device=device,
    )
    with progress_bar(output.name) as advance:
        report = drain(job, advance)
    tell(output, report)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (upscale, inpaint, colorize, denoise, deblur, restore):
        app.command(name=command.__name__)(guarded(with_shared(command)))
    app.command()(degrade)
    app.command()(project)
