"""The network of SR3: DDPM's U-Net with BigGAN's residual blocks.

It predicts something about ``x_0`` from a noisy image, a noise level and (for super-resolution) a
condition: the low-resolution image enlarged to the size of ``x_t``. Without a condition it is a
generator, with a condition in the place of ``x_t`` the regression baseline.

Reference: *Image Super-Resolution via Iterative Refinement*, arXiv 2104.07636, section 2.3 and
appendix A.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sfumato.errors import ShapeError
from sfumato.nn.memory import given_memory
from sfumato.nn.sr3_blocks import (
    Guide,
    LevelEmbedding,
    Resampling,
    ResBlock,
    SelfAttention,
    Stage,
    frequencies,
    group_norm,
)
from sfumato.nn.sr3_config import PRESETS, SR3Config

__all__ = ["PRESETS", "SR3", "SR3Config", "seeded_sr3"]


@final
class SR3(nn.Module):
    """The network ``F(x_t, level, condition, label)``, of the shape of ``x_t``.

    ``level`` of shape (batch,) holds numbers of order 1 that stand for the noise, as for ``UNet``.
    Sides must be multiples of ``config.stride``; a network trained on one size takes all others.

    With ``checkpointing`` the features inside the blocks are computed again for the gradient
    instead of kept: about a third more time, a small part of the memory, the same gradients. It
    may be set at any time.

    A new network answers 0. It has torch's own random weights; ``seeded_sr3`` gives one whose
    weights are a function of a seed.

    >>> net = SR3(PRESETS["tiny"])
    >>> x_t = condition = torch.zeros(1, 3, 8, 12)
    >>> net(x_t, torch.zeros(1), condition).shape
    torch.Size([1, 3, 8, 12])
    """

    def __init__(self, config: SR3Config, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = checkpointing
        first, coarsest = config.channels[0], config.channels[-1]
        self.emb = LevelEmbedding(config.embedding, config.n_classes)
        self.guide = _guide(config)
        joined = self.guide is None
        self.head = nn.Conv2d(
            config.channels_in if joined else config.channels_out, first, 3, 1, 1
        )
        self.down, kept = _way_down(config)
        self.mid = nn.ModuleList(
            _stage(config, coarsest, coarsest, config.stride, attended=attended)
            for attended in (True, False)
        )
        self.up = _way_up(config, kept)
        self.tail = nn.Sequential(
            group_norm(first), nn.SiLU(), nn.Conv2d(first, config.channels_out, 3, padding=1)
        )
        self._silence_outputs()

    def forward(
        self,
        x: Tensor,
        level: Tensor,
        condition: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """Return ``F`` of the shape of ``x``, (batch, channels_out, height, width).

        ``condition`` of (batch, condition_channels, height, width) is needed where there are such
        channels; ``label`` of (batch,) holds whole numbers below ``n_classes``, or ``n_classes``
        itself for "no class", which is also what None means. Raises ShapeError.
        """
        self._check(x, condition, label)
        e = self.emb(level, label)
        guides: dict[int, Tensor] = {}
        if self.guide is not None:
            guides = self.guide(condition)
        elif condition is not None:
            x = torch.cat([condition, x], dim=1)
        h = self.head(x)
        kept = [h]
        for stage in _stages(self.down):
            h = self._run(stage, h, e, guides)
            kept.append(h)
        for stage in _stages(self.mid):
            h = self._run(stage, h, e, guides)
        for stage in _stages(self.up):
            if stage.res.resampling == "keep":
                h = torch.cat([h, kept.pop()], dim=1)
            h = self._run(stage, h, e, guides)
        out: Tensor = self.tail(h)
        return out

    def reset(self, generator: torch.Generator) -> None:
        """Draw all weights anew: of variance 1/fan_in; biases and the last layers 0, gains 1."""
        with torch.no_grad():
            self.emb.freq.copy_(frequencies())
        for layer in self.modules():
            if isinstance(layer, nn.GroupNorm):
                layer.reset_parameters()
            elif isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, generator=generator)
            elif isinstance(layer, nn.Conv2d | nn.Linear):
                bound = math.sqrt(3 / layer.weight[0].numel())
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self._silence_outputs()

    def _run(self, stage: Stage, h: Tensor, e: Tensor, guides: dict[int, Tensor]) -> Tensor:
        """Evaluate a stage, keeping its inner features for the gradient or not."""
        guide = guides.get(stage.factor)
        if self.checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(stage, h, e, guide, use_reentrant=False)
        else:
            out = stage(h, e, guide)
        return out

    def _check(self, x: Tensor, condition: Tensor | None, label: Tensor | None) -> None:
        config = self.config
        if x.ndim != 4 or x.shape[1] != config.channels_out or 0 in x.shape:
            raise ShapeError(
                f"x of shape {tuple(x.shape)}",
                expected=f"(batch, {config.channels_out}, height, width)",
            )
        if x.shape[2] % config.stride or x.shape[3] % config.stride:
            raise ShapeError(
                f"an image of {x.shape[2]} x {x.shape[3]} pixels",
                expected=f"multiples of {config.stride}",
                do="mirror it up to them and cut the answer",
            )
        needed = (len(x), config.condition_channels, *x.shape[2:])
        if condition is None and config.condition_channels:
            raise ShapeError("no condition", expected=f"one of shape {needed}")
        if condition is not None and tuple(condition.shape) != needed:
            raise ShapeError(
                f"a condition of shape {tuple(condition.shape)}",
                expected=f"shape {needed}" if config.condition_channels else "none at all",
            )
        if label is not None and (config.n_classes is None or label.shape != (len(x),)):
            raise ShapeError(
                f"labels of shape {tuple(label.shape)}",
                expected=f"shape ({len(x)},)"
                if config.n_classes
                else "none: there are no classes",
            )

    def _silence_outputs(self) -> None:
        """Set the last layers of the blocks and of the network to 0: a new block is its skip."""
        last: list[nn.Module] = [self.tail[-1]]
        for layer in self.modules():
            if isinstance(layer, ResBlock):
                last.extend(layer.last_layers())
            elif isinstance(layer, SelfAttention):
                last.append(layer.proj)
        for layer in last:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)


def seeded_sr3(config: SR3Config, seed: int, *, checkpointing: bool = False) -> SR3:
    """Return a network whose weights are a function of ``seed``, leaving torch's own seed alone.

    >>> a, b = (seeded_sr3(PRESETS["tiny"], seed=1) for _ in range(2))
    >>> torch.equal(a.head.weight, b.head.weight)
    True
    """
    with torch.device("meta"):
        net = SR3(config, checkpointing=checkpointing)
    net = given_memory(net)
    net.reset(torch.Generator().manual_seed(seed))
    return net


def _stages(layers: nn.ModuleList) -> list[Stage]:
    """Return the stages with their type, which a ModuleList forgets."""
    return [layer for layer in layers if isinstance(layer, Stage)]


def _guide(config: SR3Config) -> Guide | None:
    """Return what carries the condition to every level, where it does not simply join ``x_t``."""
    if config.entrance == "concatenation" or not config.condition_channels:
        return None
    return Guide(config.condition_channels, config.channels[0], len(config.channels))


def _stage(
    config: SR3Config,
    c_in: int,
    c_out: int,
    factor: int,
    *,
    resampling: Resampling = "keep",
    attended: bool = False,
) -> Stage:
    """Return a block whose result has the downsampling ``factor``."""
    guided = config.entrance == "film" and config.condition_channels > 0
    res = ResBlock(
        c_in,
        c_out,
        config.embedding,
        resampling=resampling,
        dropout=config.dropout,
        guide_width=config.channels[0] if guided else 0,
    )
    return Stage(res, SelfAttention(c_out, config.head_width) if attended else None, factor)


def _way_down(config: SR3Config) -> tuple[nn.ModuleList, list[int]]:
    """Return the stages down, and the widths of everything that the way up takes back."""
    stages, width = nn.ModuleList(), config.channels[0]
    kept = [width]
    for factor, c in config.widths():
        if factor > 1:
            stages.append(_stage(config, width, width, factor, resampling="halve"))
            kept.append(width)
        for _ in range(config.blocks):
            stages.append(_stage(config, width, c, factor, attended=factor in config.attention))
            width = c
            kept.append(width)
    return stages, kept


def _way_up(config: SR3Config, kept: list[int]) -> nn.ModuleList:
    """Return the stages up, which take the ``kept`` widths from the last to the first."""
    stages, width, kept = nn.ModuleList(), config.channels[-1], list(kept)
    for factor, c in reversed(config.widths()):
        for _ in range(config.blocks + 1):
            attended = factor in config.attention
            stages.append(_stage(config, width + kept.pop(), c, factor, attended=attended))
            width = c
        if factor > 1:
            stages.append(_stage(config, width, width, factor // 2, resampling="double"))
    return stages
