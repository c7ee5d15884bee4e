"""Train SR3: super-resolution by iterative refinement, and its regression baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from typing_extensions import override

from sfumato.diffusion.arithmetic import Precision
from sfumato.diffusion.sr3 import SR3Denoiser
from sfumato.errors import ModelError, SettingsError
from sfumato.io.checkpoints import load_checkpoint, load_state, save_checkpoint
from sfumato.metrics import psnr
from sfumato.nn import SR3, UNet, with_linear_path
from sfumato.training._draws import Draws
from sfumato.training.events import Event
from sfumato.training.lesson import Lesson
from sfumato.training.loop import Schedule, train
from sfumato.training.run import in_bfloat16
from sfumato.training.sheets import crops_for_sheet, lay_out, quick_sample
from sfumato.training.source import Source, open_source
from sfumato.training.sr3_loss import blocks, make_condition, sr3_loss
from sfumato.training.sr3_settings import SR3Settings
from sfumato.training.validation import load_holdout
from sfumato.zoo.prior import load_denoiser, load_sr3
from sfumato.zoo.sr3 import Network, PublicForm, SR3Config, UNetForm

#: The model that a run ends with, in its folder.
RESULT = "sr3.safetensors"

#: Noise levels that the validation looks at.
_LEVELS = (0.03, 0.1, 0.3)


def train_sr3(
    settings: SR3Settings,
    data: str | Path,
    out: str | Path,
    *,
    holdout: str | Path | None = None,
    schedule: Schedule | None = None,
) -> Iterator[Event]:
    """Train on the photographs in ``data``, resuming what ``out`` holds; yield events.

    As ``train_prior``, but for the model: ``out/sr3.safetensors``, which ``load_prior`` takes.

    >>> for event in train_sr3(SR3Settings(), "photos", "runs/sr3"):  # doctest: +SKIP
    ...     print(event)
    """

    def lesson(device: str) -> SR3Lesson:
        return SR3Lesson(settings, data, holdout, device)

    return train(settings, lesson, Path(out), RESULT, schedule or Schedule())


@final
class SR3Lesson(Lesson):
    """To tell what photographs lack that were made small and large again."""

    kind = "sr3"

    def __init__(
        self, settings: SR3Settings, data: Path | str, holdout: Path | str | None, device: str
    ) -> None:
        self._settings = settings
        self._device = torch.device(device)
        self.source: Source = open_source(data, settings, self._device)
        pictures = load_holdout(holdout, prepare=settings.prepare) if holdout else []
        self._pictures = _cropped(pictures, settings.scale)
        self.n_holdout = len(self._pictures)

    @override
    def model(self) -> SR3Denoiser:
        return new_denoiser(self._settings, self._device)

    @override
    def begin(self, step: int) -> int:
        return self._settings.crop(step)[1]

    @override
    def loss(self, model: nn.Module, step: int, first: int, count: int) -> Tensor:
        assert isinstance(model, SR3Denoiser), "it is the one that model() made"
        draws = Draws(self._settings.seed, step, first, count, self._device)
        x_0 = self.source.crops(draws, self._settings.crop(step)[0])
        return sr3_loss(model, self._settings, x_0, draws)

    @override
    def figures(self, average: nn.Module) -> dict[str, float]:
        assert isinstance(average, SR3Denoiser), "it is a copy of the one that model() made"
        s, total = self._settings, dict[str, float]()
        g = torch.Generator().manual_seed(1)
        for picture in self._pictures:
            x_0 = picture[None].to(self._device)
            c = make_condition(s, x_0)
            eps = torch.randn(picture.shape, generator=g)[None].to(self._device)
            with torch.no_grad():
                answers = {"dB of the interpolated input": c}
                if s.regression_share:
                    answers["dB of the regression"] = average.regression(c)
                if s.regression_share and s.pooled_share:
                    pooled = average.regression(blocks(x_0, s.scale))
                    answers["dB of the regression of means"] = pooled
                for sigma in _LEVELS if s.regression_share < 1 else ():
                    answers[f"dB at noise {sigma:g}"] = average(x_0 + sigma * eps, sigma, c)
            for name, answer in answers.items():
                u, v = ((x.clamp(-1, 1) + 1) / 2 for x in (answer, x_0))
                total[name] = total.get(name, 0.0) + float(psnr(u[0], v[0]))
        return {name: value / len(self._pictures) for name, value in total.items()}

    @override
    def sheet(self, average: nn.Module) -> Tensor | None:
        """Show held-out photographs: the input, a sample, the regression, and as they are."""
        assert isinstance(average, SR3Denoiser), "it is a copy of the one that model() made"
        if not self._pictures:
            return None
        s, share = self._settings, self._settings.regression_share
        x_0 = crops_for_sheet(self._pictures, s.scale).to(self._device)
        c = make_condition(s, x_0)
        with torch.no_grad():
            sampled = [quick_sample(average, c, s.schedule, s.eta)] if share < 1 else []
            regressed = [average.regression(c)] if share else []
        return lay_out([c, *sampled, *regressed, x_0])

    @override
    def export(self, average: nn.Module, path: Path, record: dict[str, JsonValue]) -> None:
        s = self._settings
        config = SR3Config(
            network=_form_of(s.network, average.net),
            prediction=s.prediction,
            sigma_data=s.sigma_data,
            scale=s.scale,
            kernel=s.kernel,
            regression=s.regression_share > 0,
            samples=s.regression_share < 1,
            pooled=s.pooled_share > 0,
            sigma_max=s.sigma_max,
            tile=512 if s.network.form == "unet" else max(s.crop_cycle),
            sigmas=s.schedule,
            eta=s.eta,
            training=record,
        )
        save_checkpoint(path, in_bfloat16(average), config.model_dump(mode="json"))


def _cropped(pictures: Sequence[Tensor], scale: int) -> list[Tensor]:
    """Return pictures with their sides cropped to multiples of ``scale``."""
    cut = []
    for picture in pictures:
        h, w = (n - n % scale for n in picture.shape[1:])
        if min(h, w):
            cut.append(picture[:, :h, :w].contiguous())
    return cut


def _form_of(form: Network, net: object) -> Network:
    """Return a form with the linear path of ``net``, which keeps the one it began with."""
    if isinstance(form, UNetForm) and isinstance(net, UNet):
        return form.model_copy(update={"linear": net.config.linear})
    return form


def new_denoiser(settings: SR3Settings, device: torch.device) -> SR3Denoiser:
    """Return the denoiser that a training on ``device`` starts from, still on the CPU.

    Raises ModelError and SettingsError where ``settings.init`` is none to start from.
    """
    s, precision = settings, settings.precision_on(device)
    if s.init is not None:
        return _from_checkpoint(s, s.init, precision)
    return _denoiser(s, s.network.seeded(s.seed, checkpointing=s.checkpointing), precision)


def _denoiser(settings: SR3Settings, net: nn.Module, precision: Precision) -> SR3Denoiser:
    return SR3Denoiser(
        net,
        settings.prediction,
        stride=settings.network.config.stride,
        sigma_data=settings.sigma_data,
        precision=precision,
    )


def _from_checkpoint(settings: SR3Settings, init: str, precision: Precision) -> SR3Denoiser:
    """Return the network to start from: that of an SR3 model, or of a prior of the same form."""
    if isinstance(settings.network, PublicForm):
        tensors, header = load_checkpoint(init)
        if header.get("kind") == "refinement" and settings.prediction != "eps":
            raise SettingsError(f"{init} predicts eps", expected=f"{settings.prediction}")
        if header.get("kind") == "refinement":
            net = settings.network.build()
            load_state(net, {f"net.{name}": tensor for name, tensor in tensors.items()})
            return _denoiser(settings, net, precision)
    try:
        prior, config = load_denoiser(init, precision=precision)
    except ModelError:
        model, found = load_sr3(init, precision=precision)
        net = _grown(model.net, settings)
        ours = (_form_of(settings.network, net), settings.prediction, settings.sigma_data)
        if (_form_of(found.network, net), found.prediction, found.sigma_data) != ours:
            raise SettingsError(
                f"{init} has {found.network}, {found.prediction}, {found.sigma_data}",
                expected=f"{ours[0]}, {ours[1]}, {ours[2]}",
            ) from None
        if isinstance(net, SR3):
            net.checkpointing = settings.checkpointing
        return _denoiser(settings, net, precision)
    net = _grown(prior.net, settings)
    theirs = UNetForm(
        channels=config.channels,
        blocks=config.blocks,
        unshuffle=config.unshuffle,
        embedding=config.embedding,
    )
    form = _form_of(settings.network, net)
    if form != _form_of(theirs, net) or settings.prediction != "edm":
        raise SettingsError(
            f"{init} is a prior with the network {theirs}", expected=f"{form}, and prediction edm"
        )
    return _denoiser(settings, _with_condition(net, prior.sigma_data, settings), precision)


def _grown(net: nn.Module, settings: SR3Settings) -> nn.Module:
    """Return the network with the linear path asked for, if it has none."""
    if isinstance(net, UNet) and isinstance(settings.network, UNetForm):
        return with_linear_path(net, settings.network.linear, settings.seed)
    return net


def _with_condition(prior: nn.Module, prior_data: float, settings: SR3Settings) -> UNet:
    """Return a prior's network with a condition beside the image.

    At little noise the prior sees ``x_t / s' = c / s' + (x_t − c) / s'``, of which the new
    network sees ``(x_t − c) / s`` and ``c / s'``, ``s'`` the prior's and ``s`` the new data's
    standard deviation. So its first layer is the prior's, once scaled by ``s / s'``, once not.
    """
    assert isinstance(prior, UNet), "priors have it"
    net = UNet(replace(prior.config, inputs=6))
    tensors = dict(prior.state_dict())
    for name in ("head.weight", "linear.into.weight"):
        if name in tensors:
            first = tensors[name]
            tensors[name] = torch.cat([first * (settings.sigma_data / prior_data), first], dim=1)
    net.load_state_dict(tensors)
    return net
