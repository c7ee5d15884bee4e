"""``upscale`` and ``generate``: cascades, in which one model's result is the next one's input."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.commands import Input, NoiseOption, run_words, with_noise
from sfumato.cli.options import Shared, with_shared
from sfumato.cli.running import guarded, say

if TYPE_CHECKING:
    from sfumato.zoo import Prior

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
        int, typer.Option("-s", "--scale", min=1, help="Times as wide and as high.")
    ] = 4,
    kernel: Annotated[Kernel, typer.Option(help="How the input was made.")] = Kernel.bicubic,
    noise: NoiseOption = 0.0,
    then: ThenOption = None,
    shared: Shared,
) -> None:
    """Super-resolution: enlarge, agreeing exactly with the input when made small again.

    An SR3 model (-n sr3, 4x) is used as often as the scale takes: -s 16 is a cascade of two.
    """
    word = "average_pool" if kernel is Kernel.box else "bicubic"
    words = words_of_scale(scale, word, shared, then or ())
    words[0] = with_noise(words[0], noise)
    models = [shared.model, *then] if then else [shared.model] * len(words)
    cascade(input, shared, words, models)


def generate(
    *,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Of the image that the first model makes, in pixels."),
    ] = None,
    then: ThenOption = None,
    bits: Annotated[int, typer.Option(help="8 or 16 bits a value.")] = 8,
    label: Annotated[
        str | None, typer.Option(help="Class of the image, by name or index (models info).")
    ] = None,
    guidance: Annotated[
        float, typer.Option(min=0, help="Above 1 a class is more typical, at twice the time.")
    ] = 1.0,
    shared: Shared,
) -> None:
    """Make an image from nothing, of any size: by tiles, in levels, or through a cascade.

    It is a restoration of which nothing is known; --stitch, --levels, --seed and all others mean
    the same. A model of 64 x 64 pixels and two SR3 models make 1024 x 1024: --then sr3 --then sr3
    """
    from sfumato.errors import SettingsError
    from sfumato.io import write_blank

    if bits not in (8, 16):
        raise SettingsError(f"--bits {bits}", expected="8 or 16")
    width, height = _size(size or _own_size(shared))
    with tempfile.TemporaryDirectory(prefix="sfumato-") as folder:
        blank = Path(folder) / "nothing.tif"
        write_blank(blank, (height, width), bits)
        prior = shared.prior().of_class(label, guidance) if label is not None else None
        words, models = ["nothing", *_words(then or ())], [shared.model, *(then or ())]
        cascade(blank, shared, words, models, prior)


def cascade(
    source: Path,
    shared: Shared,
    words: Sequence[str],
    models: Sequence[str],
    first: Prior | None = None,
) -> None:
    """Restore by one model after the other; what lies in between is in ``OUTPUT.stages``.

    ``first`` stands for the first model. A cascade that was interrupted goes on: stages whose
    report tells of the same are left.
    """
    between = shared.output.parent / f"{shared.output.name}.stages"
    for k, (word, model) in enumerate(zip(words, models, strict=True), 1):
        prior = first if k == 1 else None
        if k == len(words):
            run_words(source, replace(shared, model=model), word, prior)
            break
        output = between / f"{k}{'' if source.is_dir() else '.tif'}"
        output.parent.mkdir(parents=True, exist_ok=True)
        run_words(source, replace(shared, model=model, output=output, resume=True), word, prior)
        source = output
    if between.is_dir() and not shared.keep_job and not shared.dry_run:
        shutil.rmtree(between)


def words_of_scale(scale: int, kernel: str, shared: Shared, then: Sequence[str]) -> list[str]:
    """Return a degradation for each model of a cascade that enlarges by ``scale`` in all.

    Without ``then`` an SR3 model is used as often as it takes.
    """
    from sfumato.errors import SettingsError

    first = _scale_of(shared.model)
    if first is None and not then:
        return [f"{kernel}:{scale}"]
    scales = [_needed(shared.model, first), *(_needed(m, _scale_of(m)) for m in then)]
    while not then and scales[0] > 1 and _product(scales) < scale:
        scales.append(scales[0])
    if _product(scales) != scale:
        made = " x ".join(map(str, scales))
        raise SettingsError(
            f"-s {scale} by models that make {made}",
            expected=f"-s {_product(scales)}",
            do="choose that, or other models (--then)",
        )
    return [f"{kernel}:{s}" for s in scales]


def _words(models: Sequence[str]) -> list[str]:
    return [f"bicubic:{_needed(m, _scale_of(m))}" for m in models]


def _needed(model: str, scale: int | None) -> int:
    from sfumato.errors import SettingsError

    if scale is None:
        raise SettingsError(f"the model {model} in a cascade", expected="an SR3 model")
    return scale


def _scale_of(model: str) -> int | None:
    """Return how many times larger a model makes pictures; None for a prior. Only its header."""
    from sfumato.zoo import scale_of

    return scale_of(model)


def _own_size(shared: Shared) -> str:
    """Return the size that a model was made for."""
    from sfumato.zoo import native_side

    side = native_side(shared.model)
    say(f"{side} x {side} pixels, since --size does not say otherwise")
    return f"{side}x{side}"


def _product(numbers: Sequence[int]) -> int:
    total = 1
    for n in numbers:
        total *= n
    return total


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
        app.command(name=command.__name__)(guarded(with_shared(command)))
