"""Generators: models of small images, of a class or of none, with the paper's network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictInt
from torch import Tensor

from sfumato.diffusion.arithmetic import Precision
from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.io.checkpoints import check_size, load_state
from sfumato.nn import SR3
from sfumato.nn import SR3Config as NetworkConfig
from sfumato.nn.memory import given_memory

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class GeneratorConfig(BaseModel):
    """What the header of a generator's checkpoint says.

    Its network is ``sfumato.nn.SR3`` without a condition; ``size`` is the side of the images it
    was trained on, in pixels, and ``classes`` their names, if it knows any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["generator"] = "generator"
    channels: tuple[StrictInt, ...]
    blocks: StrictInt = 3
    attention: tuple[StrictInt, ...] = ()
    embedding: StrictInt = 512
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    head_width: StrictInt = 64
    classes: tuple[str, ...] = ()
    size: Annotated[StrictInt, Field(ge=1, le=1 << 14)] = 64
    sigma_data: _Positive = 0.5
    sigma_max: _Positive = 80.0
    training: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def network(self) -> NetworkConfig:
        """The form of the network; SettingsError where there is none such."""
        return NetworkConfig(
            channels=self.channels,
            blocks=self.blocks,
            channels_in=3,
            attention=self.attention,
            embedding=self.embedding,
            dropout=self.dropout,
            n_classes=len(self.classes) or None,
            head_width=self.head_width,
        )

    @property
    def tile(self) -> int:
        """The side of a tile: that of its images, in whole strides."""
        return -(-self.size // self.network.stride) * self.network.stride


def build_generator(
    config: GeneratorConfig, tensors: dict[str, Tensor], path: Path, precision: Precision
) -> EDMDenoiser:
    """Return the denoiser that a checkpoint describes, on the CPU."""
    with torch.device("meta"):
        denoiser = EDMDenoiser(SR3(config.network), config.sigma_data, precision)
    check_size(denoiser, tensors, path)
    denoiser = given_memory(denoiser)
    load_state(denoiser, tensors)
    return denoiser
