"""Train a prior, a denoiser of photographs for any noise level."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import final

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from typing_extensions import override

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.errors import SettingsError
from sfumato.io.checkpoints import save_checkpoint
from sfumato.nn import UNet, seeded_unet, widened, with_linear_path
from sfumato.training._draws import Draws
from sfumato.training.events import Event
from sfumato.training.iterates import Iterates
from sfumato.training.lesson import Lesson
from sfumato.training.loop import Schedule, train
from sfumato.training.loss import draw_noise, draw_sigma, edm_loss
from sfumato.training.run import in_bfloat16
from sfumato.training.settings import PriorSettings
from sfumato.training.sheets import crops_for_sheet, lay_out
from sfumato.training.source import Source, open_source
from sfumato.training.validation import denoising_psnr, load_holdout
from sfumato.zoo.config import PriorConfig
from sfumato.zoo.prior import load_denoiser

#: The prior that a run ends with, in its folder.
RESULT = "prior.safetensors"

#: Noise on the pictures of a sheet.
_SHOWN_SIGMA = 0.5

_FORM = ("channels", "blocks", "unshuffle", "embedding", "linear", "sigma_data")


def train_prior(
    settings: PriorSettings,
    data: str | Path,
    out: str | Path,
    *,
    holdout: str | Path | None = None,
    schedule: Schedule | None = None,
) -> Iterator[Event]:
    """Train on the photographs in ``data``, resuming what ``out`` holds; yield events.

    ``data`` and ``holdout`` are each a folder, a Hugging Face dataset (``hf:NAME:SPLIT``, or its
    folder or files), or shards (``photos-{00..12}.tar``, or a folder of them).
    The averaged weights are validated on the photographs in ``holdout``, and at the end exported
    as ``out/prior.safetensors``, which ``load_prior`` takes; a run that was finished yields
    ``Finished`` at once.

    Raises SettingsError where the photographs are too few or too small, or ``out`` holds a run
    with other settings or photographs; ModelError where the loss is no longer finite, or ``out``
    or ``settings.init`` hold something else.

    >>> for event in train_prior(PriorSettings(), "photos", "runs/prior"):  # doctest: +SKIP
    ...     print(event)
    """

    def lesson(device: str) -> PriorLesson:
        return PriorLesson(settings, data, holdout, device)

    return train(settings, lesson, Path(out), RESULT, schedule or Schedule())


@final
class PriorLesson(Lesson):
    """Denoising of random crops and, in a share of the steps, of iterates of rounds."""

    kind = "prior"

    def __init__(
        self, settings: PriorSettings, data: Path | str, holdout: Path | str | None, device: str
    ) -> None:
        self._settings = settings
        self._device = torch.device(device)
        self.source: Source = open_source(data, settings, self._device)
        self._pictures = load_holdout(holdout, prepare=settings.prepare) if holdout else []
        self._iterates = Iterates(settings, self.source)
        self.n_holdout = len(self._pictures)

    @override
    def model(self) -> EDMDenoiser:
        s, precision = self._settings, self._settings.precision_on(self._device)
        if s.init is None:
            return EDMDenoiser(seeded_unet(s.network, s.seed), s.sigma_data, precision)
        model, config = load_denoiser(s.init, precision=precision)
        assert isinstance(model.net, UNet), "priors have it"
        net = with_linear_path(model.net, s.linear, s.seed)
        form = {name: getattr(s, name) for name in _FORM if name != "linear"}
        differ = [name for name, value in form.items() if getattr(config, name) != value]
        if differ == ["channels"]:
            net, differ = widened(net, s.channels, s.seed), []
        if differ:
            raise SettingsError(
                f"{s.init} has another network: "
                + ", ".join(f"{name} {getattr(config, name)}" for name in differ),
                expected=", ".join(f"{name} {form[name]}" for name in differ),
            )
        return EDMDenoiser(net, s.sigma_data, precision)

    @override
    def begin(self, step: int) -> int:
        if self._iterates.theirs(step):
            return self._iterates.begin(step)
        return self._settings.crop(step)[1]

    @override
    def loss(self, model: nn.Module, step: int, first: int, count: int) -> Tensor:
        if self._iterates.theirs(step):
            return self._iterates.loss(model, first, count)
        draws = Draws(self._settings.seed, step, first, count, self._device)
        x_0 = self.source.crops(draws, self._settings.crop(step)[0])
        sigma, eps = draw_sigma(self._settings, draws), draw_noise(draws, x_0)
        return edm_loss(model, x_0, sigma, eps, self._settings.sigma_data)

    @override
    def end(self, step: int, add: Callable[[Tensor], Tensor]) -> None:
        if self._iterates.theirs(step):
            self._iterates.advance(add)

    @override
    def state(self) -> dict[str, Tensor]:
        return self._iterates.state()

    @override
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self._iterates.restore(dict(tensors))

    @override
    def figures(self, average: nn.Module) -> dict[str, float]:
        if not self._pictures:
            return {}
        psnr = denoising_psnr(average, self._pictures, device=self._device)
        return {f"dB at noise {sigma:g}": value for sigma, value in psnr.items()}

    @override
    def sheet(self, average: nn.Module) -> Tensor | None:
        """Show held-out photographs: with noise, without it again, and as they are."""
        if not self._pictures:
            return None
        x_0 = crops_for_sheet(self._pictures).to(self._device)
        g = torch.Generator().manual_seed(1)
        x_t = x_0 + _SHOWN_SIGMA * torch.randn(x_0.shape, generator=g).to(self._device)
        with torch.no_grad():
            return lay_out([x_t, average(x_t, _SHOWN_SIGMA), x_0])

    @override
    def export(self, average: nn.Module, path: Path, record: dict[str, JsonValue]) -> None:
        s = self._settings
        assert isinstance(average, EDMDenoiser), "it is a copy of the one that model() made"
        form = {name: getattr(s, name) for name in _FORM}
        if isinstance(average.net, UNet):
            form["linear"] = average.net.config.linear
        config = PriorConfig(
            **form,
            sigma_max=s.sigma_max,
            tile=math.lcm(512, s.network.stride),
            training=record,
        )
        save_checkpoint(path, in_bfloat16(average), config.model_dump(mode="json"))
