"""The U-Net of the best-known public implementation of SR3, so that its checkpoints can be used.

It computes what theirs computes, with their names of the weights; it is not the paper's network
(that is ``SR3``). Where it departs from the paper: the noise level goes in as ``√γ`` without a
scale, blocks change no size (a convolution of stride 2 and a nearest enlargement do), skips are
plain sums, attention has one head.

Reference: github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement (Apache-2.0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from sfumato.errors import SettingsError, ShapeError
from sfumato.nn._checks import check_dropout, check_whole, check_wholes

_LOWEST_FREQUENCY = 1e-4


@final
@dataclass(frozen=True)
class RefinementConfig:
    """The form of a network of theirs, which decides the names and shapes of its weights.

    - ``width``, ``multipliers``: the width of each level is ``width`` times its multiplier.
    - ``blocks``: the residual blocks of a level on the way down (one more on the way up).
    - ``attention``: at which sides there is attention, counted from ``image_size`` and halved from
      level to level. Only the count matters: a picture of another size is attended at the same
      levels.
    - ``groups``: of every group norm; each width must be a multiple.
    - ``channels_in``, ``channels_out``: 6 and 3 with a condition, 3 and 3 without.

    Raises SettingsError where values are impossible.

    >>> RefinementConfig(multipliers=(1, 2, 4)).stride
    4
    """

    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4, 8, 8)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    groups: int = 32
    dropout: float = 0.0
    image_size: int = 128
    channels_in: int = 6
    channels_out: int = 3

    def __post_init__(self) -> None:
        check_whole("width", self.width, 1, 4096)
        check_wholes("multipliers", self.multipliers, 1, 12, 1024)
        check_whole("blocks", self.blocks, 1, 32)
        check_wholes("attention", self.attention, 0, 64, 1 << 20)
        check_whole("groups", self.groups, 1, 4096)
        check_dropout(self.dropout)
        check_whole("image_size", self.image_size, 1, 1 << 20)
        check_whole("channels_out", self.channels_out, 1, 1024)
        check_whole("channels_in", self.channels_in, self.channels_out, 2048)
        if self.width % 2:
            raise SettingsError(f"width = {self.width}", expected="an even number")
        odd = [w for w in (self.width, *self.widths) if w % self.groups]
        if odd:
            raise SettingsError(
                f"levels of {odd} channels", expected=f"multiples of the {self.groups} groups"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each level, from the finest."""
        return tuple(self.width * m for m in self.multipliers)

    @property
    def stride(self) -> int:
        """The number that both sides of an input must be multiples of."""
        return 1 << (len(self.multipliers) - 1)

    @property
    def condition_channels(self) -> int:
        """The channels of the condition; 0 where there is none."""
        return self.channels_in - self.channels_out

    def attended(self) -> tuple[list[bool], list[bool]]:
        """Whether each level has attention on the way down, and on the way up; finest first.

        Sides are halved downwards and doubled upwards, so that an odd side is not found again:

        >>> RefinementConfig(multipliers=(1, 2, 4), attention=(25,), image_size=50).attended()
        ([False, True, False], [False, False, False])
        """
        down = [self.image_size >> level for level in range(len(self.multipliers))]
        up = [down[-1] << level for level in reversed(range(len(self.multipliers)))]
        return [s in self.attention for s in down], [s in self.attention for s in up]


@final
class _Encoding(nn.Module):
    """Sines, then cosines, of ``level · 10^(−4 k / n)`` for k from 0 to n − 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.n = width // 2

    def forward(self, level: Tensor) -> Tensor:
        k = torch.arange(self.n, dtype=level.dtype, device=level.device)
        phase = level[:, None] * torch.exp(math.log(_LOWEST_FREQUENCY) * k / self.n)
        return torch.cat([phase.sin(), phase.cos()], dim=1)


@final
class RefinementNet(nn.Module):
    """``RefinementUNet`` by this project's convention, to be trained: ``F(x, level, condition)``.

    ``level`` is ``ln(σ)/4``, of which theirs is told ``√γ = 1/√(1 + σ²)``; the condition comes
    before the image, as in theirs.
    """

    def __init__(self, config: RefinementConfig) -> None:
        super().__init__()
        self.config = config
        self.net = RefinementUNet(config)

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the noise in ``x`` = ``√γ x_t``, of its shape."""
        sigma = (4 * level.float()).exp()
        both = x if condition is None else torch.cat([condition, x], dim=1)
        out: Tensor = self.net(both, (sigma.square() + 1).rsqrt())
        return out

    def reset(self, generator: torch.Generator) -> None:
        """Draw all weights anew: orthogonal, as theirs, but by a seed; biases 0, gains 1."""
        for layer in self.modules():
            if isinstance(layer, nn.GroupNorm):
                layer.reset_parameters()
            elif isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(layer.weight, generator=generator)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def _half(c_in: int, c_out: int, groups: int, dropout: float = 0.0) -> nn.ModuleDict:
    """Return norm, SiLU, dropout and convolution, under the name that theirs has."""
    layers = nn.GroupNorm(groups, c_in), nn.SiLU(), nn.Dropout(dropout)
    return nn.ModuleDict({"block": nn.Sequential(*layers, nn.Conv2d(c_in, c_out, 3, padding=1))})


@final
class _Residual(nn.Module):
    """``h = block1(x) + noise(e)``,  ``out = block2(h) + res_conv(x)``."""

    def __init__(self, c_in: int, c_out: int, config: RefinementConfig) -> None:
        super().__init__()
        noise = nn.Sequential(nn.Linear(config.width, c_out))
        self.noise_func = nn.ModuleDict({"noise_func": noise})
        self.block1 = _half(c_in, c_out, config.groups)
        self.block2 = _half(c_out, c_out, config.groups, config.dropout)
        self.res_conv = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.block1["block"](x) + self.noise_func["noise_func"](e)[:, :, None, None]
        out: Tensor = self.block2["block"](h) + self.res_conv(x)
        return out


@final
class _Attention(nn.Module):
    """``x + out(softmax(q kᵀ / √c) v)`` over all pixels, in one head of all ``c`` channels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.qkv(self.norm(x)).flatten(2).mT[:, None]
        q, k, v = pixels.chunk(3, dim=3)
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.out(seen[:, 0].mT.unflatten(2, x.shape[2:]))
        return out


@final
class _Stage(nn.Module):
    """A residual block, and attention after it or not."""

    def __init__(self, c_in: int, c_out: int, config: RefinementConfig, attended: bool) -> None:
        super().__init__()
        self.res_block = _Residual(c_in, c_out, config)
        self.attn = _Attention(c_out, config.groups) if attended else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        out: Tensor = self.attn(self.res_block(x, e))
        return out


@final
class _Resize(nn.Module):
    """Half the sides by a convolution of stride 2, or twice by repeating and convolving."""

    def __init__(self, channels: int, *, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if halve else 1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.halve:
            x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
        out: Tensor = self.conv(x)
        return out


@final
class RefinementUNet(nn.Module):
    """Their network ``F(x, level)``: the noise in ``y_t``, from the condition and ``y_t`` joined.

    ``x`` is (batch, channels_in, height, width), the condition's channels first; ``level`` of
    shape (batch,) is ``√γ``, the share of the picture in ``y_t``. Sides must be multiples of
    ``config.stride``. The answer has ``channels_out`` channels.

    >>> config = RefinementConfig(width=4, multipliers=(1, 2), blocks=1, groups=2)
    >>> RefinementUNet(config)(torch.zeros(1, 6, 4, 8), torch.ones(1)).shape
    torch.Size([1, 3, 4, 8])
    """

    def __init__(self, config: RefinementConfig) -> None:
        super().__init__()
        self.config = config
        width, coarsest = config.width, config.widths[-1]
        self.noise_level_mlp = nn.Sequential(
            _Encoding(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )
        self.downs, kept = _way_down(config)
        self.mid = nn.ModuleList(
            _Stage(coarsest, coarsest, config, attended) for attended in (True, False)
        )
        self.ups = _way_up(config, kept)
        self.final_conv = _half(config.widths[0], config.channels_out, config.groups)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Return the estimated noise; raise ShapeError where ``x`` does not fit."""
        self._check(x)
        e = self.noise_level_mlp(level)
        h, kept = x, []
        for layer in self.downs:
            h = layer(h, e) if isinstance(layer, _Stage) else layer(h)
            kept.append(h)
        for layer in self.mid:
            h = layer(h, e)
        for layer in self.ups:
            stage = isinstance(layer, _Stage)
            h = layer(torch.cat([h, kept.pop()], dim=1), e) if stage else layer(h)
        out: Tensor = self.final_conv["block"](h)
        return out

    def _check(self, x: Tensor) -> None:
        c, stride = self.config.channels_in, self.config.stride
        fits = x.ndim == 4 and x.shape[1] == c and 0 not in x.shape
        if not fits or x.shape[2] % stride or x.shape[3] % stride:
            raise ShapeError(
                f"an input of shape {tuple(x.shape)}",
                expected=f"(batch, {c}, height, width) with sides that are multiples of {stride}",
            )


def _way_down(config: RefinementConfig) -> tuple[nn.ModuleList, list[int]]:
    """Return the layers down, and the widths of everything that the way up takes back."""
    layers = nn.ModuleList([nn.Conv2d(config.channels_in, config.width, 3, padding=1)])
    kept = [config.width]
    attended, _ = config.attended()
    for level, c in enumerate(config.widths):
        if level:
            layers.append(_Resize(kept[-1], halve=True))
            kept.append(kept[-1])
        for _ in range(config.blocks):
            layers.append(_Stage(kept[-1], c, config, attended[level]))
            kept.append(c)
    return layers, kept


def _way_up(config: RefinementConfig, kept: list[int]) -> nn.ModuleList:
    """Return the layers up, which take the ``kept`` widths from the last to the first."""
    layers, width, kept = nn.ModuleList(), config.widths[-1], list(kept)
    _, attended = config.attended()
    for level, c in reversed(list(enumerate(config.widths))):
        for _ in range(config.blocks + 1):
            layers.append(_Stage(width + kept.pop(), c, config, attended[level]))
            width = c
        if level:
            layers.append(_Resize(width, halve=False))
    return layers
