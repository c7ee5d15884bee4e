"""The published state dicts of guided-diffusion (ADM): their form, from names and shapes alone.

A U-Net has ``input_blocks``, ``middle_block``, ``output_blocks`` and ``out``, a classifier all but
``output_blocks``. Blocks are numbered through: with n of them at a level, block n + 1 resizes.

Reference: arXiv 2105.05233; github.com/openai/guided-diffusion (MIT), ``unet.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, final

from sfumato.errors import ModelError

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

_FIRST = "input_blocks.0.0.weight"
_TIME = "time_embed.0.weight"
_POSITIONS = "out.2.positional_embedding"
#: Names that begin thus are common to all; of a damaged file some are left.
_TRUNKS = ("input_blocks.", "middle_block.", "time_embed.")
#: What data-parallel training puts before every name.
_WRAPPED = "module."


@final
@dataclass(frozen=True)
class ADMForm:
    """What the tensors of a checkpoint say of its network.

    - ``width``: of the encoding of time; ``channels``: of each level, finest first.
    - ``blocks``: of each level on the way down; ``attention``: which levels have it.
    - ``resize``: by residual blocks, or by a convolution alone.
    - ``scale_shift``: blocks are told the time by scale and shift of a norm, else by a sum.
    - ``n_classes``: that the network must be told, or those of a classifier; None for none.
    - ``inputs``, ``outputs``: channels; 6 outputs have the variance in the second half; 0 is a
      classifier.
    - ``cells``: the places of a classifier's last level; 0 for a U-Net.
    """

    width: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    resize: Literal["resnet", "conv"]
    scale_shift: bool
    n_classes: int | None
    inputs: int = 3
    outputs: int = 6
    cells: int = 0

    @property
    def is_classifier(self) -> bool:
        """Whether it tells classes from images instead of noise."""
        return self.outputs == 0

    @property
    def stride(self) -> int:
        """The number that sides must be multiples of."""
        return 1 << (len(self.channels) - 1)

    @property
    def side(self) -> int:
        """The side of the images: a classifier's by its places, else 8 on the coarsest level.

        Of a U-Net this is a custom: all published ones end at 8 x 8.
        """
        return self.stride * (math.isqrt(self.cells) if self.cells else 8)

    @property
    def attended(self) -> tuple[int, ...]:
        """The widths of all levels with attention; the middle has it always."""
        levels = [c for c, a in zip(self.channels, self.attention, strict=True) if a]
        return (*levels, self.channels[-1])


def looks_like_adm(shapes: Shapes) -> bool:
    """Tell whether these are names of theirs, some perhaps missing.

    >>> looks_like_adm({"input_blocks.0.0.weight": (1,), "middle_block.0.in_layers.0.bias": (1,)})
    True
    """
    found = {t for t in _TRUNKS for n in shapes if n.removeprefix(_WRAPPED).startswith(t)}
    # Latent models name theirs so too, behind other prefixes, and attend to a context.
    return len(found) >= 2 and not any("attn2" in n for n in shapes)


def plain_name(name: str) -> str:
    """Return the name of a tensor without what data-parallel training puts before it."""
    return name.removeprefix(_WRAPPED)


def read_form(shapes: Shapes, path: Path) -> ADMForm:
    """Return the form of the network whose tensors have these names and shapes.

    Raises ModelError where there is none such: with the first tensors that are missing, left over
    or of other shapes.
    """
    try:
        form = _form(shapes)
    except KeyError as error:
        raise ModelError(
            f"{path} is no whole checkpoint of guided-diffusion: {error.args[0]} is missing",
            expected=f"it among the {len(shapes)} tensors",
            do="fetch it again",
        ) from error
    fault = difference(layout(form), shapes)
    if fault:
        raise ModelError(
            f"{path} is no whole checkpoint of guided-diffusion: {fault}",
            expected=f"the tensors of a network of {form.channels} channels, {form.blocks} blocks",
            do="fetch it again, or take a model of the published architecture",
        )
    return form


def _form(shapes: Shapes) -> ADMForm:
    """Read the form; KeyError where a tensor is missing that it is read from."""
    positions = shapes.get(_POSITIONS)
    up = any(n.startswith("output_blocks.") for n in shapes)
    n_in = _count(shapes, "input_blocks.")
    blocks = _blocks_by_output(shapes) if up else _blocks_by_attention(shapes, n_in)
    levels = max(1, n_in // (blocks + 1))
    firsts = [1 + level * (blocks + 1) for level in range(levels)]
    told = shapes["middle_block.0.emb_layers.1.bias"][0]
    labels = shapes.get("label_emb.weight")
    return ADMForm(
        width=shapes[_TIME][-1],
        channels=tuple(shapes[f"input_blocks.{i}.0.in_layers.2.bias"][0] for i in firsts),
        blocks=blocks,
        attention=tuple(
            any(_attends(shapes, i) for i in range(first, first + blocks)) for first in firsts
        ),
        resize="conv" if any(n.endswith(".0.op.weight") for n in shapes) else "resnet",
        scale_shift=told != shapes["middle_block.0.out_layers.3.bias"][0],
        n_classes=(labels[0] if labels else None) if up else shapes["out.2.c_proj.bias"][0],
        inputs=shapes[_FIRST][1],
        outputs=shapes["out.2.bias"][0] if up else 0,
        cells=positions[-1] - 1 if positions and not up else 0,
    )


def _count(shapes: Shapes, prefix: str) -> int:
    """Return how many blocks there are: the largest number in a name, and one more."""
    numbers = [int(n.split(".")[1]) for n in shapes if n.startswith(prefix)]
    return max(numbers, default=-1) + 1


def _blocks_by_output(shapes: Shapes) -> int:
    """Return n: the block of the way up that enlarges first is number n, counted from 0."""
    n_out = _count(shapes, "output_blocks.")
    enlarges = (".1.in_layers.0.bias", ".2.in_layers.0.bias", ".1.conv.bias", ".2.conv.bias")
    for i in range(n_out):
        if any(f"output_blocks.{i}{end}" in shapes for end in enlarges):
            return i
    return n_out - 1


def _blocks_by_attention(shapes: Shapes, n_in: int) -> int:
    """Return n: that many blocks in a row attend, as those that resize never do."""
    if resized := [i for i in range(n_in) if f"input_blocks.{i}.0.op.bias" in shapes]:
        return resized[0] - 1
    run = 0
    for i in range(n_in):
        if _attends(shapes, i):
            run += 1
        elif run:
            break
    if not run:
        raise KeyError("input_blocks with attention, of which a classifier's form is read,")
    return run


def _attends(shapes: Shapes, i: int) -> bool:
    return any(f"input_blocks.{i}.1.{end}" in shapes for end in ("qkv.weight", "norm.weight"))


def layout(form: ADMForm) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of all tensors of a network of this form."""
    e = 4 * form.width
    shapes = dict(_weights("time_embed.0", e, form.width))
    shapes |= _weights("time_embed.2", e, e)
    if form.n_classes and not form.is_classifier:
        shapes["label_emb.weight"] = (form.n_classes, e)
    c, kept = form.channels[0], [form.channels[0]]
    shapes |= _weights("input_blocks.0.0", c, form.inputs, 3, 3)
    last = len(form.channels) - 1
    for level, width in enumerate(form.channels):
        for _ in range(form.blocks):
            shapes |= _stage(f"input_blocks.{len(kept)}", c, width, form, form.attention[level])
            c = width
            kept.append(c)
        if level < last:
            shapes |= _resize(f"input_blocks.{len(kept)}.0", "op", c, form)
            kept.append(c)
    shapes |= _residual("middle_block.0", c, c, form)
    shapes |= _attention("middle_block.1", c)
    shapes |= _residual("middle_block.2", c, c, form)
    if form.is_classifier:
        return shapes | dict(_pool(c, form))
    i = 0
    for level, width in reversed(list(enumerate(form.channels))):
        for k in range(form.blocks + 1):
            attends = form.attention[level]
            shapes |= _stage(f"output_blocks.{i}", c + kept.pop(), width, form, attends)
            c = width
            if level and k == form.blocks:
                shapes |= _resize(f"output_blocks.{i}.{1 + attends}", "conv", c, form)
            i += 1
    return shapes | dict(_norm("out.0", c)) | dict(_weights("out.2", form.outputs, c, 3, 3))


def _weights(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _norm(name: str, c: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (c,)
    yield f"{name}.bias", (c,)


def _stage(name: str, c: int, width: int, form: ADMForm, attends: bool) -> Shapes:
    own = _residual(f"{name}.0", c, width, form)
    return own | _attention(f"{name}.1", width) if attends else own


def _residual(name: str, c: int, width: int, form: ADMForm) -> dict[str, tuple[int, ...]]:
    own = dict(_norm(f"{name}.in_layers.0", c))
    own |= _weights(f"{name}.in_layers.2", width, c, 3, 3)
    own |= _weights(f"{name}.emb_layers.1", width * (1 + form.scale_shift), 4 * form.width)
    own |= _norm(f"{name}.out_layers.0", width)
    own |= _weights(f"{name}.out_layers.3", width, width, 3, 3)
    return own if c == width else own | dict(_weights(f"{name}.skip_connection", width, c, 1, 1))


def _attention(name: str, c: int) -> dict[str, tuple[int, ...]]:
    own = dict(_norm(f"{name}.norm", c)) | dict(_weights(f"{name}.qkv", 3 * c, c, 1))
    return own | dict(_weights(f"{name}.proj_out", c, c, 1))


def _resize(name: str, convolution: str, c: int, form: ADMForm) -> Shapes:
    if form.resize == "resnet":
        return _residual(name, c, c, form)
    return dict(_weights(f"{name}.{convolution}", c, c, 3, 3))


def _pool(c: int, form: ADMForm) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _norm("out.0", c)
    yield _POSITIONS, (c, form.cells + 1)
    yield from _weights("out.2.qkv_proj", 3 * c, c, 1)
    yield from _weights("out.2.c_proj", form.n_classes or 0, c, 1)


_SHOWN = 3


def difference(expected: Shapes, found: Shapes) -> str:
    """Name the first tensors that are missing, unexpected and of another shape, or nothing.

    >>> difference({"a": (1,), "b": (2,)}, {"b": (3,), "c": (4,)})
    '1 missing: a (1,); 1 unexpected: c (4,); 1 of another shape: b (3,) instead of (2,)'
    """
    faults = {
        "missing": [f"{n} {s}" for n, s in expected.items() if n not in found],
        "unexpected": [f"{n} {s}" for n, s in found.items() if n not in expected],
        "of another shape": [
            f"{n} {found[n]} instead of {s}"
            for n, s in expected.items()
            if n in found and found[n] != s
        ],
    }
    return "; ".join(
        f"{len(told)} {what}: {', '.join(told[:_SHOWN])}" + ", ..." * (len(told) > _SHOWN)
        for what, told in faults.items()
        if told
    )
