"""How long a step takes: of training SR3, and of sampling with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from typing_extensions import override

from sfumato.diffusion import Guidance
from sfumato.diffusion.sr3 import SR3Denoiser
from sfumato.samplers import SR3, sample, walk
from sfumato.training._draws import Draws
from sfumato.training.lesson import Lesson
from sfumato.training.run import Run
from sfumato.training.sr3 import new_denoiser
from sfumato.training.sr3_loss import sr3_loss
from sfumato.training.sr3_settings import SR3Settings
from sfumato.zoo.prior import as_device


@dataclass(frozen=True)
class Speed:
    """Seconds of a training step and of a sampling step, the best of several; parameters."""

    training: float
    sampling: float
    n_parameters: int


def sr3_speed(
    settings: SR3Settings, side: int, batch: int, *, device: str = "cpu", repeats: int = 3
) -> Speed:
    """Time SR3 steps on ``batch`` made-up images of ``side`` pixels, after one that warms up.

    A training step is all that a run does: the loss and its gradient, clipping, the optimiser and
    the average of the weights. A sampling step is an evaluation and one step of SR3's sampler.
    """
    where = as_device(device)
    run = Run(settings, _MadeUp(settings, side, batch, where), where)
    training = _best(run.advance, repeats, where)
    D = run.average
    assert isinstance(D, SR3Denoiser), "it is a copy of the lesson's"
    c = torch.zeros(batch, 3, side, side, device=where)
    noise = torch.randn(c.shape, generator=torch.Generator().manual_seed(0)).to(where)

    def step() -> None:
        moves = walk(SR3(), [1.0, 0.5])
        with torch.no_grad():
            walked = sample(
                D.given(c), SR3(), [Guidance()] * batch, moves, x_T=noise, noise=lambda _: noise
            )
            for _ in walked:
                pass

    sampling = _best(step, repeats, where)
    return Speed(training, sampling, sum(p.numel() for p in D.parameters()))


def _best(step: Callable[[], None], repeats: int, device: torch.device) -> float:
    took = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - began)
    return min(took[1:])


@final
class _MadeUp(Lesson):
    """A lesson on noise."""

    kind = "speed"
    n_holdout = 0

    def __init__(self, settings: SR3Settings, side: int, batch: int, device: torch.device) -> None:
        self._settings, self._batch, self._device = settings, batch, device
        g = torch.Generator().manual_seed(0)
        self._x_0 = torch.rand(batch, 3, side, side, generator=g).to(device) * 2 - 1

    @override
    def model(self) -> SR3Denoiser:
        return new_denoiser(self._settings, self._device)

    @override
    def begin(self, step: int) -> int:
        return self._batch

    @override
    def loss(self, model: nn.Module, step: int, first: int, count: int) -> Tensor:
        assert isinstance(model, SR3Denoiser), "it is the one that model() made"
        draws = Draws(0, step, first, count, self._x_0.device)
        return sr3_loss(model, self._settings, self._x_0[first : first + count], draws)

    @override
    def figures(self, average: nn.Module) -> dict[str, float]:
        return {}

    @override
    def export(self, average: nn.Module, path: Path, record: dict[str, JsonValue]) -> None:
        raise NotImplementedError
