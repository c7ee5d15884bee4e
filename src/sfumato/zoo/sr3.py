"""SR3 models: checkpoints of super-resolution by iterative refinement, as denoisers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictInt
from torch import Tensor, nn

from sfumato.diffusion.arithmetic import Precision
from sfumato.diffusion.schedule import karras, linear_alpha_bar, linear_sigmas
from sfumato.diffusion.sr3 import SR3Denoiser
from sfumato.io.checkpoints import check_size, load_state
from sfumato.nn import (
    SR3,
    RefinementConfig,
    RefinementNet,
    UNet,
    UNetConfig,
    seeded_sr3,
    seeded_unet,
)
from sfumato.nn import SR3Config as NetworkConfig
from sfumato.nn.memory import given_memory

_COLOURS = 3

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class UNetForm(BaseModel):
    """The residual U-Net behind pixel-unshuffle, with the condition beside the image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["unet"] = "unet"
    channels: tuple[StrictInt, ...] = (32, 64, 128, 192)
    blocks: StrictInt = 2
    unshuffle: StrictInt = 2
    embedding: StrictInt = 256
    linear: StrictInt = 0

    @property
    def config(self) -> UNetConfig:
        """The network's form; SettingsError where there is none such."""
        return UNetConfig(
            self.channels,
            self.blocks,
            self.unshuffle,
            self.embedding,
            2 * _COLOURS,
            self.linear,
        )

    def build(self) -> nn.Module:
        """Return a network, for weights to be loaded into."""
        return UNet(self.config)

    def seeded(self, seed: int, *, checkpointing: bool) -> nn.Module:
        """Return a network to be trained, whose weights are a function of ``seed``."""
        assert not checkpointing, "it has none"
        return seeded_unet(self.config, seed)


class PaperForm(BaseModel):
    """The paper's U-Net; see ``sfumato.nn.SR3Config``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["sr3"] = "sr3"
    channels: tuple[StrictInt, ...]
    blocks: StrictInt = 3
    attention: tuple[StrictInt, ...] = ()
    embedding: StrictInt = 512
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    entrance: Literal["concatenation", "film"] = "concatenation"
    head_width: StrictInt = 64

    @property
    def config(self) -> NetworkConfig:
        """The network's form; SettingsError where there is none such."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name != "form"}
        return NetworkConfig(**fields, channels_in=2 * _COLOURS)

    def build(self) -> nn.Module:
        """Return a network, for weights to be loaded into."""
        return SR3(self.config)

    def seeded(self, seed: int, *, checkpointing: bool) -> nn.Module:
        """Return a network to be trained, whose weights are a function of ``seed``."""
        return seeded_sr3(self.config, seed, checkpointing=checkpointing)


class PublicForm(BaseModel):
    """The network of the best-known public implementation; see ``sfumato.nn.RefinementConfig``.

    Its 16 -> 128 configuration is the default. For training on and with its converted weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["public"] = "public"
    width: StrictInt = 64
    multipliers: tuple[StrictInt, ...] = (1, 2, 4, 8, 8)
    blocks: StrictInt = 2
    attention: tuple[StrictInt, ...] = (16,)
    groups: StrictInt = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    image_size: StrictInt = 128

    @property
    def config(self) -> RefinementConfig:
        """The network's form; SettingsError where there is none such."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name != "form"}
        return RefinementConfig(**fields)

    def build(self) -> nn.Module:
        """Return a network, for weights to be loaded into."""
        return RefinementNet(self.config)

    def seeded(self, seed: int, *, checkpointing: bool) -> nn.Module:
        """Return a network to be trained, whose weights are a function of ``seed``."""
        assert not checkpointing, "it has none"
        with torch.device("meta"):
            net = RefinementNet(self.config)
        net = given_memory(net)
        net.reset(torch.Generator().manual_seed(seed))
        return net


#: The networks that an SR3 model may have.
Network: TypeAlias = Annotated[UNetForm | PaperForm | PublicForm, Field(discriminator="form")]


class SR3Config(BaseModel):
    """What the header of an SR3 model's checkpoint says.

    ``scale`` and ``kernel`` name the task; ``regression`` whether the network also answers
    without an image, and ``samples`` whether with one; ``pooled`` whether it was shown means of
    pixels too, as blocks. ``sigmas`` are the decreasing noise levels
    of the schedule found for it (all but the last, which is 0), ``eta`` the share of fresh noise
    that goes with them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sr3"] = "sr3"
    network: Network
    prediction: Literal["eps", "v", "x_0", "edm"]
    sigma_data: _Positive
    scale: Annotated[StrictInt, Field(ge=1, le=64)]
    kernel: Literal["bicubic", "average_pool"] = "bicubic"
    regression: bool = False
    samples: bool = True
    pooled: bool = False
    sigma_max: _Positive = 80.0
    tile: Annotated[StrictInt, Field(ge=1, le=1 << 16)] = 512
    sigmas: tuple[_Positive, ...] | None = None
    eta: Annotated[float, Field(ge=0, le=1)] | None = None
    training: dict[str, JsonValue] = Field(default_factory=dict)


def default_sigmas(prediction: str) -> tuple[float, ...]:
    """Return noise levels for a model that no schedule was searched for.

    A model of what the input lacks begins with little noise; others with the paper's: 100 steps
    of a linear ramp that ends at the γ that training ended at.
    """
    if prediction == "edm":
        return tuple(karras(16, 1.0, 0.01)[:-1])
    gamma_T = float(linear_alpha_bar(2000, 1e-6, 1e-2)[-1])
    return tuple(linear_sigmas(100, gamma_T)[:-1])


def build_sr3(
    config: SR3Config, tensors: dict[str, Tensor], path: Path, precision: Precision
) -> SR3Denoiser:
    """Return the denoiser that a checkpoint describes, on the CPU."""
    with torch.device("meta"):
        denoiser = SR3Denoiser(
            config.network.build(),
            config.prediction,
            stride=config.network.config.stride,
            sigma_data=config.sigma_data,
            precision=precision,
        )
    check_size(denoiser, tensors, path)
    denoiser = given_memory(denoiser)
    load_state(denoiser, tensors)
    return denoiser
