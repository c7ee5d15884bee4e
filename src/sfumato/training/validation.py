"""How well a prior denoises photographs that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sfumato.errors import ImageError, SettingsError
from sfumato.training.pictures import prepared
from sfumato.training.source import entries_of

#: Standard deviations of the noise, on data in [-1, 1]; 0.2 is 25.5 of 255.
NOISE_LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0)

_SIDE = 192
_SEED = 1


def load_holdout(
    data: str | Path, *, side: int = _SIDE, prepare: int | None = None
) -> list[Tensor]:
    """Return the centres of the pictures of ``data``, each (3, height, width) in [-1, 1].

    ``data`` is a folder, a dataset or shards. Sides are ``side`` pixels, or the picture's where it
    is smaller; with ``prepare`` pictures are prepared before, as in training. What is no colour
    picture, or smaller than ``prepare``, is left out; SettingsError where nothing remains.
    """
    centres = []
    for entry in entries_of(data)[0]:
        try:
            pixels = entry.decode()
            picture = torch.from_numpy(prepared(pixels, prepare) if prepare else pixels.copy())
        except ImageError:
            continue
        height, width = (min(side, n) for n in picture.shape[:2])
        top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
        centre = picture[top : top + height, left : left + width]
        centres.append(centre.permute(2, 0, 1).float() / 127.5 - 1)
    if not centres:
        raise SettingsError(f"no colour picture in {data}", expected="photographs to validate on")
    return centres


def denoising_psnr(
    denoiser: Callable[[Tensor, float], Tensor],
    pictures: Sequence[Tensor],
    levels: Sequence[float] = NOISE_LEVELS,
    *,
    device: str | torch.device = "cpu",
) -> dict[float, float]:
    """Return the mean PSNR in dB of ``denoiser(x_0 + σ ε, σ)`` for each σ of ``levels``.

    ``PSNR = −10 log₁₀ mean((clip(x̂₀) − x_0)² / 4)`` of each picture, then the mean over them. The
    noise is the same at every call.

    >>> oracle = torch.zeros(3, 8, 8)
    >>> round(denoising_psnr(lambda x, sigma: 0 * x + 0.02, [oracle], [0.1])[0.1])
    40
    """
    generator = torch.Generator().manual_seed(_SEED)
    total = dict.fromkeys(levels, 0.0)
    for picture in pictures:
        eps = torch.randn(picture.shape, generator=generator)
        x_0, eps = picture[None].to(device), eps[None].to(device)
        for sigma in levels:
            with torch.no_grad():
                estimate = denoiser(x_0 + sigma * eps, sigma).clamp(-1, 1)
            error = ((estimate - x_0) / 2).square().mean()
            total[sigma] += float(-10 * error.log10())
    return {sigma: value / len(pictures) for sigma, value in total.items()}
