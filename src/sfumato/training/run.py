"""The state of a training run: weights, their average, the optimiser's moments, and the step."""

from __future__ import annotations

import copy
import math
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import final

import torch
from pydantic import JsonValue
from torch import Tensor

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.errors import ModelError, SettingsError
from sfumato.io.checkpoints import load_checkpoint, load_state, save_checkpoint
from sfumato.nn import seeded_unet
from sfumato.training._draws import Draws
from sfumato.training.data import Photographs
from sfumato.training.events import Stepped
from sfumato.training.loss import draw_noise, draw_sigma, edm_loss
from sfumato.training.settings import PriorSettings
from sfumato.zoo.config import PriorConfig
from sfumato.zoo.prior import load_denoiser

_KIND = "prior-training"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@final
class Run:
    """A prior in training: the one thing here that changes.

    ``advance`` takes one step, ``report`` sums up the steps since the last report; ``save`` and
    ``restore`` keep everything in one file; ``export`` writes the averaged weights as a prior.
    """

    def __init__(
        self, settings: PriorSettings, photographs: Photographs, device: torch.device
    ) -> None:
        self.settings = settings
        self.device = device
        self.photographs = photographs.to(device)
        self.model = _first_model(settings).to(device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.step = 0
        self.seconds = 0.0
        self._losses: list[Tensor] = []
        self._weights: list[Tensor] = list(self.model.parameters())
        self._averages: list[Tensor] = list(self.average.parameters())
        self._optimiser = torch.optim.AdamW(
            self._weights,
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def advance(self) -> None:
        """Take one step: one batch, one update of the weights and of their average."""
        began, settings = time.monotonic(), self.settings
        side, n = settings.crop(self.step)
        part = math.ceil(n / settings.accumulate)
        losses = [self._learn(side, k, min(part, n - k), n) for k in range(0, n, part)]
        torch.nn.utils.clip_grad_norm_(self._weights, settings.clip_norm)
        for group in self._optimiser.param_groups:
            group["lr"] = settings.rate(self.step)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self.step += 1
        rate = max(settings.ema_rate, 1 / (self.step / 5 + 1))
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._weights, rate)
        self._losses.append(torch.stack(losses).sum())
        self.seconds += time.monotonic() - began

    def _learn(self, side: int, first: int, count: int, n: int) -> Tensor:
        """Add the gradient of ``count`` of the step's ``n`` examples; return their loss."""
        draws = Draws(self.settings.seed, self.step, first, count, self.device)
        x_0 = self.photographs.crops(draws, side)
        sigma, eps = draw_sigma(self.settings, draws), draw_noise(draws, x_0)
        loss = edm_loss(self.model, x_0, sigma, eps) * (count / n)
        loss.backward()
        return loss.detach()

    def report(self) -> Stepped:
        """Return the mean loss since the last report; ModelError where it is not finite."""
        began = time.monotonic()
        loss = float(torch.stack(self._losses).mean())  # on a GPU this waits for the steps
        self.seconds += time.monotonic() - began
        self._losses.clear()
        if not math.isfinite(loss):
            raise ModelError(
                f"the loss is {loss} near step {self.step}",
                do="start again with a lower learning_rate",
            )
        return Stepped(self.step, loss, self.settings.rate(self.step - 1), self.seconds)

    def save(self, path: Path) -> None:
        """Write everything that a resume needs, whole or not at all."""
        tensors = _prefixed("model", self.model.state_dict().items())
        tensors |= _prefixed("average", self.average.state_dict().items())
        for name, weight in self.model.named_parameters():
            for moment in _MOMENTS:
                tensors[f"{moment}.{name}"] = self._optimiser.state[weight][moment]
        save_checkpoint(path, tensors, {"kind": _KIND, **self._record()})

    def restore(self, path: Path) -> None:
        """Go on from what ``save`` wrote; refuse other settings and other photographs."""
        tensors, record = load_checkpoint(path)
        if record.get("kind") != _KIND:
            raise ModelError(f"{path} holds {record.get('kind')!r}", expected="a training run")
        self._check_same(record, path)
        step, seconds = record.get("step"), record.get("seconds")
        if not isinstance(step, int) or not isinstance(seconds, float):
            raise ModelError(f"{path} is damaged: it is at step {step!r} after {seconds!r} s")
        self.step, self.seconds = step, seconds
        load_state(self.model, _without_prefix("model", tensors))
        load_state(self.average, _without_prefix("average", tensors))
        for name, weight in self.model.named_parameters():
            # The fused update walks all four through memory side by side: the moments must lie
            # there as the weights do, which what comes out of the file does not.
            state = {m: torch.zeros_like(weight).copy_(tensors[f"{m}.{name}"]) for m in _MOMENTS}
            state["step"] = torch.tensor(float(self.step), device=self.device)
            self._optimiser.state[weight] = state

    def export(self, path: Path) -> None:
        """Write the averaged weights in bfloat16 as a prior that ``load_prior`` takes."""
        config = PriorConfig(
            **{name: getattr(self.settings, name) for name in _FORM},
            sigma_max=self.settings.sigma_max,
            tile=math.lcm(512, self.settings.network.stride),
            training=self._record(),
        )
        # Buffers keep float32: the embedding's frequencies, rounded, turn its phases by 0.2.
        tensors = dict(self.average.named_buffers())
        tensors |= {k: v.bfloat16() for k, v in self.average.named_parameters()}
        save_checkpoint(path, tensors, config.model_dump(mode="json"))

    def _record(self) -> dict[str, JsonValue]:
        return {
            "settings": self.settings.model_dump(mode="json"),
            "step": self.step,
            "seconds": self.seconds,
            "photographs": self.photographs.n_photographs,
            "data": self.photographs.digest,
            "hardware": _hardware(self.device),
        }

    def _check_same(self, record: dict[str, object], path: Path) -> None:
        now, before = self._record(), record.get("settings")
        if record.get("data") != now["data"]:
            raise SettingsError(
                f"{path} was trained on other photographs", do="use them, or another --out"
            )
        ours = self.settings.model_dump(mode="json")
        theirs = before if isinstance(before, dict) else {}
        changed = [
            f"{k} {theirs.get(k)!r} -> {v!r}" for k, v in ours.items() if theirs.get(k) != v
        ]
        if changed:
            raise SettingsError(
                f"{path} belongs to a run with other settings: {', '.join(changed)}",
                do="use the same ones, or another --out",
            )


_FORM = ("channels", "blocks", "unshuffle", "embedding", "sigma_data")


def _first_model(settings: PriorSettings) -> EDMDenoiser:
    """Return the network to start from: of ``settings.init``, or new."""
    if settings.init is None:
        net = seeded_unet(settings.network, settings.seed)
        return EDMDenoiser(net, settings.sigma_data, settings.precision)
    model, config = load_denoiser(settings.init, precision=settings.precision)
    differ = [name for name in _FORM if getattr(config, name) != getattr(settings, name)]
    if differ:
        raise SettingsError(
            f"{settings.init} has another network: "
            + ", ".join(f"{name} {getattr(config, name)}" for name in differ),
            expected=", ".join(f"{name} {getattr(settings, name)}" for name in differ),
        )
    return model


def _prefixed(prefix: str, named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in named}


def _without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
