"""A larger network that begins as a smaller one: training goes on instead of beginning anew."""

from __future__ import annotations

from dataclasses import replace
from typing import cast, final

import torch
from torch import Tensor, nn

from sfumato.errors import SettingsError
from sfumato.nn.unet import PixelNorm, ResBlock, UNet, UNetConfig, seeded_unet

#: Of the size of a weight: noise on those that make copies of a channel, which tells them apart.
_APART = 0.02


def widened(net: UNet, channels: tuple[int, ...], seed: int = 0) -> UNet:
    """Return a network of the widths ``channels`` that computes nearly what ``net`` does.

    A level of ``n`` channels gets ``m ≥ n``: its channel ``i`` is a copy of the old ``i mod n``,
    and what reads ``k`` copies weighs each by ``1 / k``. Where all levels grow by one whole factor
    the layer norms see the mean and variance they saw; elsewhere nearly. Copies would learn the
    same for ever: 2 % of noise, a function of ``seed``, is added to the weights that make them.

    Raises SettingsError where a level would become narrower, the number of levels differs, or a
    block would lose its skip convolution, as neighbouring levels become equally wide.

    Source: T. Chen, I. Goodfellow, J. Shlens, Net2Net (2015).

    >>> from sfumato.nn import seeded_unet
    >>> net = seeded_unet(UNetConfig(channels=(4, 8), blocks=1, embedding=8), 0)
    >>> widened(net, (8, 16)).config.channels
    (8, 16)
    """
    old = net.config
    new = replace(old, channels=channels)
    pairs = list(zip(old.channels, channels, strict=False))
    if len(channels) != len(old.channels) or any(m < n for n, m in pairs):
        raise SettingsError(
            f"widths {channels} from {old.channels}", expected="as many levels, none narrower"
        )
    if _skips(old) != _skips(new):
        raise SettingsError(f"widths {channels}", do="give neighbouring levels different widths")
    wide = UNet(new)
    with torch.no_grad():
        _Copy(net, wide, seed).run([torch.arange(m) % n for n, m in pairs])
        if net.linear is not None and wide.linear is not None:
            wide.linear.load_state_dict(net.linear.state_dict())
    return wide


def with_linear_path(net: UNet, channels: int, seed: int = 0) -> UNet:
    """Return a network with a linear path of ``channels`` that computes what ``net`` does.

    What has such a path keeps it, and so does what has none where ``channels`` is 0. Raises
    SettingsError where ``net`` has another one.

    >>> from sfumato.nn import seeded_unet
    >>> net = seeded_unet(UNetConfig(channels=(4, 8), blocks=1, embedding=8), 0)
    >>> x, level = torch.rand(1, 3, 8, 8), torch.zeros(1)
    >>> torch.equal(with_linear_path(net, 4)(x, level), net(x, level))
    True
    """
    if channels in (0, net.config.linear):
        return net
    if net.config.linear:
        raise SettingsError(
            f"a linear path of {channels} channels for a network that has one of "
            f"{net.config.linear}",
            do="leave linear out of the recipe",
        )
    new = seeded_unet(replace(net.config, linear=channels), seed)
    new.load_state_dict(new.state_dict() | net.state_dict())
    return new


def _skips(config: UNetConfig) -> list[bool]:
    """Say of each block whether it has a skip convolution."""
    with torch.device("meta"):
        blocks = [layer for layer in UNet(config).modules() if isinstance(layer, ResBlock)]
    return [isinstance(block.skip, nn.Conv2d) for block in blocks]


@final
class _Copy:
    """Goes through both networks as ``forward`` does; ``here`` says which old channel each is."""

    def __init__(self, old: UNet, new: UNet, seed: int) -> None:
        self._old, self._new = old, new
        self._g = torch.Generator().manual_seed(seed)

    def run(self, of: list[Tensor]) -> None:
        """Fill the new network; ``of`` holds a map for each level, from the finest on."""
        old, new = self._old, self._new
        new.emb.load_state_dict(old.emb.state_dict())
        new.freq.copy_(old.freq)
        here = self._fill(old.head, new.head, torch.arange(old.head.in_channels), of[0])
        kept = [here]
        n = old.config.blocks
        for k, (a, b) in enumerate(zip(old.down, new.down, strict=True)):
            here = self._layer(a, b, here, of[k // (n + 1)])
            kept.append(here)
        for a, b in zip(old.mid, new.mid, strict=True):
            here = self._layer(a, b, here, of[-1])
        for k, (a, b) in enumerate(zip(old.up, new.up, strict=True)):
            if isinstance(a, ResBlock):
                here = torch.cat([here, kept.pop() + here.max() + 1])
            here = self._layer(a, b, here, of[len(of) - 1 - k // (n + 2)])
        norm, _, conv = cast("tuple[PixelNorm, nn.SiLU, nn.Conv2d]", tuple(old.tail))
        cast("PixelNorm", new.tail[0]).weight.copy_(norm.weight[here])
        self._fill(conv, new.tail[2], here, torch.arange(conv.out_channels))

    def _layer(self, a: nn.Module, b: nn.Module, here: Tensor, there: Tensor) -> Tensor:
        """Fill ``b`` from ``a``, which answers with the channels ``there``."""
        if not isinstance(a, ResBlock):
            return self._fill(a, b, here, here)
        b = cast("ResBlock", b)
        b.norm1.weight.copy_(a.norm1.weight[here])
        self._fill(a.conv1, b.conv1, here, there)
        both = torch.cat([there, there + a.conv1.out_channels])
        b.emb.weight.copy_(a.emb.weight[both])
        b.emb.bias.copy_(a.emb.bias[both])
        b.norm2.weight.copy_(a.norm2.weight[there])
        self._fill(a.conv2, b.conv2, there, there)
        if isinstance(a.skip, nn.Conv2d):
            self._fill(a.skip, b.skip, here, there)
        return there

    def _fill(self, a: nn.Module, b: nn.Module, here: Tensor, there: Tensor) -> Tensor:
        """Fill a convolution from channels ``here`` to channels ``there``; return those."""
        a, b = cast("nn.Conv2d", a), cast("nn.Conv2d", b)
        copies = torch.bincount(here)[here]
        w = a.weight[there][:, here] / copies[:, None, None]
        doubled = torch.bincount(there)[there] > 1
        noise = torch.randn(w.shape, generator=self._g) * w.std() * _APART
        b.weight.copy_(w + noise * doubled[:, None, None, None])
        if a.bias is not None and b.bias is not None:
            b.bias.copy_(a.bias[there])
        return there
