"""The walk from noise to image, time travel included, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.guidance import Correction, Guidance, Step
from sfumato.diffusion.jacobian import linearised
from sfumato.errors import SettingsError
from sfumato.samplers.base import Past, Sampler


@dataclass(frozen=True)
class Jump:
    """Travel back in time: from noise ``sigma`` up to ``sigma_next``."""

    draw: int
    sigma: float
    sigma_next: float


def walk(
    sampler: Sampler, sigmas: Sequence[float], *, travel_length: int = 1, travel_repeats: int = 1
) -> list[Step | Jump]:
    """List the moves through ``sigmas``: steps down and, with time travel, jumps up.

    ``sigmas`` decrease and end in 0. After every ``travel_length`` steps but the last ones the
    walk jumps as many steps back and redoes them, until they were done ``travel_repeats`` times
    (RePaint, arXiv 2201.09865; DDNM section 3.3). Draw 0 is the starting noise.

    >>> from sfumato.samplers import DDPM
    >>> moves = walk(DDPM(), [*range(100, -1, -1)], travel_length=10, travel_repeats=3)
    >>> sum(isinstance(m, Step) for m in moves)
    280
    """
    if travel_length < 1 or travel_repeats < 1:
        raise SettingsError(
            f"time travel of length {travel_length}, {travel_repeats} times",
            expected="both at least 1",
        )
    n, draws = len(sigmas) - 1, count(1)
    moves: list[Step | Jump] = []
    for start in range(0, n, travel_length):
        stop = min(start + travel_length, n)
        for repeat in range(travel_repeats if stop < n else 1):
            if repeat:
                moves.append(Jump(next(draws), sigmas[stop], sigmas[start]))
            for s, s_next in zip(sigmas[start:stop], sigmas[start + 1 : stop + 1], strict=True):
                moves.append(_step(next(draws), sampler, s, s_next))
    return moves


def _step(draw: int, sampler: Sampler, sigma: float, sigma_next: float) -> Step:
    excess = sampler.excess(sigma, sigma_next) if sigma_next else 1.0
    eta = sampler.eta(sigma, sigma_next)
    return Step(draw, sigma, sigma_next, eta, excess, sampler.posterior)


def check_pair(sampler: Sampler, guidance: Guidance) -> None:
    """Refuse a sampler that cannot do what the guidance asks of it."""
    if guidance.shapes_noise and sampler.order > 1:
        raise SettingsError(
            f"{type(sampler).__name__} with {type(guidance).__name__}",
            expected="a sampler of first order, since the measurement's noise shapes the step's",
            do="use ddpm or ddim",
        )


def advance(
    sampler: Sampler,
    guidance: Guidance,
    step: Step,
    *,
    x_t: Images,
    raw: Images,
    x_0: Images,
    z: Tensor,
    past: Sequence[Past],
) -> Images:
    """Make one step of one image: from the network's estimate ``raw``, corrected to ``x_0``."""
    target = sampler.estimate(x_0, step.sigma, step.sigma_next, past)
    if not sampler.renoises or step.sigma_next == 0:
        return target
    posterior = sampler.posterior or guidance.posterior
    eps = (x_t - (target if posterior else raw)) / step.sigma
    fresh = step.eta * step.excess
    noise = (1 - step.eta**2) ** 0.5 * eps + fresh * z if step.eta else eps
    return target + step.sigma_next * guidance.mix(noise, z, step)


def corrected(
    denoiser: Denoiser, guidances: Sequence[Guidance], x_t: Images, step: Step
) -> tuple[Images, list[Tensor]]:
    """Return the network's estimate of a batch, and that of each image as its guidance has it.

    The images that need the Jacobian share each pass back through the network.
    """
    if not any(g.needs_gradient for g in guidances):
        raw = denoiser(x_t, step.sigma)
        pairs = zip(guidances, raw.split(1), strict=True)
        return raw, [g.correct(x_0, step) for g, x_0 in pairs]
    raw, pull = linearised(denoiser, x_t, step.sigma)
    pairs = zip(guidances, raw.split(1), strict=True)
    return raw, _together([g.correcting(x_0, step) for g, x_0 in pairs], raw, pull)


def _together(
    corrections: Sequence[Correction], like: Images, pull: Callable[[Images], Images]
) -> list[Tensor]:
    """Finish the corrections of a batch, side by side."""
    done: dict[int, Tensor] = {}
    asked: dict[int, Tensor] = {}

    def go_on_with(i: int, answer: Tensor | None) -> None:
        try:
            asked[i] = next(corrections[i]) if answer is None else corrections[i].send(answer)
        except StopIteration as stop:
            done[i] = stop.value

    for i in range(len(corrections)):
        go_on_with(i, None)
    while asked:
        v = torch.zeros_like(like)
        for i, part in asked.items():
            v[i : i + 1] = part
        now, answers = list(asked), pull(v).split(1)
        asked.clear()
        for i in now:
            go_on_with(i, answers[i])
    return [done[i] for i in range(len(corrections))]


@dataclass(frozen=True)
class Position:
    """Where a walk stands: so many moves are made, and what they led to.

    ``past`` is what the sampler remembers of each image of the batch.
    """

    made: int
    x: Images
    past: tuple[tuple[Past, ...], ...]


def sample(
    denoiser: Denoiser,
    sampler: Sampler,
    guidances: Sequence[Guidance],
    moves: Sequence[Step | Jump],
    *,
    x_T: Images,
    noise: Callable[[int], Tensor],
) -> Iterator[tuple[Step | Jump, Images]]:
    """Make all ``moves`` from ``x_T``, and yield each with the batch of images after it.

    One evaluation of the denoiser serves the whole batch. ``guidances`` holds one for each image
    of the batch; ``noise(draw)`` returns fresh standard normal noise of the batch's shape.
    """
    start = Position(0, x_T, ((),) * len(guidances))
    for at in go_on(denoiser, sampler, guidances, moves, start, noise=noise):
        yield moves[at.made - 1], at.x


def go_on(
    denoiser: Denoiser,
    sampler: Sampler,
    guidances: Sequence[Guidance],
    moves: Sequence[Step | Jump],
    start: Position,
    *,
    noise: Callable[[int], Tensor],
) -> Iterator[Position]:
    """Make the moves that are left from ``start``; see ``sample``. Yield where each one leads."""
    for g in guidances:
        check_pair(sampler, g)
    needs_noise = any(g.needs_noise for g in guidances)
    nothing = ((),) * len(guidances)
    x, past = start.x, start.past
    for made, move in enumerate(moves[start.made :], start.made + 1):
        if isinstance(move, Jump):
            x = x + (move.sigma_next**2 - move.sigma**2) ** 0.5 * noise(move.draw)
            past = nothing
        else:
            needed = move.sigma_next and (needs_noise or move.eta)
            z = noise(move.draw) if needed else torch.zeros_like(x)
            raw, estimates = corrected(denoiser, guidances, x, move)
            after: list[Images] = []
            for i, (g, x_0) in enumerate(zip(guidances, estimates, strict=True)):
                x_t, answer, fresh = (v[i : i + 1] for v in (x, raw, z))
                after.append(
                    advance(sampler, g, move, x_t=x_t, raw=answer, x_0=x_0, z=fresh, past=past[i])
                )
            x = torch.cat(after) if len(after) > 1 else after[0]
            past = (
                tuple((Past(move.sigma, x_0),) for x_0 in estimates)
                if sampler.order > 1
                else nothing
            )
        yield Position(made, x, past)
