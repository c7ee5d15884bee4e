"""The pieces of the SR3 network: BigGAN's residual block, self-attention, the embeddings.

References: BigGAN, arXiv 1809.11096, appendix B; the skips' 1/√2 as in StyleGAN 2 and
arXiv 2011.13456, appendix H; FiLM, arXiv 1709.07871.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn

_N_FREQUENCIES = 32
_HIGHEST_FREQUENCY = 100.0
_MOST_GROUPS = 32
_FEWEST_IN_A_GROUP = 4

Resampling: TypeAlias = Literal["keep", "halve", "double"]


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm of up to 32 groups, of at least 4 channels where that can be.

    New blocks add nothing and divide by √2, so features shrink along a new network; hence the
    small epsilon.

    >>> [group_norm(c).num_groups for c in (512, 96, 16, 5)]
    [32, 16, 4, 1]
    """
    groups = math.gcd(_MOST_GROUPS, channels)
    while groups > 1 and channels // groups < _FEWEST_IN_A_GROUP:
        groups //= 2
    return nn.GroupNorm(groups, channels, eps=1e-6)


def resample(x: Tensor, resampling: Resampling) -> Tensor:
    """Halve the sides by averaging squares of pixels, double them by repeating, or keep them.

    >>> resample(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]), "halve")
    tensor([[[[3.]]]])
    """
    if resampling == "halve":
        return nn.functional.avg_pool2d(x, 2)
    if resampling == "double":
        return nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    return x


@final
class LevelEmbedding(nn.Module):
    """Sines and cosines of the noise level at 32 frequencies from 1 to 100, and two layers.

    A class, where there are ``n_classes``, adds a vector of its own between the layers. One more
    vector, the last, stands for "no class".
    """

    freq: Tensor

    def __init__(self, embedding: int, n_classes: int | None) -> None:
        super().__init__()
        self.register_buffer("freq", frequencies())
        self.first = nn.Linear(2 * _N_FREQUENCIES, embedding)
        self.second = nn.Linear(embedding, embedding)
        self.classes = None if n_classes is None else nn.Embedding(n_classes + 1, embedding)

    def forward(self, level: Tensor, label: Tensor | None) -> Tensor:
        """Return (batch, embedding) for the ``level`` and the ``label`` of shape (batch,)."""
        # Sines of large phases need float32 even where the layers compute in bfloat16.
        phase = level.float()[:, None] * self.freq.float()
        waves = torch.cat([phase.sin(), phase.cos()], dim=1).to(self.first.weight.dtype)
        e = self.first(waves)
        if self.classes is not None:
            if label is None:
                label = level.new_full((len(level),), self.classes.num_embeddings - 1).long()
            e = e + self.classes(label)
        return nn.functional.silu(self.second(nn.functional.silu(e)))


def frequencies() -> Tensor:
    """Return the 32 frequencies, from 1 to 100 in equal ratios."""
    # On the CPU even in a network without memory: to compute on "meta" torch imports for seconds.
    logs = torch.linspace(0.0, math.log(_HIGHEST_FREQUENCY), _N_FREQUENCIES, device="cpu")
    return torch.exp(logs)


@final
class ResBlock(nn.Module):
    """BigGAN's block: two convolutions beside a skip, and a change of size ``R`` on both ways.

    ``h = conv1(R silu(norm1(x))) + emb(e)``,  ``h = conv2(drop(silu(norm2(h))))``,
    ``out = (skip(R x) + h) / √2``, where the division keeps the variance of the sum.

    With ``guide_width`` a guide at the block's size turns ``norm2(h)`` into
    ``(1 + scale) norm2(h) + shift``, with a scale and a shift for every channel and pixel.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        embedding: int,
        *,
        resampling: Resampling = "keep",
        dropout: float = 0.0,
        guide_width: int = 0,
    ) -> None:
        super().__init__()
        self.resampling: Resampling = resampling
        self.norm1 = group_norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.emb = nn.Linear(embedding, c_out)
        self.film = nn.Conv2d(guide_width, 2 * c_out, 1) if guide_width else None
        self.norm2 = group_norm(c_out)
        self.drop = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, e: Tensor, guide: Tensor | None = None) -> Tensor:
        """Return (batch, c_out, height, width) for ``x`` and the ``e`` of (batch, embedding).

        ``guide`` of (batch, guide_width, height, width) has the size of the result.
        """
        h = self.conv1(resample(nn.functional.silu(self.norm1(x)), self.resampling))
        h = self.norm2(h + self.emb(e)[:, :, None, None])
        if self.film is not None:
            scale, shift = self.film(guide).chunk(2, dim=1)
            h = (1 + scale) * h + shift
        h = self.conv2(self.drop(nn.functional.silu(h)))
        out: Tensor = self.skip(resample(x, self.resampling)) + h
        return out * math.sqrt(0.5)

    def last_layers(self) -> list[nn.Module]:
        """Return the layers that begin at 0."""
        return [self.conv2] if self.film is None else [self.conv2, self.film]


@final
class SelfAttention(nn.Module):
    """Every pixel looks at every pixel:  ``out = (x + proj(softmax(q kᵀ / √d) v)) / √2``.

    The heads are of ``head_width`` channels where that divides the width; else there is one.
    """

    def __init__(self, channels: int, head_width: int) -> None:
        super().__init__()
        self.heads = channels // head_width if channels % head_width == 0 else 1
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the shape of ``x``, (batch, channels, height, width)."""
        batch, channels, height, width = x.shape
        # On channels-last tensors this flattening copies nothing.
        pixels = self.norm(x).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        qkv = self.qkv(pixels).unflatten(2, (3, self.heads, channels // self.heads))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, pixels, width of a head)
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        h = self.proj(seen.transpose(1, 2).reshape(batch, height * width, channels))
        out: Tensor = x + h.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        return out * math.sqrt(0.5)


@final
class Stage(nn.Module):
    """A residual block at a level (``factor`` of downsampling), and attention after it or not."""

    def __init__(self, res: ResBlock, attention: SelfAttention | None, factor: int) -> None:
        super().__init__()
        self.res = res
        self.attention = attention
        self.factor = factor

    def forward(self, x: Tensor, e: Tensor, guide: Tensor | None) -> Tensor:
        """Return the block's answer, attended to."""
        h: Tensor = self.res(x, e, guide)
        return h if self.attention is None else self.attention(h)


@final
class Guide(nn.Module):
    """The condition at every level: convolved, then halved and convolved again."""

    def __init__(self, channels: int, width: int, n_levels: int) -> None:
        super().__init__()
        widths = [channels, *[width] * n_levels]
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 3, padding=1) for c_in, c_out in pairwise(widths)
        )

    def forward(self, condition: Tensor) -> dict[int, Tensor]:
        """Return one guide (batch, width, height / factor, width / factor) for each factor."""
        guides: dict[int, Tensor] = {}
        h = condition
        for level, conv in enumerate(self.convs):
            h = nn.functional.silu(conv(resample(h, "halve") if level else h))
            guides[1 << level] = h
        return guides
