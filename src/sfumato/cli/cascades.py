"""``upscale`` and ``generate``: cascades, in which one model's result is the next one's input."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.commands import NoiseOption, run_words, with_noise
from sfumato.cli.groups import with_group
from sfumato.cli.options import Input, Shared
from sfumato.cli.saying import guarded, say
from sfumato.cli.todo import todo_of

ThenOption = Annotated[
    list[str] | None,
    typer.Option(
        "--then",
        metavar="MODEL",
        help="An SR3 model that makes the result larger; once more for the next one.",
    ),
]


class Kernel(StrEnum):
    """How the small picture was made."""

    bicubic = "bicubic"
    box = "box"


def upscale(
    input: Input,
    *,
    scale: Annotated[
        int | None,
        typer.Option("-s", "--scale", min=1, help="Times as wide and as high.  [default: 4]"),
    ] = None,
    kernel: Annotated[
        Kernel | None, typer.Option(help="How the input was made.  [default: bicubic]")
    ] = None,
    noise: NoiseOption = 0.0,
    then: ThenOption = None,
    shared: Shared,
) -> None:
    """Super-resolution: enlarge, agreeing exactly with the input when made small again.

    2x and 4x are done by the embedded SR3 model, other factors by the prior. An SR3 model that is
    named (-n sr3, 4x) is used as often as the scale takes: -s 16 is a cascade of two, -s 8 too.
    """
    from sfumato.zoo import EMBEDDED, SR3

    first = shared.model or (SR3 if then else EMBEDDED)
    models, factors = models_of_scale(scale, first, then or ())
    words = [f"{_word(kernel, _own(m))}:{n}" for m, n in zip(models, factors, strict=True)]
    words[0] = with_noise(words[0], noise)
    cascade(input, shared, words, models)


def generate(
    *,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Of the image that the first model makes, in pixels."),
    ] = None,
    then: ThenOption = None,
    bits: Annotated[int, typer.Option(help="8 or 16 bits a value.")] = 8,
    shared: Shared,
) -> None:
    """Make an image from nothing, of any size: by tiles, in levels, or through a cascade.

    It is a restoration of which nothing is known; --stitch, --levels, --seed and all others mean
    the same. A model of 64 x 64 pixels and two SR3 models make 1024 x 1024: --then sr3 --then sr3
    """
    from sfumato.errors import SettingsError
    from sfumato.io import write_blank
    from sfumato.zoo import EMBEDDED

    if bits not in (8, 16):
        raise SettingsError(f"--bits {bits}", expected="8 or 16")
    if shared.asked().votes:
        raise SettingsError("a classifier for an image from nothing", do="give --class NAME")
    if shared.output.is_dir():
        raise SettingsError(f"the folder {shared.output}", expected="a file for --output")
    models = [shared.model or EMBEDDED, *(then or ())]
    words = ["nothing", *(f"{_own(model)}:{_needed(model)[0]}" for model in models[1:])]
    width, height = _size(size or _own_size(models[0]))
    with tempfile.TemporaryDirectory(prefix="sfumato-") as folder:
        blank = Path(folder) / "nothing.tif"
        write_blank(blank, (height, width), bits)
        cascade(blank, shared, words, models)


def cascade(
    source: Path,
    shared: Shared,
    words: Sequence[str],
    models: Sequence[str],
) -> None:
    """Restore by one model after the other; what lies in between is in ``OUTPUT.stages``.

    Where the models differ, later ones go by their own settings. A cascade that was interrupted
    goes on: stages whose report tells of the same are left.
    """
    if len(words) == 1:
        run_words(source, shared, words[0])
        return
    _check_cascade(source, shared)
    target = todo_of(source, shared.output).target(source)
    if shared.skip_existing and target.exists():
        say(f"{target} exists, skipped")
        return
    between = target.parent / f"{target.name}.stages"
    between.mkdir(parents=True, exist_ok=True)
    for k, (word, model) in enumerate(zip(words, models, strict=True), 1):
        own = shared if k == 1 or model == models[0] else _defaults(shared)
        last = k == len(words)
        output = target if last else between / f"{k}.tif"
        one = replace(own, model=model, output=output, resume=not last or shared.resume)
        one = one if last else replace(one, report=None, failed=None)
        run_words(source, one, word)
        source = output
    if not shared.keep_job:
        shutil.rmtree(between)


def _check_cascade(source: Path, shared: Shared) -> None:
    """Refuse what a cascade cannot do, before anything is done."""
    from sfumato.errors import SettingsError
    from sfumato.io.storage import address

    if source.is_dir() or address(source) or address(shared.output):
        raise SettingsError(
            f"a cascade from {source} to {shared.output}",
            expected="one picture, and files on this machine",
            do="run it for each picture",
        )
    asked = {
        "--region": shared.region,
        "--shard": shared.shard,
        "--dry-run": shared.dry_run,
        "--samples": shared.samples > 1,
    }
    if said := [option for option, value in asked.items() if value]:
        raise SettingsError(
            f"{said[0]} with a cascade",
            expected="one model at a time",
            do="make the stages by commands of their own",
        )


def _defaults(shared: Shared) -> Shared:
    """Return the options of a stage by another model than the first: its own choices."""
    return Shared(
        output=shared.output,
        consistent=shared.consistent,
        seed=shared.seed,
        batch=shared.batch,
        workers=shared.workers,
        ray=shared.ray,
        device=shared.device,
        precision=shared.precision,
        report=shared.report,
        limit_pixels=shared.limit_pixels,
        progress=shared.progress,
        resume=shared.resume,
        failed=shared.failed,
        keep_job=shared.keep_job,
        restart=shared.restart,
    )


def models_of_scale(
    scale: int | None, model: str, then: Sequence[str]
) -> tuple[list[str], list[int]]:
    """Return the models of a cascade that enlarges by ``scale`` in all, and their factors.

    Without ``then`` an SR3 model is used as often as it takes. The last one may be asked for less
    than it makes.
    """
    from sfumato.errors import SettingsError

    if _task_of(model) is None and not then:
        return [model], [scale or 4]
    models = [model, *then]
    factors = [_needed(m)[0] for m in models]
    while scale is not None and not then and 1 < math.prod(factors) < scale:
        models.append(model)
        factors.append(factors[0])
    before, last = math.prod(factors[:-1]), factors[-1]
    made = [before * n for n in range(min(2, last), last + 1) if last % n == 0]
    if scale not in (None, *made):
        raise SettingsError(
            f"-s {scale} by models that make {' x '.join(map(str, factors))}",
            expected=" or ".join(f"-s {n}" for n in made),
            do="choose that, or other models (--then)",
        )
    return models, [*factors[:-1], (scale or before * last) // before]


def _word(kernel: Kernel | None, otherwise: str) -> str:
    return {None: otherwise, Kernel.box: "average_pool", Kernel.bicubic: "bicubic"}[kernel]


def _own(model: str) -> str:
    """Return the kernel that a model was trained for; bicubic for a prior."""
    task = _task_of(model)
    return task[1] if task else "bicubic"


def _needed(model: str) -> tuple[int, str]:
    from sfumato.errors import SettingsError

    task = _task_of(model)
    if task is None:
        raise SettingsError(f"the model {model} in a cascade", expected="an SR3 model")
    return task


def _task_of(model: str) -> tuple[int, str] | None:
    """Return an SR3 model's scale and kernel; None for a prior. Only its header is read."""
    from sfumato.zoo import task_of_model

    return task_of_model(model)


def _own_size(model: str) -> str:
    """Return the size that a model was made for."""
    from sfumato.zoo import native_side

    side = native_side(model)
    say(f"{side} x {side} pixels, since --size does not say otherwise")
    return f"{side}x{side}"


def _size(text: str) -> tuple[int, int]:
    """Read ``WxH``.

    >>> _size("640x480")
    (640, 480)
    """
    from sfumato.errors import SettingsError

    width, x, height = text.lower().partition("x")
    if not (x and width.isdecimal() and height.isdecimal()) or min(int(width), int(height)) < 1:
        raise SettingsError(f"--size {text}", expected="WxH, as 640x480")
    return int(width), int(height)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (upscale, generate):
        app.command(name=command.__name__)(guarded(with_group(Shared, "shared")(command)))
