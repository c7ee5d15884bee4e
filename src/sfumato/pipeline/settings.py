"""One validated settings object: what the user chose, saved with every result."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sfumato.errors import SettingsError
from sfumato.guidance.methods import parse_method

Objective = Literal["distortion", "perception"]
SamplerName = Literal["ddim", "ddpm", "dpm-solver++", "rounds", "sr3"]
StitchChoice = Literal["auto", "mask-shift", "joint", "independent", "whole"]


class Settings(BaseModel):
    """How to restore. None (or "auto") leaves the choice to the task's preset and the picture.

    >>> Settings(seed=3).stitch
    'auto'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Objective | None = None
    #: By name, with options if there are any: "dps:zeta=2" (see sfumato.guidance.METHODS).
    method: str | None = None
    sampler: SamplerName | None = None
    steps: int | None = Field(None, ge=1, le=10_000)
    eta: float | None = Field(None, ge=0, le=1)
    #: Noise levels, decreasing, on data in [-1, 1]; ``steps`` and ``start_noise`` follow from it.
    schedule: tuple[float, ...] | None = None
    #: Noise to begin with, on the [0, 1] scale, put on a start that is known.
    start_noise: float | None = Field(None, gt=0, le=50)
    #: Length of the jumps back, and how often each stretch is done (None: as the method has it).
    time_travel: tuple[int, int] | None = None
    tile: int | None = Field(None, ge=16, le=65_536)
    overlap: int | None = Field(None, ge=0)
    stitch: StitchChoice = "auto"
    #: What computes the network: "auto" is what was measured to pay (sfumato.pipeline.kernels).
    kernels: Literal["auto", "eager", "compiled"] = "auto"
    #: For the least error of denoising, filter alike patches after the network; None: for models
    #: that gain by it (sfumato.diffusion.collaborative).
    collaborative: bool | None = None
    order: Literal["raster", "reverse", "centre", "known-first"] = "raster"
    levels: int | None = Field(None, ge=1, le=12)
    batch: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0, lt=1 << 63)
    samples: int = Field(1, ge=1, le=1000)

    @field_validator("schedule")
    @classmethod
    def _check_schedule(cls, schedule: tuple[float, ...] | None) -> tuple[float, ...] | None:
        falling = schedule is None or (
            0 < len(schedule) <= 10_000
            and all(a > b for a, b in pairwise((*schedule, 0.0)))
            and schedule[0] < math.inf
        )
        if not falling:
            raise ValueError("at most 10,000 noise levels that decrease, all above 0")
        return schedule

    @field_validator("method")
    @classmethod
    def _check_method(cls, method: str | None) -> str | None:
        try:
            return method if method is None else str(parse_method(method))
        except SettingsError as error:
            raise ValueError(str(error)) from error

    @field_validator("time_travel")
    @classmethod
    def _check_travel(cls, travel: tuple[int, int] | None) -> tuple[int, int] | None:
        if travel is not None and min(travel) < 1:
            raise ValueError("a length and a number of times of at least 1")
        return travel


def make_settings(**values: object) -> Settings:
    """Validate settings, and turn pydantic's report into one line.

    >>> make_settings(steps=0)
    Traceback (most recent call last):
    sfumato.errors.SettingsError: steps = 0; expected input greater than or equal to 1
    """
    from pydantic import ValidationError

    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(p) for p in first["loc"])
        message = first["msg"].removeprefix("Value error, ").replace("Input should be", "input")
        raise SettingsError(f"{name} = {first['input']!r}", expected=message) from None
