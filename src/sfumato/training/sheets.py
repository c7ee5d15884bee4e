"""Sheets of pictures, to see how training goes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.diffusion.guidance import Guidance
from sfumato.diffusion.sr3 import SR3Denoiser
from sfumato.samplers import DDIM, SR3, sample, walk

#: Of a sheet: so many pictures, of at most so many pixels a side, and so much white between.
N_PICTURES = 4
SIDE = 96
_GAP = 4

#: Of a sample on a sheet, at most.
_N_STEPS = 16
_SEED = 1


def crops_for_sheet(pictures: Sequence[Tensor], multiple: int = 1) -> Images:
    """Return the middles of the first few pictures, all of one size: (n, 3, side, side).

    ``side`` is a multiple of ``multiple``. ``pictures`` are (3, height, width), one at least, each
    with sides of ``multiple`` or more.
    """
    few = pictures[:N_PICTURES]
    side = min(SIDE, *(n for p in few for n in p.shape[1:]))
    side = max(multiple, side - side % multiple)
    places = [[(n - side) // 2 for n in p.shape[1:]] for p in few]
    return torch.stack(
        [p[:, i : i + side, j : j + side] for p, (i, j) in zip(few, places, strict=True)]
    )


def lay_out(columns: Sequence[Images]) -> Tensor:
    """Return batches in [-1, 1] side by side, a picture a row: (3, height, width) in [0, 1].

    >>> lay_out([torch.zeros(2, 3, 8, 8)] * 3).shape
    torch.Size([3, 28, 40])
    """
    n, channels, h, w = columns[0].shape
    height, width = n * (h + _GAP) + _GAP, len(columns) * (w + _GAP) + _GAP
    out = torch.ones(channels, height, width)
    for j, batch in enumerate(columns):
        for i, picture in enumerate((batch.detach().float().cpu().clamp(-1, 1) + 1) / 2):
            top, left = _GAP + i * (h + _GAP), _GAP + j * (w + _GAP)
            out[:, top : top + h, left : left + w] = picture
    return out


@torch.no_grad()
def quick_sample(
    D: SR3Denoiser, c: Images, schedule: Sequence[float], eta: float | None
) -> Images:
    """Return a sample for each condition, by some of the levels of a schedule.

    By DDIM with a share ``eta`` of fresh noise, or by SR3's own sampler where it is None. The
    noise is the same at every call. A model of what the condition lacks begins on it.
    """
    sigmas = _thinned(schedule)
    sampler, g = SR3() if eta is None else DDIM(eta), torch.Generator().manual_seed(_SEED)

    def noise(draw: int) -> Tensor:
        del draw
        return torch.randn(c.shape, generator=g).to(c.device)

    x = sigmas[0] * noise(0) + (c if D.coefficients(1.0, c).relative else 0)
    moves = walk(sampler, (*sigmas, 0.0))
    walked = sample(D.given(c), sampler, [Guidance()] * len(c), moves, x_T=x, noise=noise)
    return [images for _, images in walked][-1]


def _thinned(sigmas: Sequence[float]) -> list[float]:
    """Return at most ``_N_STEPS`` of the levels, evenly taken, the first and the last included."""
    n = min(len(sigmas), _N_STEPS)
    return [sigmas[round(k * (len(sigmas) - 1) / max(1, n - 1))] for k in range(n)]
