"""U-Nets of guided-diffusion (ADM) as ``UNet2DModel`` of diffusers: an exact conversion.

Only names differ, and the rows of qkv: theirs are (heads, 3, d), those of the three projections
(heads, d) each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from sfumato.diffusion.arithmetic import HALVES
from sfumato.errors import ModelError
from sfumato.nn.adm import GROUPS
from sfumato.zoo.adm_layout import ADMForm
from sfumato.zoo.adm_options import ADMOptions

if TYPE_CHECKING:
    from sfumato.diffusion.arithmetic import Precision

_COLOURS = 3
_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_SELF = {"norm": "group_norm", "proj_out": "to_out.0"}
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "label_emb": "class_embedding",
}
#: Layers that stay in float32, where little time is spent and rounding would be seen.
_EXACT = ("conv_in", "conv_out", "time_embedding", "class_embedding")


@final
class ADMNet(nn.Module):
    """``F(x, t)``: the first three channels of a ``UNet2DModel``; the others are a variance.

    ``x`` is (batch, 3, height, width) with sides in whole strides, ``t`` (batch,) real-valued.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the network's answer, of the shape of ``x``."""
        out: Tensor = self.unet(x, t, class_labels=label, return_dict=False)[0]
        return out[:, :_COLOURS]


def build_adm(
    form: ADMForm,
    options: ADMOptions,
    tensors: Mapping[str, Tensor],
    precision: Precision = "fp32",
) -> ADMNet:
    """Return the network with these weights, on the CPU; in 16 bits those of its bulk are rounded.

    Raises ModelError where the heads do not fit, or diffusers is not there.
    """
    with torch.device("meta"):
        unet = _empty(form, options)
    half = HALVES.get(precision)
    # One after the other, so that no more than one is there twice.
    converted = {name: _rounded(name, t, half) for name, t in _converted(form, options, tensors)}
    unet.load_state_dict(converted, strict=True, assign=True)
    return ADMNet(unet)


def _empty(form: ADMForm, options: ADMOptions) -> nn.Module:
    """Return the network without weights."""
    UNet2DModel, Timesteps, TimestepEmbedding = _diffusers()
    plain = {
        "resnet": ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"),
        "conv": ("DownBlock2D", "UpBlock2D"),
    }[form.resize]
    unet: Any = UNet2DModel(
        sample_size=options.image_size,
        in_channels=form.inputs,
        out_channels=form.outputs,
        block_out_channels=form.channels,
        layers_per_block=form.blocks,
        down_block_types=[("AttnDownBlock2D" if a else plain[0]) for a in form.attention],
        up_block_types=[("AttnUpBlock2D" if a else plain[1]) for a in form.attention[::-1]],
        downsample_type=form.resize,
        upsample_type=form.resize,
        attention_head_dim=None,
        norm_num_groups=GROUPS,
        attn_norm_num_groups=GROUPS,
        norm_eps=1e-5,
        resnet_time_scale_shift="scale_shift" if form.scale_shift else "default",
        time_embedding_dim=4 * form.width,
        num_class_embeds=form.n_classes,
    )
    # The finest level may be narrower than the encoding of time.
    unet.time_proj = Timesteps(form.width, flip_sin_to_cos=True, downscale_freq_shift=0)
    unet.time_embedding = TimestepEmbedding(form.width, 4 * form.width)
    unet.conv_in = _ExactConv(form.inputs, form.channels[0], 3, padding=1)
    unet.conv_out = _ExactConv(form.channels[0], form.outputs, 3, padding=1)
    for layer in unet.modules():
        if hasattr(layer, "to_q"):
            layer.heads = options.heads(layer.to_q.out_features)
    return unet  # type: ignore[no-any-return]


def _diffusers() -> tuple[Any, Any, Any]:
    try:
        from diffusers import UNet2DModel
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps
    except ImportError as error:
        raise ModelError(
            "a guided-diffusion model without diffusers",
            do="install it: pip install 'sfumato[models]'",
        ) from error
    return UNet2DModel, Timesteps, TimestepEmbedding


@final
class _ExactConv(nn.Conv2d):
    """A convolution in float32, whose answer has the type that the layers around compute in."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        device = input.device.type
        reduced = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False):
            out = super().forward(input.float())
        return out.to(torch.get_autocast_dtype(device)) if reduced else out


def _converted(
    form: ADMForm, options: ADMOptions, tensors: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors under the names of diffusers, float32, in memory of their own."""
    places = dict(_places(form))
    for name, stored in tensors.items():
        layer, _, kind = name.rpartition(".")
        t = stored.to(torch.float32, copy=True)
        if layer in _ENDS:
            yield f"{_ENDS[layer]}.{kind}", t
            continue
        place = next(p for p in _prefixes(layer) if p in places)
        own, inner = places[place], layer[len(place) + 1 :]
        if inner == "qkv":
            parts = _projections(t, options.heads(len(t) // 3), options.use_new_attention_order)
            for part, rows in zip("qkv", parts, strict=True):
                yield f"{own}.to_{part}.{kind}", rows
        elif inner in _SELF:
            yield f"{own}.{_SELF[inner]}.{kind}", t.squeeze(-1) if t.ndim == 3 else t
        else:
            yield f"{own}.{_RESIDUAL.get(inner, 'conv')}.{kind}", t


def _prefixes(name: str) -> Iterator[str]:
    """Yield the names of the modules around a layer, from the outermost."""
    parts = name.split(".")
    yield from (".".join(parts[:k]) for k in range(1, len(parts)))


def _projections(t: Tensor, n_heads: int, new_order: bool | None) -> tuple[Tensor, ...]:
    """Return the rows of queries, keys and values: (heads, 3, d) or, newer, (3, heads, d)."""
    t = t.squeeze(-1) if t.ndim == 3 else t
    if new_order:
        return tuple(part.contiguous() for part in t.chunk(3))
    rows = torch.arange(len(t)).view(n_heads, 3, -1).permute(1, 0, 2)
    return tuple(t[part.flatten()] for part in rows)


def _places(form: ADMForm) -> Iterator[tuple[str, str]]:
    """Yield where each block of theirs is in a ``UNet2DModel``."""
    n, last = form.blocks, len(form.channels) - 1
    yield from (
        ("middle_block.0", "mid_block.resnets.0"),
        ("middle_block.1", "mid_block.attentions.0"),
        ("middle_block.2", "mid_block.resnets.1"),
    )
    for level in range(last + 1):
        down, up = f"down_blocks.{level}", f"up_blocks.{level}"
        for k in range(n):
            i = 1 + level * (n + 1) + k
            yield f"input_blocks.{i}.0", f"{down}.resnets.{k}"
            yield f"input_blocks.{i}.1", f"{down}.attentions.{k}"
        yield f"input_blocks.{(level + 1) * (n + 1)}.0", f"{down}.downsamplers.0"
        attends = form.attention[last - level]
        for k in range(n + 1):
            i = level * (n + 1) + k
            yield f"output_blocks.{i}.0", f"{up}.resnets.{k}"
            if attends:
                yield f"output_blocks.{i}.1", f"{up}.attentions.{k}"
        resize = f"output_blocks.{level * (n + 1) + n}.{1 + attends}"
        yield resize, f"{up}.upsamplers.0"


def _rounded(name: str, t: Tensor, half: torch.dtype | None) -> Tensor:
    return t if half is None or t.ndim < 2 or name.startswith(_EXACT) else t.to(half)
