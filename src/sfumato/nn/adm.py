"""The classifier of noisy images of guided-diffusion (ADM): half a U-Net, then attention.

It computes what the published one computes, with the published names of the weights, so that those
are used as they are.

Reference: Dhariwal and Nichol 2021, arXiv 2105.05233; github.com/openai/guided-diffusion (MIT).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import SettingsError, ShapeError

#: Of every group norm of theirs.
GROUPS = 32
_LONGEST_PERIOD = 10_000


@final
@dataclass(frozen=True)
class ADMClassifierConfig:
    """The form of a classifier, which decides the names and shapes of its weights.

    - ``width``: of the embedding of time, a fourth of what blocks are told.
    - ``channels``: the width of each level, finest first; ``blocks``: of each level.
    - ``attention``: which levels have it; the coarsest has it at the end in any case.
    - ``head_width``: channels of a head.
    - ``side``: of its images, in pixels; no other size will do.
    - ``scale_shift``: blocks are told the time by scale and shift of a norm, else by a sum.

    Raises SettingsError where widths do not go into groups and heads.
    """

    width: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    n_classes: int
    side: int
    head_width: int = 64
    scale_shift: bool = True

    def __post_init__(self) -> None:
        odd = [c for c in self.channels if c % GROUPS]
        heads = [c for c, a in zip(self.channels, self.attention, strict=True) if a]
        odd += [c for c in (*heads, self.channels[-1]) if c % self.head_width]
        if odd or self.side % self.stride:
            raise SettingsError(
                f"a classifier of {self.channels} channels and {self.side} pixels",
                expected=f"multiples of {GROUPS} channels and of heads of {self.head_width}, "
                f"and a side that is a multiple of {self.stride}",
            )

    @property
    def stride(self) -> int:
        """The number of pixels in a cell of the coarsest level."""
        return 1 << (len(self.channels) - 1)


def time_encoding(t: Tensor, width: int) -> Tensor:
    """Return cosines, then sines, of ``t · 10000^(−k/n)`` for k from 0 to n − 1; 2n is the width.

    >>> time_encoding(torch.zeros(1), 4)
    tensor([[1., 1., 0., 0.]])
    """
    n = width // 2
    k = torch.arange(n, dtype=torch.float32, device=t.device)
    phase = t.float()[:, None] * torch.exp(-math.log(_LONGEST_PERIOD) * k / n)
    return torch.cat([phase.cos(), phase.sin()], dim=1)


@final
class _Residual(nn.Module):
    """``out = skip(x) + out_layers(in_layers(x), time)``, with half the sides if it ``halves``."""

    def __init__(
        self, c_in: int, c_out: int, config: ADMClassifierConfig, *, halves: bool = False
    ) -> None:
        super().__init__()
        told = 2 * c_out if config.scale_shift else c_out
        self.scale_shift, self.halves = config.scale_shift, halves
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * config.width, told))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, c_out),
            nn.SiLU(),
            nn.Identity(),  # theirs is dropout
            nn.Conv2d(c_out, c_out, 3, padding=1),
        )
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.in_layers[:2](x)
        if self.halves:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        h, told = self.in_layers[2](h), self.emb_layers(e)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + told)
        out: Tensor = self.skip_connection(x) + h
        return out


@final
class _Attention(nn.Module):
    """``x + proj_out(softmax(q kᵀ / √d) v)``; qkv are stored head by head, as (heads, 3, d)."""

    def __init__(self, channels: int, head_width: int) -> None:
        super().__init__()
        self.n_heads = channels // head_width
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        del e
        qkv = self.qkv(self.norm(x).flatten(2)).unflatten(1, (self.n_heads, 3, -1))
        q, k, v = qkv.mT.unbind(2)
        seen = F.scaled_dot_product_attention(q, k, v).mT.flatten(1, 2)
        out: Tensor = x + self.proj_out(seen).unflatten(2, x.shape[2:])
        return out


@final
class _AttentionPool(nn.Module):
    """What the mean of all pixels, as one more pixel, attends to; qkv as (3, heads, d)."""

    def __init__(self, config: ADMClassifierConfig) -> None:
        super().__init__()
        c, n = config.channels[-1], (config.side // config.stride) ** 2
        self.n_heads = c // config.head_width
        self.positional_embedding = nn.Parameter(torch.empty(c, n + 1))
        self.qkv_proj = nn.Conv1d(c, 3 * c, 1)
        self.c_proj = nn.Conv1d(c, config.n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        x = torch.cat([x.mean(dim=2, keepdim=True), x], dim=2)
        x = x + self.positional_embedding.to(x.dtype)
        q, k, v = self.qkv_proj(x).unflatten(1, (3, self.n_heads, -1)).mT.unbind(1)
        first = F.scaled_dot_product_attention(q[:, :, :1], k, v).mT.flatten(1, 2)
        out: Tensor = self.c_proj(first)[:, :, 0]
        return out


@final
class _Stage(nn.ModuleList):
    """Layers one after the other, all told the time."""

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, e)
        return x


@final
class ADMClassifier(nn.Module):
    """The classifier ``F(x, t)``: logits of the classes of noisy images ``x`` at times ``t``.

    ``x`` is (batch, 3, side, side) in the variance-preserving form; ``t`` (batch,) are its times.

    >>> config = ADMClassifierConfig(32, (32, 64), 1, (False, True), n_classes=5, side=16)
    >>> ADMClassifier(config)(torch.zeros(2, 3, 16, 16), torch.zeros(2)).shape
    torch.Size([2, 5])
    """

    def __init__(self, config: ADMClassifierConfig) -> None:
        super().__init__()
        self.config = config
        w, c = config.width, config.channels[0]
        self.time_embed = nn.Sequential(nn.Linear(w, 4 * w), nn.SiLU(), nn.Linear(4 * w, 4 * w))
        self.input_blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(3, c, 3, padding=1))])
        for level, width in enumerate(config.channels):
            for _ in range(config.blocks):
                stage = _Stage([_Residual(c, width, config)])
                if config.attention[level]:
                    stage.append(_Attention(width, config.head_width))
                self.input_blocks.append(stage)
                c = width
            if level < len(config.channels) - 1:
                self.input_blocks.append(_Stage([_Residual(c, c, config, halves=True)]))
        middle = _Residual(c, c, config), _Attention(c, config.head_width), _Residual(c, c, config)
        self.middle_block = _Stage(middle)
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, c), nn.SiLU(), _AttentionPool(config))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return logits (batch, classes); raise ShapeError where ``x`` is of another size."""
        side = self.config.side
        if x.ndim != 4 or x.shape[1:] != (3, side, side):
            raise ShapeError(
                f"images of shape {tuple(x.shape)}", expected=f"(batch, 3, {side}, {side})"
            )
        e = self.time_embed(time_encoding(t, self.config.width))
        h = self.input_blocks[0](x)
        for stage in self.input_blocks[1:]:
            h = stage(h, e)
        out: Tensor = self.out(self.middle_block(h, e))
        return out
