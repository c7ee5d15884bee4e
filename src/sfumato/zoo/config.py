"""What the header of a prior's checkpoint says, and how headers are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictInt,
    ValidationError,
    model_validator,
)

from sfumato.errors import ModelError, SettingsError
from sfumato.nn import UNetConfig

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]


class PriorConfig(BaseModel):
    """The form of a prior, and how to use it.

    ``sigma_max`` is the largest noise the network was trained for, on data in [-1, 1]; ``tile``
    the recommended side of a tile in pixels; ``training`` a record of how the weights came to be.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["prior"] = "prior"
    channels: tuple[StrictInt, ...]
    blocks: StrictInt
    unshuffle: StrictInt
    embedding: StrictInt
    linear: StrictInt = 0
    sigma_data: _Positive = 0.5
    sigma_max: _Positive = 80.0
    tile: Annotated[StrictInt, Field(ge=1, le=1 << 16)] = 512
    training: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def network(self) -> UNetConfig:
        """The form of the network."""
        return UNetConfig(
            self.channels, self.blocks, self.unshuffle, self.embedding, linear=self.linear
        )

    @model_validator(mode="after")
    def _check(self) -> PriorConfig:
        stride = self.network.stride
        if self.tile % stride:
            raise ValueError(f"tile {self.tile} is no multiple of the network's stride {stride}")
        return self


Config = TypeVar("Config", bound=BaseModel)

_KINDS = {"prior": "a prior", "sr3": "an SR3 model", "generator": "a generator"}


def parse_config(config: Mapping[str, object], path: Path, wanted: type[Config]) -> Config:
    """Check the ``config`` that was found in ``path``; ModelError says what is wrong with it."""
    kind, expected = config.get("kind"), _KINDS[wanted.model_fields["kind"].default]
    if kind != wanted.model_fields["kind"].default:
        raise ModelError(f"{path} holds a model of kind {kind!r}", expected=expected)
    try:
        return wanted.model_validate(dict(config))
    except (ValidationError, SettingsError) as error:
        raise ModelError(f"{path} describes an impossible model: {_plain(error)}") from error


def _plain(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
