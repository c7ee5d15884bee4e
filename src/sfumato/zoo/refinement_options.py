"""What a model of the best-known public implementation of SR3 is: form and noise schedules.

Theirs are said in JSON with ``//`` comments; ``read_options`` turns that into a checked value,
which also goes, as JSON, into the header of a converted checkpoint.

Reference: github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement (Apache-2.0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)
from torch import Tensor

from sfumato.diffusion import cosine_alpha_bar
from sfumato.errors import ModelError
from sfumato.nn.refinement import RefinementConfig

_Beta = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)]
_Kind: TypeAlias = Literal["linear", "quad", "warmup10", "warmup50", "const", "jsd", "cosine"]

#: A string, which is kept, or a comment, which is dropped.
_STRING_OR_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*')


class BetaSchedule(BaseModel):
    """A schedule of noise: its kind, its number of steps ``T``, and the ``β`` of its ends.

    - ``linear``: ``β`` from ``first`` to ``last``; ``quad``: so ``√β``
    - ``warmup10``, ``warmup50``: linear over the first 10 or 50 %, then ``last``
    - ``const``: always ``last``
    - ``jsd``: ``1/T, 1/(T−1), …, 1``
    - ``cosine``: as in arXiv 2102.09672; the ends do not matter
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: _Kind
    n_steps: Annotated[StrictInt, Field(ge=1, le=1_000_000)]
    first: _Beta
    last: _Beta

    def gammas(self) -> Tensor:
        """``γ_t = Π (1 − β_i)`` for ``t`` from 1 to ``T``, as float64.

        >>> BetaSchedule(kind="jsd", n_steps=4, first=1e-4, last=2e-2).gammas()
        tensor([0.7500, 0.5000, 0.2500, 0.0000], dtype=torch.float64)
        """
        if self.kind == "cosine":
            return cosine_alpha_bar(self.n_steps)
        return torch.cumprod(1 - self._betas(), 0)

    def _betas(self) -> Tensor:
        n, first, last = self.n_steps, self.first, self.last
        if self.kind == "linear":
            return _ramp(first, last, n)
        if self.kind == "quad":
            return _ramp(first**0.5, last**0.5, n) ** 2
        if self.kind == "jsd":
            return 1 / _ramp(n, 1, n)
        share = {"warmup10": 0.1, "warmup50": 0.5, "const": 0.0}[self.kind]
        rising = _ramp(first, last, int(n * share))
        return torch.cat([rising, rising.new_full((n - len(rising),), last)])


def _ramp(first: float, last: float, n: int) -> Tensor:
    return torch.linspace(first, last, n, dtype=torch.float64)


class RefinementOptions(BaseModel):
    """The form of a network of theirs (see ``RefinementConfig``) and its two schedules.

    ``train`` is the schedule it was trained with, ``inference`` the one to sample with, ``scale``
    how many times larger it makes pictures, where that is said.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["refinement"] = "refinement"
    width: StrictInt
    multipliers: tuple[StrictInt, ...]
    blocks: StrictInt
    attention: tuple[StrictInt, ...]
    groups: StrictInt
    dropout: Annotated[float, Field(strict=True)]
    image_size: StrictInt
    channels_in: StrictInt
    channels_out: StrictInt
    scale: Annotated[StrictInt, Field(ge=1, le=64)] | None = None
    train: BetaSchedule
    inference: BetaSchedule

    @property
    def network(self) -> RefinementConfig:
        """The form of the network."""
        return RefinementConfig(
            width=self.width,
            multipliers=self.multipliers,
            blocks=self.blocks,
            attention=self.attention,
            groups=self.groups,
            dropout=self.dropout,
            image_size=self.image_size,
            channels_in=self.channels_in,
            channels_out=self.channels_out,
        )

    @model_validator(mode="after")
    def _check(self) -> RefinementOptions:
        _ = self.network
        return self


class _Unet(BaseModel):
    in_channel: StrictInt
    out_channel: StrictInt | None
    inner_channel: StrictInt
    channel_multiplier: tuple[StrictInt, ...]
    attn_res: tuple[StrictInt, ...]
    res_blocks: StrictInt
    dropout: Annotated[float, Field(strict=True)]
    norm_groups: StrictInt | None = None


class _Schedule(BaseModel):
    schedule: _Kind
    n_timestep: StrictInt
    linear_start: _Beta
    linear_end: _Beta

    def ours(self) -> BetaSchedule:
        return BetaSchedule(
            kind=self.schedule,
            n_steps=self.n_timestep,
            first=self.linear_start,
            last=self.linear_end,
        )


class _Schedules(BaseModel):
    train: _Schedule
    val: _Schedule | None = None


class _Diffusion(BaseModel):
    image_size: StrictInt
    conditional: StrictBool


class _Model(BaseModel):
    which: Annotated[Literal["sr3"], Field(alias="which_model_G")]
    unet: _Unet
    beta_schedule: _Schedules
    diffusion: _Diffusion


class _Data(BaseModel):
    l_resolution: StrictInt | None = None
    r_resolution: StrictInt | None = None


class _Datasets(BaseModel):
    train: _Data | None = None


class _File(BaseModel):
    """As much of their JSON as matters; all else in it is let be."""

    model: _Model
    datasets: _Datasets | None = None

    @property
    def scale(self) -> int | None:
        """The ratio of the sides that it was trained with."""
        data = self.datasets.train if self.datasets else None
        if data is None or not data.l_resolution or not data.r_resolution:
            return None
        return data.r_resolution // data.l_resolution


def read_options(json_text: str) -> RefinementOptions:
    """Read their JSON, ``//`` comments and all.

    Where it has no schedule for ``val``, that of ``train`` serves for both; where it has no
    ``norm_groups`` there are 32.

    Raises ModelError where it is no JSON, where something is missing or impossible, and where it
    describes their other network (``"which_model_G": "ddpm"``).
    """
    try:
        found = json.loads(strip_comments(json_text))
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"options that are no JSON: {error}",
            expected="the .json that the model was trained by",
        ) from error
    try:
        file = _File.model_validate(found)
        return _options(file.model, file.scale)
    except ValidationError as error:
        raise ModelError(f"options that do not fit: {_plain(error)}") from error


def parse_options(config: Mapping[str, object], path: Path) -> RefinementOptions:
    """Check the ``config`` that a converted checkpoint at ``path`` has in its header.

    Raises ModelError.
    """
    kind = config.get("kind")
    if kind != "refinement":
        raise ModelError(f"{path} holds a model of kind {kind!r}", expected="a refinement")
    try:
        return RefinementOptions.model_validate(dict(config))
    except ValidationError as error:
        raise ModelError(f"{path} describes an impossible model: {_plain(error)}") from error


def strip_comments(text: str) -> str:
    """Drop ``//`` comments, but nothing inside of strings.

    >>> strip_comments('{"at": "http://x" // where')
    '{"at": "http://x" '
    """
    return _STRING_OR_COMMENT.sub(lambda match: match[1] or "", text)


def _options(model: _Model, scale: int | None) -> RefinementOptions:
    unet, schedules = model.unet, model.beta_schedule
    channels_out = unet.in_channel if unet.out_channel is None else unet.out_channel
    if model.diffusion.conditional != (unet.in_channel > channels_out):
        raise ModelError(
            f"a model of {unet.in_channel} channels in and {channels_out} out, with conditional "
            f"{str(model.diffusion.conditional).lower()}",
            expected="more in than out with a condition, as many without",
        )
    return RefinementOptions(
        width=unet.inner_channel,
        multipliers=unet.channel_multiplier,
        blocks=unet.res_blocks,
        attention=unet.attn_res,
        groups=32 if unet.norm_groups is None else unet.norm_groups,
        dropout=unet.dropout,
        image_size=model.diffusion.image_size,
        channels_in=unet.in_channel,
        channels_out=channels_out,
        scale=scale,
        train=schedules.train.ours(),
        inference=(schedules.val or schedules.train).ours(),
    )


def _plain(error: ValidationError) -> str:
    """Say where the first fault is, and which."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
