"""A residual U-Net behind pixel-unshuffle.

The picture is first folded (``unshuffle`` squared pixels become channels), so that nothing is
computed at the full resolution. Every level has ``blocks`` residual blocks and halves the sides;
the way up takes back what the way down has kept. Nothing averages over space, so that a pixel's
answer depends on the tile it came in only where the convolutions see the tile's border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from sfumato.errors import SettingsError
from sfumato.nn.memory import given_memory

_N_FREQUENCIES = 32
_HIGHEST_FREQUENCY = 100.0
_COLOURS = 3
#: Side of the two filters of a linear path.
_TAPS = 5


@final
@dataclass(frozen=True)
class UNetConfig:
    """The form of a network, which decides the names and shapes of its weights.

    ``channels`` holds one width a level, from the finest to the coarsest; ``blocks`` counts the
    residual blocks of a level on the way down; ``unshuffle`` is the side of the square of pixels
    that is folded into channels; ``embedding`` is the width of the noise level's embedding;
    ``inputs`` counts the channels of an input, 6 where a condition stands beside the image;
    ``linear`` those of a linear path from the input to the output, past the norms (0: none).

    Raises SettingsError where a value is no whole number or out of range.

    >>> UNetConfig(channels=(8, 16)).stride
    4
    """

    channels: tuple[int, ...] = (32, 64, 128, 192)
    blocks: int = 2
    unshuffle: int = 2
    embedding: int = 256
    inputs: int = _COLOURS
    linear: int = 0

    def __post_init__(self) -> None:
        channels: object = self.channels
        if not isinstance(channels, tuple) or not 1 <= len(channels) <= 8:
            raise SettingsError(f"channels {channels!r}", expected="a tuple of 1 to 8 widths")
        for width in channels:
            _check_whole("a width of channels", width, 4096)
        _check_whole("blocks", self.blocks, 16)
        _check_whole("unshuffle", self.unshuffle, 16)
        _check_whole("embedding", self.embedding, 8192)
        _check_whole("inputs", self.inputs, 64)
        _check_whole("linear", self.linear, 1024, least=0)

    @property
    def stride(self) -> int:
        """The number that both sides of an input must be multiples of."""
        return self.unshuffle << (len(self.channels) - 1)


def _check_whole(name: str, value: object, largest: int, *, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= largest:
        raise SettingsError(
            f"{name} = {value!r}", expected=f"a whole number from {least} to {largest}"
        )


@final
class PixelNorm(nn.Module):
    """Layer norm over the channels of each pixel, with a gain: ``w (h − mean) / √(var + 1e-5)``.

    It has no statistics across space, so that tiles of any size agree.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, h: Tensor) -> Tensor:
        """Normalise ``h`` of shape (batch, channels, height, width)."""
        # On channels-last tensors the permutations are free, and on CPU no norm is faster.
        last = h.permute(0, 2, 3, 1)
        last = nn.functional.layer_norm(last, self.weight.shape, self.weight.to(h.dtype))
        return last.permute(0, 3, 1, 2)


@final
class ResBlock(nn.Module):
    """Two convolutions beside a skip; the noise level scales and shifts between them.

    ``h = conv1(silu(norm1(x)))``,  ``h = conv2(silu((1 + scale) norm2(h) + shift))``,
    ``out = (skip(x) + h) / √2``, where the division keeps the variance of the sum.
    """

    def __init__(self, c_in: int, c_out: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = PixelNorm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.emb = nn.Linear(embedding, 2 * c_out)
        self.norm2 = PixelNorm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Return (batch, c_out, height, width) for ``x`` and the ``e`` of (batch, embedding)."""
        scale, shift = self.emb(e)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(nn.functional.silu(self.norm1(x)))
        h = self.conv2(nn.functional.silu(self.norm2(h) * (1 + scale) + shift))
        out: Tensor = (self.skip(x) + h) * math.sqrt(0.5)
        return out


@final
class LinearPath(nn.Module):
    """What the noise level makes of the input by two convolutions: ``V ((1 + scale) U x)``.

    Norms take from each pixel how large its features are, so that a network with one at its end
    learns slowly how much to take away, and never quite. This path is linear in ``x``: a small
    filter for each noise level, on which the network builds. ``V`` is 0 at first.
    """

    def __init__(self, inputs: int, channels: int, embedding: int) -> None:
        super().__init__()
        self.into = nn.Conv2d(inputs, channels, _TAPS, padding=_TAPS // 2, bias=False)
        self.emb = nn.Linear(embedding, channels)
        self.out = nn.Conv2d(channels, _COLOURS, _TAPS, padding=_TAPS // 2, bias=False)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Return (batch, 3, height, width) for ``x`` and the ``e`` of (batch, embedding)."""
        out: Tensor = self.out(self.into(x) * (1 + self.emb(e)[:, :, None, None]))
        return out


@final
class UNet(nn.Module):
    """The network ``F(x, level)``: (batch, inputs, height, width) to RGB of the same size.

    ``level`` of shape (batch,) holds numbers of order 1 that stand for the noise; their sines and
    cosines at 32 frequencies from 1 to 100 are embedded by two linear layers. Sides must be
    multiples of ``config.stride``.

    A new network has torch's own random weights; ``seeded_unet`` gives one whose weights are a
    function of a seed.

    >>> net = UNet(UNetConfig(channels=(4, 8), blocks=1, embedding=8))
    >>> net(torch.zeros(1, 3, 8, 12), torch.zeros(1)).shape
    torch.Size([1, 3, 8, 12])
    """

    freq: Tensor

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UNetConfig()
        width, embedding = config.channels[0], config.embedding
        folded = config.unshuffle**2
        self.emb = nn.Sequential(
            nn.Linear(2 * _N_FREQUENCIES, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
            nn.SiLU(),
        )
        self.register_buffer("freq", _frequencies())
        self.head = nn.Conv2d(folded * config.inputs, width, 3, padding=1)
        self.down, kept = _way_down(config)
        coarsest = config.channels[-1]
        self.mid = nn.ModuleList([ResBlock(coarsest, coarsest, embedding) for _ in range(2)])
        self.up = _way_up(config, kept)
        self.tail = nn.Sequential(
            PixelNorm(width), nn.SiLU(), nn.Conv2d(width, folded * _COLOURS, 3, padding=1)
        )
        self.linear = (
            LinearPath(config.inputs, config.linear, config.embedding) if config.linear else None
        )
        self._silence_outputs()

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return ``F(x, level)`` of the size of ``x``; a condition stands beside it."""
        x = x if condition is None else torch.cat([x, condition], dim=1)
        phase = level[:, None] * self.freq
        e = self.emb(torch.cat([phase.sin(), phase.cos()], dim=1))
        h = self.head(nn.functional.pixel_unshuffle(x, self.config.unshuffle))
        kept = [h]
        for layer in self.down:
            h = layer(h, e) if isinstance(layer, ResBlock) else layer(h)
            kept.append(h)
        for layer in self.mid:
            h = layer(h, e)
        for layer in self.up:
            if isinstance(layer, ResBlock):
                h = layer(torch.cat([h, kept.pop()], dim=1), e)
            else:
                h = layer(nn.functional.interpolate(h, scale_factor=2, mode="nearest"))
        out = nn.functional.pixel_shuffle(self.tail(h), self.config.unshuffle)
        return out if self.linear is None else out + self.linear(x, e)

    def reset(self, generator: torch.Generator) -> None:
        """Draw all weights anew: uniform in ±1/√fan_in, the gains 1, the last layers 0."""
        with torch.no_grad():
            self.freq.copy_(_frequencies())
        for layer in self.modules():
            if isinstance(layer, PixelNorm):
                nn.init.ones_(layer.weight)
            elif isinstance(layer, nn.Conv2d | nn.Linear):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                for parameter in layer.parameters(recurse=False):
                    nn.init.uniform_(parameter, -bound, bound, generator=generator)
        self._silence_outputs()

    def _silence_outputs(self) -> None:
        """Set the last layer of every block and of the network to 0: a new block is its skip."""
        last = [layer.conv2 for layer in self.modules() if isinstance(layer, ResBlock)]
        last += [] if self.linear is None else [self.linear.out]
        for layer in (*last, self.tail[-1]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)


def seeded_unet(config: UNetConfig, seed: int) -> UNet:
    """Return a network whose weights are a function of ``seed``, leaving torch's own seed alone.

    >>> config = UNetConfig(channels=(4,), blocks=1, embedding=8)
    >>> torch.equal(seeded_unet(config, 1).head.weight, seeded_unet(config, 1).head.weight)
    True
    """
    with torch.device("meta"):
        net = UNet(config)
    net = given_memory(net)
    net.reset(torch.Generator().manual_seed(seed))
    return net


def _frequencies() -> Tensor:
    # On the CPU even in a network without memory: to compute on "meta" torch imports for seconds.
    logs = torch.linspace(0.0, math.log(_HIGHEST_FREQUENCY), _N_FREQUENCIES, device="cpu")
    return torch.exp(logs)


def _way_down(config: UNetConfig) -> tuple[nn.ModuleList, list[int]]:
    """Return the layers down, and the widths of everything that the way up takes back."""
    layers, width = nn.ModuleList(), config.channels[0]
    kept = [width]
    for level, c in enumerate(config.channels):
        for _ in range(config.blocks):
            layers.append(ResBlock(width, c, config.embedding))
            width = c
            kept.append(width)
        if level < len(config.channels) - 1:
            layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
            kept.append(width)
    return layers, kept


def _way_up(config: UNetConfig, kept: list[int]) -> nn.ModuleList:
    """Return the layers up, which take the ``kept`` widths from the last to the first."""
    layers, width, kept = nn.ModuleList(), config.channels[-1], list(kept)
    for level, c in reversed(list(enumerate(config.channels))):
        for _ in range(config.blocks + 1):
            layers.append(ResBlock(width + kept.pop(), c, config.embedding))
            width = c
        if level > 0:
            layers.append(nn.Conv2d(width, width, 3, padding=1))
    return layers
