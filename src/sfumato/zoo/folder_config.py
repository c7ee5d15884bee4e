"""What the JSON files of a diffusers folder say, and the ``sfumato.json`` that may lie beside.

Read without diffusers: configurations are data, and the values that they leave out are those of
its classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from sfumato.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Side = Annotated[StrictInt, Field(ge=1, le=1 << 14)]

#: Schedulers of a variance-preserving schedule: of the same training, they differ in sampling.
_DISCRETE = (
    "DDPM", "DDIM", "DDPMParallel", "DDIMParallel", "DDIMInverse", "PNDM", "LMSDiscrete",
    "DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep", "SASolver",
    "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete",
    "KDPM2AncestralDiscrete", "RePaint",
)  # fmt: skip
_EDM = ("EDMEuler", "EDMDPMSolverMultistep")
#: Of these the estimate is clipped unless they say otherwise.
_CLIPPING = ("DDPM", "DDIM", "DDPMParallel", "DDIMParallel", "DDIMInverse", "RePaint")


class Beside(BaseModel):
    """What ``sfumato.json`` says of a network: each where the other files do not, or are wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preconditioning: Literal["vp", "edm"] | None = None
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = None
    sigma_data: _Positive | None = None
    sigma_max: _Positive | None = None
    clip: bool | None = None
    fixed_size: bool | None = None
    tile: _Side | None = None
    classes: tuple[str, ...] | None = None
    no_class: Annotated[StrictInt, Field(ge=0)] | None = None
    licence: str = ""
    summary: str = ""


class Scheduler(BaseModel):
    """The part of a ``scheduler_config.json`` that tells how the network was trained."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field("DDPMScheduler", alias="_class_name")
    num_train_timesteps: Annotated[StrictInt, Field(ge=2, le=1_000_000)] = 1000
    beta_start: _Positive = 1e-4
    beta_end: _Positive = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    #: As schedulers said it before there was a ``prediction_type``.
    predict_epsilon: bool = True
    clip_sample: bool | None = None
    clip_sample_range: _Positive = 1.0
    sigma_data: _Positive = 0.5
    sigma_max: _Positive = 80.0

    @property
    def kind(self) -> str:
        """The name without its last word."""
        return self.name.removesuffix("Scheduler")

    @property
    def is_edm(self) -> bool:
        """Whether the network is one behind EDM's preconditioning."""
        return self.kind in _EDM

    @property
    def is_known(self) -> bool:
        """Whether this is a scheduler that says what the network predicts."""
        return self.is_edm or self.kind in _DISCRETE

    @property
    def clip(self) -> float | None:
        """The bound that sampling puts on the estimates."""
        clips = self.kind in _CLIPPING if self.clip_sample is None else self.clip_sample
        return self.clip_sample_range if clips and not self.is_edm else None

    def alpha_bar(self, path: Path) -> Tensor:
        """Return ``ᾱ_t`` of the training, as float64; ModelError where there is no such."""
        a = self._unscaled(path)
        if not self.rescale_betas_zero_snr:
            return a
        # Shifted and scaled, so that the last time is pure noise (arXiv 2305.08891, algorithm 1).
        root = a.sqrt()
        return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2

    def _unscaled(self, path: Path) -> Tensor:
        import torch

        from sfumato.diffusion import cosine_alpha_bar, linear_alpha_bar

        n, first, last = self.num_train_timesteps, self.beta_start, self.beta_end
        if self.trained_betas is not None:
            return _products(torch.tensor(self.trained_betas, dtype=torch.float64), path)
        if self.beta_schedule == "linear":
            return linear_alpha_bar(n, first, last)
        if self.beta_schedule == "scaled_linear":
            roots = torch.linspace(first**0.5, last**0.5, n, dtype=torch.float64)
            return _products(roots**2, path)
        if self.beta_schedule == "squaredcos_cap_v2":
            return cosine_alpha_bar(n)
        if self.beta_schedule == "sigmoid":
            s = torch.linspace(-6, 6, n, dtype=torch.float64).sigmoid()
            return _products(s * (last - first) + first, path)
        raise ModelError(
            f"{path} names the schedule {self.beta_schedule!r}",
            expected="linear, scaled_linear, squaredcos_cap_v2, sigmoid or trained_betas",
        )


def _products(betas: Tensor, path: Path) -> Tensor:
    import torch

    if len(betas) < 2 or not ((betas > 0) & (betas < 1)).all():
        raise ModelError(f"{path} holds betas that are none", expected="numbers between 0 and 1")
    return torch.cumprod(1 - betas, 0)


Config = TypeVar("Config", bound=BaseModel)


def read_config(path: Path, wanted: type[Config]) -> Config:
    """Read a JSON file as ``wanted``; ModelError says what is wrong with it."""
    return parse(read_json(path), path, wanted)


def parse(said: Mapping[str, object], path: Path, wanted: type[Config]) -> Config:
    """Check what a file says; ModelError names the first thing that is wrong."""
    try:
        return wanted.model_validate(dict(said))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path}: {where} = {first['input']!r}; {first['msg']}") from error


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object; ModelError where there is none."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: {error}") from error
    if not isinstance(said, dict):
        raise ModelError(f"{path} holds a {type(said).__name__}", expected="a JSON object")
    return said
