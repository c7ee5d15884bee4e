"""What a denoiser meets in rounds of denoise and project, to be trained on.

An iterate of rounds is no photograph with white noise: what is wrong in it lies in the null space
of ``A``, and is smooth. So the network is shown its own iterates::

    x_0 ← start(y),   x_{k+1} ← project(D(x_k, σ_k), y)          y = A x.
    loss = mean((D(x_k, σ_k) − x.)²) / (mean((x_k − x.)²) + 0.03 σ_k²)

with ``x.`` the photograph, a random ``A``, and falling ``σ_k``. A round is one training step;
``x_k`` is kept from step to step, and no gradient flows through it. The share of ``σ_k²`` keeps
pictures of which the measurement says nearly all, a sky say, from drowning the others: by the
plain ratio a few steps in a hundred had losses of up to forty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.diffusion import karras
from sfumato.errors import ModelError
from sfumato.guidance import Measurement, project, rounds_spread, start_image
from sfumato.operators import Operator, parse
from sfumato.training._draws import Draws, Purpose
from sfumato.training.settings import PriorSettings
from sfumato.training.source import Source

_EVEN = 1000.0  # as `karras` has it: steps are even in log σ
_SHARE = 0.03  # of the variance that the network is told, in what the loss is divided by


@dataclass(frozen=True, eq=False)
class _Problem:
    """What a sequence of rounds is about: a function of the step it began with."""

    began: int
    x_0: Images
    y: Tensor
    A: Operator
    sigmas: list[float]


@final
class Iterates:
    """Rounds in progress, one at each step that is theirs (``theirs``)."""

    def __init__(self, settings: PriorSettings, photographs: Source) -> None:
        self._settings = settings
        self._photographs = photographs
        self._device = photographs.device
        self._problem: _Problem | None = None
        self._made = 0
        self._x = torch.empty(0, device=self._device)
        self._answers = torch.empty(0, device=self._device)

    def theirs(self, step: int) -> bool:
        """Say whether a step is one of rounds: their share of all, evenly spread."""
        share = self._settings.rounds_share
        return int((step + 1) * share) > int(step * share)

    def begin(self, step: int) -> int:
        """Take a new problem if the last one is done; return the number of examples."""
        if self._problem is None or self._made == len(self._problem.sigmas):
            self._problem, self._made = self._pose(step), 0
            p = self._problem
            self._x = torch.cat([start_image(Measurement(p.A, y[None])) for y in p.y])
        self._answers = torch.zeros_like(self._x)
        return len(self._x)

    def loss(self, denoiser: Callable[[Images, Tensor], Images], first: int, count: int) -> Tensor:
        """Return the mean loss of ``count`` of the examples from ``first`` on."""
        p = self._problem
        assert p is not None, "begin() comes first"
        x, x_0 = (v[first : first + count] for v in (self._x, p.x_0))
        sigma = torch.full((len(x),), p.sigmas[self._made], device=self._device)
        answer = denoiser(x, sigma)
        self._answers[first : first + count] = answer.detach()
        before = _mean_square(x - x_0) + _SHARE * sigma.square()
        return (_mean_square(answer - x_0) / before).mean()

    def advance(self, add: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        """Project the answers to all examples on the measurement: the next iterate.

        ``add`` sums tensors over the processes that took part in the step.
        """
        p = self._problem
        assert p is not None, "begin() comes first"
        with torch.no_grad():
            self._x = project(add(self._answers), p.y, p.A, spread=rounds_spread(p.A))
        self._made += 1

    def state(self) -> dict[str, Tensor]:
        """Return what a resume needs."""
        if self._problem is None:
            return {}
        numbers = torch.tensor([self._problem.began, self._made])
        return {"rounds.x": self._x, "rounds.numbers": numbers}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what ``state`` returned."""
        if "rounds.x" not in tensors:
            return
        numbers = tensors["rounds.numbers"].tolist()
        self._problem, self._made = self._pose(numbers[0]), numbers[1]
        self._x = tensors["rounds.x"].to(self._device)
        if self._x.shape != self._problem.x_0.shape:
            raise ModelError(f"iterates of shape {tuple(self._x.shape)} in a damaged state")

    def _pose(self, step: int) -> _Problem:
        """Draw crops, an operator and noise levels."""
        s, cycle = self._settings, self._settings.crop_cycle
        u = Draws(s.seed, step, 0, 1, "cpu").uniform(Purpose.ROUNDS, 5)[0].tolist()
        side = cycle[int(u[0] * len(cycle))]
        n = max(1, s.batch_pixels // side**2)
        word = s.rounds_degradations[int(u[1] * len(s.rounds_degradations))]
        count = s.rounds_counts[int(u[2] * len(s.rounds_counts))]
        high, low = (a + (b - a) * v for (a, b), v in zip(s.rounds_sigma, u[3:], strict=True))
        x_0 = self._photographs.crops(Draws(s.seed, step, 0, n, self._device), side)
        degradation = parse(word)
        whole = side - side % degradation.source_shape((3, 1, 1))[1]
        x_0 = x_0[..., :whole, :whole].contiguous()
        A = degradation.operator((3, whole, whole))
        sigmas = karras(count, high, low, _EVEN)[:-1]
        return _Problem(step, x_0, A(x_0), A, sigmas)


def _mean_square(x: Images) -> Tensor:
    return x.square().mean((1, 2, 3))
