"""Random checkpoints in the published layout of guided-diffusion (ADM), of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_COLOURS = 3


def adm_state_dict(
    *,
    width: int = 32,
    mult: Sequence[float] = (1, 2),
    blocks: int = 1,
    attention: Sequence[int] = (2,),
    n_classes: int | None = None,
    learn_sigma: bool = True,
    scale_shift: bool = True,
    updown: bool = True,
    classifier_cells: int = 0,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return a state dict as their training writes it, its weights a function of ``seed``.

    ``mult`` and ``blocks`` are their ``channel_mult`` and ``num_res_blocks``; ``attention`` lists
    the factors of size at which there is attention, as their ``attention_resolutions``. With
    ``classifier_cells``, the side of its last level, it is a classifier.

    >>> state = adm_state_dict(width=32, mult=(1,), attention=())
    >>> state["out.2.weight"].shape
    torch.Size([6, 32, 3, 3])
    """
    maker = _Maker(width, scale_shift, seed)
    maker.linear("time_embed.0", 4 * width, width)
    maker.linear("time_embed.2", 4 * width, 4 * width)
    if n_classes and not classifier_cells:
        maker.state["label_emb.weight"] = maker.normal(n_classes, 4 * width)
    c = int(mult[0] * width)
    maker.linear("input_blocks.0.0", c, _COLOURS, 3, 3)
    skips, i = [c], 1
    for level, m in enumerate(mult):
        for _ in range(blocks):
            maker.block(f"input_blocks.{i}", c, int(m * width), 2**level in attention)
            c, i = int(m * width), i + 1
            skips.append(c)
        if level + 1 < len(mult):
            maker.resize(f"input_blocks.{i}.0", c, "op", updown)
            skips.append(c)
            i += 1
    maker.residual("middle_block.0", c, c)
    maker.attention("middle_block.1", c)
    maker.residual("middle_block.2", c, c)
    if classifier_cells:
        maker.norm("out.0", c)
        maker.state["out.2.positional_embedding"] = maker.normal(c, classifier_cells**2 + 1)
        maker.linear("out.2.qkv_proj", 3 * c, c, 1)
        maker.linear("out.2.c_proj", n_classes or 10, c, 1)
        return maker.state
    i = 0
    for level, m in reversed(list(enumerate(mult))):
        for k in range(blocks + 1):
            attends = 2**level in attention
            maker.block(f"output_blocks.{i}", c + skips.pop(), int(m * width), attends)
            c = int(m * width)
            if level and k == blocks:
                maker.resize(f"output_blocks.{i}.{2 if attends else 1}", c, "conv", updown)
            i += 1
    maker.norm("out.0", c)
    maker.linear("out.2", 2 * _COLOURS if learn_sigma else _COLOURS, c, 3, 3)
    return maker.state


class _Maker:
    """Fills a state dict with random weights that keep activations of about unit size."""

    def __init__(self, width: int, scale_shift: bool, seed: int) -> None:
        self.width, self.scale_shift = width, scale_shift
        self.generator = torch.Generator().manual_seed(seed)
        self.state: dict[str, Tensor] = {}

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def linear(self, name: str, *shape: int) -> None:
        fan_in = math.prod(shape[1:])
        self.state[f"{name}.weight"] = self.normal(*shape) * fan_in**-0.5
        self.state[f"{name}.bias"] = 0.1 * self.normal(shape[0])

    def norm(self, name: str, c: int) -> None:
        self.state[f"{name}.weight"] = 1 + 0.1 * self.normal(c)
        self.state[f"{name}.bias"] = 0.1 * self.normal(c)

    def block(self, name: str, c: int, c_out: int, attends: bool) -> None:
        self.residual(f"{name}.0", c, c_out)
        if attends:
            self.attention(f"{name}.1", c_out)

    def residual(self, name: str, c: int, c_out: int) -> None:
        self.norm(f"{name}.in_layers.0", c)
        self.linear(f"{name}.in_layers.2", c_out, c, 3, 3)
        self.linear(f"{name}.emb_layers.1", c_out * (2 if self.scale_shift else 1), 4 * self.width)
        self.norm(f"{name}.out_layers.0", c_out)
        self.linear(f"{name}.out_layers.3", c_out, c_out, 3, 3)
        if c != c_out:
            self.linear(f"{name}.skip_connection", c_out, c, 1, 1)

    def attention(self, name: str, c: int) -> None:
        self.norm(f"{name}.norm", c)
        self.linear(f"{name}.qkv", 3 * c, c, 1)
        self.linear(f"{name}.proj_out", c, c, 1)

    def resize(self, name: str, c: int, convolution: str, updown: bool) -> None:
        if updown:
            self.residual(name, c, c)
        else:
            self.linear(f"{name}.{convolution}", c, c, 3, 3)
