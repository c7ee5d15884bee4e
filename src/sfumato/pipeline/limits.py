"""What a prior cannot do: noise beyond its training, and images of another size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sfumato.errors import SettingsError
from sfumato.operators import Operator
from sfumato.pipeline.presets import Preset
from sfumato.pipeline.problem import Source
from sfumato.pipeline.settings import Settings
from sfumato.tiling import Stitch
from sfumato.zoo import Prior

#: A walk from nothing but noise begins with so much of it that no picture is left to be seen.
_PURE_NOISE = 5.0


def within_range(preset: Preset, source: Source, s: Settings, prior: Prior) -> Preset:
    """Return the preset for a prior: one that knows little noise begins with a known start.

    Raises SettingsError where it is asked for more noise than it knows.
    """
    if prior.sigma_max >= _PURE_NOISE:
        return preset
    knows = f"{prior.name}, which knows noise of up to {127.5 * prior.sigma_max:.3g}/255"
    if source.task == "generate":
        raise SettingsError(
            f"an image from nothing with {knows}",
            expected="a model that knows pure noise",
            do="use another model, for instance -n embedded",
        )
    asked = source.task == "denoise" or s.start_noise is not None
    first = s.schedule[0] if s.schedule else preset.sigma_max if asked else 0.0
    if first > 1.001 * prior.sigma_max:
        raise SettingsError(
            f"noise of {127.5 * first:.3g}/255 with {knows}",
            expected="no more than that",
            do="use another model, for instance -n embedded",
        )
    return replace(preset, known_start=True)


def check_tile(tile: int, prior: Prior) -> None:
    """Refuse tiles of another size than the only one that a prior knows."""
    if prior.fixed_size and tile != prior.tile:
        raise SettingsError(
            f"--tile {tile} with {prior.name}, which sees {prior.tile} x {prior.tile} pixels only",
            expected=f"{prior.tile}",
            do="leave out --tile",
        )


def check_whole(stitch: Stitch, A: Operator, prior: Prior) -> None:
    """Refuse an image without tiles that is larger than a prior of a fixed size can see."""
    _, height, width = A.in_shape
    if prior.fixed_size and stitch == "whole" and max(height, width) > prior.tile:
        raise SettingsError(
            f"--stitch whole for {width} x {height} pixels with {prior.name}",
            expected=f"at most {prior.tile} x {prior.tile}, all that it sees",
            do="leave out --stitch",
        )


def at_most(tile: int, sides: Sequence[int], stride: int) -> int:
    """Return a tile of whole strides, such that the last one, which takes the rest, fits too.

    >>> at_most(16, (33, 40), 2)
    14
    """
    whole = tile - tile % stride
    longest = max((whole + n % stride for n in sides if n > tile), default=whole)
    return tile if longest <= tile else whole - stride
