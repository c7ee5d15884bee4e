"""Train a generator: a small unconditional or class-conditional model, the start of a cascade."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, final

import torch
from pydantic import Field, JsonValue, StrictInt, model_validator
from torch import Tensor, nn
from typing_extensions import override

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.errors import SettingsError
from sfumato.io.checkpoints import load_checkpoint, save_checkpoint
from sfumato.nn import PRESETS, SR3, seeded_sr3
from sfumato.training._draws import Draws, Purpose
from sfumato.training.events import Event
from sfumato.training.lesson import Lesson
from sfumato.training.loop import Schedule, train
from sfumato.training.loss import draw_noise, edm_loss
from sfumato.training.run import in_bfloat16
from sfumato.training.settings import Count, Positive, RunSettings, Share
from sfumato.training.source import Source, open_source
from sfumato.training.validation import denoising_psnr, load_holdout
from sfumato.zoo.config import parse_config
from sfumato.zoo.generator import GeneratorConfig, build_generator

#: The model that a run ends with, in its folder.
RESULT = "generator.safetensors"

_LARGE = PRESETS["generator-64"]


@final
class GeneratorSettings(RunSettings):
    """Everything that decides the weights of a generator, but for photographs and machine.

    Images are whole pictures, prepared as the paper's (``prepare``, 64 pixels a side by default).
    The network is the paper's without a condition. With ``classes``, an image's class is its
    folder, the data set's label or the shard's *.cls*; a share ``drop_label`` of the examples goes
    without, for guidance (arXiv 2207.12598). ``ln σ`` is normal.

    Raises SettingsError where made by ``of``, and pydantic's ValidationError otherwise.
    """

    prepare: Annotated[StrictInt, Field(ge=4, le=4096)] | None = 64
    channels: tuple[StrictInt, ...] = _LARGE.channels
    blocks: StrictInt = _LARGE.blocks
    attention: tuple[StrictInt, ...] = _LARGE.attention
    embedding: StrictInt = _LARGE.embedding
    dropout: Annotated[float, Field(ge=0, lt=1)] = _LARGE.dropout
    head_width: StrictInt = _LARGE.head_width
    checkpointing: bool = False
    classes: bool = False
    drop_label: Share = 0.1

    batch_pixels: Count = 256 * 64 * 64
    learning_rate: Positive = 2e-4
    warmup_steps: Count = 2000
    sigma_data: Positive = 0.5
    log_sigma_mean: Annotated[float, Field(allow_inf_nan=False)] = -1.2
    log_sigma_std: Positive = 1.2

    @model_validator(mode="before")
    @classmethod
    def _size(cls, values: object) -> object:
        return {"prepare": 64} | dict(values) if isinstance(values, Mapping) else values

    def config(self, classes: tuple[str, ...]) -> GeneratorConfig:
        """Return the model's form for these classes."""
        return GeneratorConfig(
            channels=self.channels,
            blocks=self.blocks,
            attention=self.attention,
            embedding=self.embedding,
            dropout=self.dropout,
            head_width=self.head_width,
            classes=classes,
            size=self.prepare or max(self.crop_cycle),
            sigma_data=self.sigma_data,
        )

    def check(self) -> None:
        """Raise SettingsError where there is no such network."""
        _ = self.config(()).network


def train_generator(
    settings: GeneratorSettings,
    data: str | Path,
    out: str | Path,
    *,
    holdout: str | Path | None = None,
    schedule: Schedule | None = None,
) -> Iterator[Event]:
    """Train on the photographs in ``data``, resuming what ``out`` holds; yield events.

    As ``train_prior``, but for the model: ``out/generator.safetensors``.

    >>> for event in train_generator(GeneratorSettings(), "photos", "run"):  # doctest: +SKIP
    ...     print(event)
    """

    def lesson(device: str) -> GeneratorLesson:
        return GeneratorLesson(settings, data, holdout, device)

    return train(settings, lesson, Path(out), RESULT, schedule or Schedule())


@final
class GeneratorLesson(Lesson):
    """Denoising of whole small images, of a class or of none."""

    kind = "generator"

    def __init__(
        self,
        settings: GeneratorSettings,
        data: str | Path,
        holdout: str | Path | None,
        device: str,
    ) -> None:
        self._settings = settings
        self._device = torch.device(device)
        self.source: Source = open_source(data, settings, self._device)
        if settings.classes and not self.source.classes:
            raise SettingsError(
                f"classes of {data}, which has none",
                expected="a folder of pictures for each class, or labels",
            )
        self._pictures = load_holdout(holdout, prepare=settings.prepare) if holdout else []
        self.n_holdout = len(self._pictures)
        self._config = settings.config(self.source.classes if settings.classes else ())

    @override
    def model(self) -> EDMDenoiser:
        s, precision = self._settings, self._settings.precision_on(self._device)
        if s.init is None:
            net = seeded_sr3(self._config.network, s.seed, checkpointing=s.checkpointing)
            return EDMDenoiser(net, s.sigma_data, precision)
        tensors, header = load_checkpoint(s.init)
        found = parse_config(header, Path(s.init), GeneratorConfig)
        if found.network != self._config.network:
            raise SettingsError(
                f"{s.init} has the network {found.network}", expected=f"{self._config.network}"
            )
        model = build_generator(found, tensors, Path(s.init), precision)
        assert isinstance(model.net, SR3), "generators have it"
        model.net.checkpointing = s.checkpointing
        return model

    @override
    def begin(self, step: int) -> int:
        return self._settings.crop(step)[1]

    @override
    def loss(self, model: nn.Module, step: int, first: int, count: int) -> Tensor:
        s = self._settings
        draws = Draws(s.seed, step, first, count, self._device)
        x_0 = self.source.crops(draws, s.crop(step)[0])
        z = draws.normal(Purpose.SIGMA, 1)[:, 0]
        sigma = (s.log_sigma_mean + s.log_sigma_std * z).exp()
        label = self.labels(draws)
        return edm_loss(
            lambda x_t, level: model(x_t, level, label),
            x_0,
            sigma,
            draw_noise(draws, x_0),
            s.sigma_data,
        )

    def labels(self, draws: Draws) -> Tensor | None:
        """Return the classes of a step's examples, some of them dropped: (n,); None without."""
        n, labels = len(self._config.classes), self.source.labels
        if not n or labels is None:
            return None
        label = labels.to(self._device)[self.source.picture_of(draws)]
        dropped = draws.uniform(Purpose.DROP, 1)[:, 0] < self._settings.drop_label
        return torch.where(dropped | (label < 0), n, label)

    @override
    def figures(self, average: nn.Module) -> dict[str, float]:
        if not self._pictures:
            return {}
        psnr = denoising_psnr(average, self._pictures, device=self._device)
        return {f"dB at noise {sigma:g}": value for sigma, value in psnr.items()}

    @override
    def export(self, average: nn.Module, path: Path, record: dict[str, JsonValue]) -> None:
        config = self._config.model_copy(update={"training": record})
        save_checkpoint(path, in_bfloat16(average), config.model_dump(mode="json"))
