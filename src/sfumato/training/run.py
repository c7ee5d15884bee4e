"""The state of a training run: weights, their average, the optimiser's moments, and the step."""

from __future__ import annotations

import copy
import hashlib
import math
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import final

import torch
from pydantic import JsonValue
from torch import Tensor

from sfumato.errors import ModelError, SettingsError
from sfumato.io.checkpoints import load_checkpoint, load_state, save_checkpoint
from sfumato.training.events import Stepped
from sfumato.training.lesson import Lesson
from sfumato.training.processes import Alone, Processes
from sfumato.training.settings import RunSettings

_MOMENTS = ("exp_avg", "exp_avg_sq")


@final
class Run:
    """A network in training: the one thing here that changes.

    ``advance`` takes one step, ``report`` sums up the steps since the last report; ``save`` and
    ``restore`` keep everything in one file; ``export`` writes the averaged weights as a model.
    """

    def __init__(
        self,
        settings: RunSettings,
        lesson: Lesson,
        device: torch.device,
        processes: Processes | None = None,
    ) -> None:
        self.settings = settings
        self.processes = processes or Alone()
        self.lesson = lesson
        self.device = device
        self.model = lesson.model().to(device)
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
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
        n = self.lesson.begin(self.step)
        first, count = self.processes.share(n)
        part, end = max(1, math.ceil(count / settings.accumulate)), first + count
        losses = [self._learn(k, min(part, end - k), n) for k in range(first, end, part)]
        loss = self._add_up(losses)
        self.lesson.end(self.step, self.processes.add)
        torch.nn.utils.clip_grad_norm_(self._weights, settings.clip_norm)
        for group in self._optimiser.param_groups:
            group["lr"] = settings.rate(self.step)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self.step += 1
        rate = max(settings.ema_rate, 1 / (self.step / 5 + 1))
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._weights, rate)
        self._losses.append(loss)
        self.seconds += time.monotonic() - began

    def _learn(self, first: int, count: int, n: int) -> Tensor:
        """Add the gradient of ``count`` of the step's ``n`` examples; return their loss."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            # Dropout takes torch's own numbers: here a function of seed, step and example too.
            key = f"{self.settings.seed} {self.step} {first}"
            torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 1)
            loss = self.lesson.loss(self.model, self.step, first, count) * (count / n)
            loss.backward()
        return loss.detach()

    def _add_up(self, losses: list[Tensor]) -> Tensor:
        """Return the step's loss, and put the sum of all processes' gradients in place of ours.

        This is the one place where processes meet: what follows is the same in all of them.
        """
        loss = torch.stack([*losses, torch.zeros((), device=self.device)]).sum()
        if self.processes.size == 1:
            return loss
        for weight in self._weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [w.grad for w in self._weights if w.grad is not None]
        flat = torch.cat([loss.reshape(1), *(g.flatten() for g in gradients)])
        total, *sums = self.processes.add(flat).split([1, *(g.numel() for g in gradients)])
        for gradient, whole in zip(gradients, sums, strict=True):
            gradient.copy_(whole.view_as(gradient))
        loss.copy_(total[0])
        return loss

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
        tensors |= _prefixed("lesson", self.lesson.state().items())
        for name, weight in self.model.named_parameters():
            for moment in _MOMENTS:
                tensors[f"{moment}.{name}"] = self._optimiser.state[weight][moment]
        save_checkpoint(path, tensors, {"kind": self._kind, **self.record()})

    def restore(self, path: Path) -> None:
        """Go on from what ``save`` wrote; refuse other settings and other photographs."""
        tensors, record = load_checkpoint(path)
        if record.get("kind") != self._kind:
            raise ModelError(
                f"{path} holds {record.get('kind')!r}", expected=f"a training run, {self._kind}"
            )
        self._check_same(record, path)
        step, seconds = record.get("step"), record.get("seconds")
        if not isinstance(step, int) or not isinstance(seconds, float):
            raise ModelError(f"{path} is damaged: it is at step {step!r} after {seconds!r} s")
        self.step, self.seconds = step, seconds
        load_state(self.model, _without_prefix("model", tensors))
        load_state(self.average, _without_prefix("average", tensors))
        self.lesson.restore(_without_prefix("lesson", tensors))
        for name, weight in self.model.named_parameters():
            # The fused update walks all four through memory side by side: the moments must lie
            # there as the weights do, which what comes out of the file does not.
            state = {m: torch.zeros_like(weight).copy_(tensors[f"{m}.{name}"]) for m in _MOMENTS}
            state["step"] = torch.tensor(float(self.step), device=self.device)
            self._optimiser.state[weight] = state

    def export(self, path: Path) -> None:
        """Write the averaged weights as a model that can be used."""
        self.lesson.export(self.average, path, self.record())

    @property
    def _kind(self) -> str:
        return f"{self.lesson.kind}-training"

    def record(self) -> dict[str, JsonValue]:
        """Return how the weights came to be."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "step": self.step,
            "seconds": self.seconds,
            "photographs": self.lesson.source.n_photographs,
            "data": self.lesson.source.digest,
            "hardware": _hardware(self.device),
        }

    def _check_same(self, record: dict[str, object], path: Path) -> None:
        now, before = self.record(), record.get("settings")
        if record.get("data") != now["data"]:
            raise SettingsError(
                f"{path} was trained on other photographs", do="use them, or another --out"
            )
        ours = self.settings.model_dump(mode="json")
        theirs = with_defaults(self.settings, before)
        changed = [
            f"{k} {theirs.get(k)!r} -> {v!r}" for k, v in ours.items() if theirs.get(k) != v
        ]
        if changed:
            raise SettingsError(
                f"{path} belongs to a run with other settings: {', '.join(changed)}",
                do="use the same ones, or another --out",
            )


def with_defaults(settings: RunSettings, before: object) -> dict[str, object]:
    """Return recorded settings; those that there were none of at the time have their defaults."""
    defaults = type(settings)().model_dump(mode="json")
    return defaults | (before if isinstance(before, dict) else {})


def in_bfloat16(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return a module's tensors as they are stored: parameters in bfloat16.

    Buffers keep float32: the embedding's frequencies, rounded, turn its phases by 0.2.
    """
    tensors = dict(model.named_buffers())
    return tensors | {k: v.bfloat16() for k, v in model.named_parameters()}


def _prefixed(prefix: str, named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in named}


def _without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
