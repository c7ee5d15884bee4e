"""Checkpoints of other programs into files of ours, recognised by their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sfumato.errors import ModelError, SettingsError
from sfumato.io.pickles import some
from sfumato.zoo import adm, refinement
from sfumato.zoo.source import Source


@dataclass(frozen=True)
class Converted:
    """What ``save_checkpoint`` takes, and a few words on it."""

    tensors: Mapping[str, Tensor]
    config: Mapping[str, object]
    summary: str


def converted(
    checkpoint: Path, options: Path | None = None, *, scale: int | None = None
) -> Converted:
    """Read a checkpoint of guided-diffusion or of the public SR3, and its options.

    ``options`` is JSON: SR3 needs it. ``scale`` is how many times larger an SR3 model makes
    pictures, where that does not say so.

    Raises ModelError where it is neither or damaged, and SettingsError where the options are
    missing or contradict each other.
    """
    source = Source(checkpoint, checkpoint.stem)
    if checkpoint.is_file() and adm.matches(source):
        if scale is not None:
            raise SettingsError(f"--scale {scale} of a guided-diffusion model", expected="none")
        tensors, config = adm.convert(source, options)
        form, settled = adm.read(source, options)
        what = "classifier" if form.is_classifier else "prior"
        side = form.side if form.is_classifier else settled.image_size
        return Converted(tensors, config, f"{what} of {side} x {side} pixels")
    if options is None:
        if checkpoint.is_file() and not refinement.looks_like_sr3(source.shapes):
            raise ModelError(
                f"{checkpoint} holds tensors of another program: {some(source.shapes) or 'none'}",
                expected="a checkpoint of guided-diffusion or of the public SR3",
            )
        raise SettingsError(
            f"{checkpoint} without options", do="give --json, as it was trained by"
        )
    tensors, config = refinement.convert(checkpoint, options)
    said = config["scale"]
    if scale is not None and said not in (None, scale):
        raise SettingsError(f"--scale {scale}", expected=f"{said}, as {options} says")
    if (scale or said) is None:
        raise SettingsError(
            f"{options} does not say how many times larger it makes pictures", do="give --scale"
        )
    return Converted(tensors, config | {"scale": scale or said}, f"{scale or said}x")
