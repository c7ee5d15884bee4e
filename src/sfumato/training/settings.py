"""Settings of training runs, and the recipes that hold them."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeVar, final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sfumato.errors import SettingsError
from sfumato.nn import UNetConfig

if TYPE_CHECKING:
    import torch

    from sfumato.diffusion.arithmetic import Precision

Count = Annotated[StrictInt, Field(ge=1, lt=1 << 31)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class RunSettings(BaseModel):
    """What every training run is told, whatever it trains.

    Weights start from the checkpoint ``init``, or as a function of ``seed``.

    Examples: step ``k`` takes crops of side ``crop_cycle[k % len(crop_cycle)]``, as many as fill
    ``batch_pixels``, in ``accumulate`` parts, from photographs and ``halvings`` smaller copies.
    ``orientations`` is "all" eight, "flip" (left and right) or "none". With ``prepare``, the
    paper's preparation comes first: smaller pictures are dropped, the largest square in the
    middle is resized by area to ``prepare`` pixels a side; then the defaults are whole pictures
    (``crop_cycle`` = [prepare]), no smaller copies, and "flip".

    Optimiser: AdamW; the learning rate rises over ``warmup_steps`` to ``learning_rate`` and falls
    to 0 at ``steps`` as a cosine, or stays (``decay`` "none", as in SR3). The average of the
    weights moves by ``max(ema_rate, 1 / (k / 5 + 1))`` of the way at step ``k``, which is quick at
    first. ``precision`` is that of the network; "auto" takes bf16 where the device computes in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    init: str | None = None
    steps: Count = 45_000
    seed: Annotated[StrictInt, Field(ge=0, lt=1 << 64)] = 0
    crop_cycle: Annotated[tuple[Count, ...], Field(min_length=1)] = (128, 128, 64, 64, 64)
    batch_pixels: Count = 16 * 64 * 64
    accumulate: Count = 1
    halvings: Annotated[StrictInt, Field(ge=0, le=4)] = 2
    prepare: Annotated[StrictInt, Field(ge=1, le=4096)] | None = None
    orientations: Literal["all", "flip", "none"] = "all"

    learning_rate: Positive = 6e-4
    warmup_steps: Count = 300
    decay: Literal["cosine", "none"] = "cosine"
    betas: tuple[Share, Share] = (0.9, 0.99)
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    clip_norm: Positive = 1.0
    ema_rate: Annotated[float, Field(gt=0, le=1)] = 0.0005
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _prepared(cls, values: object) -> object:
        """Put in the defaults that go with ``prepare``."""
        if not isinstance(values, Mapping) or not isinstance(values.get("prepare"), int):
            return values
        whole = {"crop_cycle": (values["prepare"],), "halvings": 0, "orientations": "flip"}
        return whole | dict(values)

    @field_validator("prepare")
    @classmethod
    def _large_enough(cls, value: int | None, info: ValidationInfo) -> int | None:
        largest = max(info.data.get("crop_cycle", (0,)))
        if value is not None and largest > value:
            raise ValueError(f"crops of {largest} pixels of pictures prepared to {value}")
        return value

    @field_validator("crop_cycle")
    @classmethod
    def _bounded(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if max(value) > 4096:
            raise ValueError("crops of more than 4096 pixels a side")
        return value

    @classmethod
    def of(cls, values: Mapping[str, object], *, where: str = "settings") -> Self:
        """Check ``values``; SettingsError names the first that is wrong, and the likely spelling.

        >>> PriorSettings.of({"step": 10})
        Traceback (most recent call last):
        sfumato.errors.SettingsError: settings: step is no setting; did you mean steps?
        """
        for name in values:
            if name not in cls.model_fields:
                near = difflib.get_close_matches(name, cls.model_fields, n=1)
                do = f"did you mean {near[0]}?" if near else f"see {cls.__name__}"
                raise SettingsError(f"{where}: {name} is no setting", do=do)
        try:
            settings = cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"])) or "settings"
            raise SettingsError(f"{where}: {name} = {first['input']!r}: {first['msg']}") from error
        settings.check()
        return settings

    def check(self) -> None:
        """Raise SettingsError where the settings contradict each other."""

    def precision_on(self, device: torch.device) -> Precision:
        """Return the precision of the network there: emulated, bf16 would be the slowest."""
        from sfumato.diffusion.arithmetic import best_precision

        return best_precision(device) if self.precision == "auto" else self.precision

    def rate(self, step: int) -> float:
        """Return the learning rate of step ``step``, counted from 0."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        if self.decay == "none":
            return self.learning_rate * warm
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def crop(self, step: int) -> tuple[int, int]:
        """Return the side of the crops of step ``step``, and how many there are."""
        side = self.crop_cycle[step % len(self.crop_cycle)]
        return side, max(1, self.batch_pixels // side**2)

    def examples_before(self, step: int) -> int:
        """Return how many crops all the steps before ``step`` have.

        >>> PriorSettings().examples_before(7)
        64
        """
        n = len(self.crop_cycle)
        cycles, rest = divmod(step, n)
        counts = [self.crop(k)[1] for k in range(n)]
        return cycles * sum(counts) + sum(counts[:rest])


def ascending(value: tuple[float, float]) -> tuple[float, float]:
    """Refuse a pair whose first number is not below the second."""
    if value[0] >= value[1]:
        raise ValueError(f"{value[0]} is not below {value[1]}")
    return value


@final
class PriorSettings(RunSettings):
    """Everything that decides the weights of a prior, but for the photographs and the machine.

    Network: ``channels``, ``blocks``, ``unshuffle``, ``embedding``, ``linear`` as in
    ``UNetConfig``; it may be wider than that of ``init`` (``sfumato.nn.widened``), or have a
    linear path beside it (``sfumato.nn.with_linear_path``).

    Noise: ``ln σ`` is normal with ``log_sigma_mean`` and ``log_sigma_std``, or, in a share of
    ``wide_share``, uniform between the logarithms of ``wide_sigma``.

    Rounds: a share ``rounds_share`` of the steps shows the network not noise but what it meets
    in rounds of denoise and project (``sfumato.training.iterates``), of a measurement by one of
    ``rounds_degradations``, in one of ``rounds_counts`` rounds, from a noise level within the
    first pair of ``rounds_sigma`` down to one within the second.

    Raises SettingsError where made by ``of``, and pydantic's ValidationError otherwise.

    >>> round(PriorSettings(steps=1000).rate(150), 6)
    0.000286
    """

    channels: tuple[StrictInt, ...] = (32, 64, 128, 192)
    blocks: StrictInt = 2
    unshuffle: StrictInt = 2
    embedding: StrictInt = 256
    linear: StrictInt = 0

    sigma_data: Positive = 0.5
    log_sigma_mean: Annotated[float, Field(allow_inf_nan=False)] = -1.5
    log_sigma_std: Positive = 1.5
    wide_share: Share = 0.12
    wide_sigma: tuple[Positive, Positive] = (0.005, 80.0)

    rounds_share: Share = 0.0
    rounds_degradations: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "average_pool:2",
        "average_pool:3",
        "average_pool:4",
        "average_pool:8",
        "bicubic:2",
        "bicubic:3",
        "bicubic:4",
        "bicubic:8",
        "grayscale",
    )
    rounds_counts: Annotated[tuple[Count, ...], Field(min_length=1)] = (4, 6, 10, 20)
    rounds_sigma: tuple[tuple[Positive, Positive], tuple[Positive, Positive]] = (
        (0.4, 1.0),
        (0.03, 0.09),
    )

    @field_validator("wide_sigma")
    @classmethod
    def _wide(cls, value: tuple[float, float]) -> tuple[float, float]:
        return ascending(value)

    @field_validator("rounds_sigma")
    @classmethod
    def _falling(
        cls, value: tuple[tuple[float, float], tuple[float, float]]
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        first, last = map(ascending, value)
        if last[1] >= first[0]:
            raise ValueError(f"rounds end at {last[1]}, not below {first[0]} where they begin")
        return value

    def check(self) -> None:
        """Raise SettingsError where there is no such network."""
        _ = self.network

    @property
    def network(self) -> UNetConfig:
        """The form of the network; SettingsError where there is none such."""
        return UNetConfig(
            self.channels, self.blocks, self.unshuffle, self.embedding, linear=self.linear
        )

    @property
    def sigma_max(self) -> float:
        """The largest noise level that training sees often enough to trust."""
        if self.wide_share > 0:
            return self.wide_sigma[1]
        return math.exp(self.log_sigma_mean + 3 * self.log_sigma_std)


AnySettings = TypeVar("AnySettings", bound=RunSettings)


def load_recipe(path: str | Path, kind: type[AnySettings]) -> list[AnySettings]:
    """Read the stages of a recipe: a TOML file with one ``[[stage]]`` after the other.

    What a stage does not say has its default in ``kind``; each later stage starts from the weights
    of the one before. Raises SettingsError for a file that cannot be read and for misspelt or
    impossible settings.
    """
    try:
        recipe = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the recipe {path} cannot be read: {error}") from error
    stages = recipe.pop("stage", None)
    if recipe or not isinstance(stages, list) or not stages:
        raise SettingsError(
            f"{path} holds {', '.join(recipe) or 'no stage'}",
            expected="tables called [[stage]] and nothing beside them",
        )
    if not all(isinstance(stage, dict) for stage in stages):
        raise SettingsError(f"{path}: a stage is no table", expected="[[stage]]")
    return [kind.of(stage, where=f"{path}, stage {n}") for n, stage in enumerate(stages, 1)]
