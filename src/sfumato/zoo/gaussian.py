"""DRUNet and FFDNet from their published state dicts: denoisers of a range of noise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sfumato.errors import ModelError, SettingsError
from sfumato.zoo.model import Prior
from sfumato.zoo.source import Source

if TYPE_CHECKING:
    import torch

    from sfumato.diffusion.arithmetic import Precision
    from sfumato.nn import DRUNet, FFDNet

WHAT = "weights of a DRUNet or an FFDNet for colour pictures (.pth, .safetensors)"

#: What they were trained with: noise of up to so many 255ths, on data in [0, 1].
_DRUNET_MAX, _FFDNET_MAX = 50 / 255, 75 / 255
_TILE = 256

Shapes = Mapping[str, tuple[int, ...]]


def matches(source: Source) -> bool:
    """Tell whether the tensors have the names of either."""
    return source.header is None and (_is_drunet(source.shapes) or _is_ffdnet(source.shapes))


def side(source: Source) -> int:
    """Return the side of a tile: these networks see images of any size."""
    return _TILE


def load(source: Source, device: torch.device, precision: Precision) -> Prior:
    """Return the denoiser with these weights; raises ModelError where they do not fit."""
    from sfumato.diffusion.noise_map import NoiseMapDenoiser
    from sfumato.io.checkpoints import load_state

    drunet = _is_drunet(source.shapes)
    net = _drunet(source) if drunet else _ffdnet(source)
    load_state(net, source.tensors)
    denoiser = NoiseMapDenoiser(net, precision).to(device).eval().requires_grad_(False)
    what = "DRUNet" if drunet else "FFDNet"
    return Prior(
        name=source.name,
        denoiser=denoiser,
        digest=source.digest,
        tile=_TILE,
        stride=net.config.stride,
        sigma_max=2 * (_DRUNET_MAX if drunet else _FFDNET_MAX),
        precision=precision,
        n_parameters=sum(p.numel() for p in net.parameters()),
        card=source.card or f"# {source.name}\n\nWeights of a {what}, without a card.\n",
        source=source.path,
        kind=f"{what}, a denoiser of Gaussian noise",
    )


def _is_drunet(shapes: Shapes) -> bool:
    return "m_head.weight" in shapes and "m_body.0.res.0.weight" in shapes


def _is_ffdnet(shapes: Shapes) -> bool:
    first = shapes.get("model.0.weight", ())
    # 4 pixels of each channel, and one value of the map: 13 for colours, 5 for grey.
    return len(first) == 4 and first[1] in (5, 13) and "model.0.bias" in shapes


def _drunet(source: Source) -> DRUNet:
    from sfumato.nn import DRUNet, DRUNetConfig

    shapes = source.shapes
    _check_colours(source, shapes["m_head.weight"], 4)
    names = ("m_head.weight", *(f"m_up{k}.0.weight" for k in (1, 2, 3)))
    _check_names(source, names)
    widths = (shapes["m_head.weight"][0], *(shapes[name][0] for name in names[1:]))
    blocks = 1 + max(_numbers(shapes, r"m_body\.(\d+)\.res\.0\.weight"))
    try:
        return DRUNet(DRUNetConfig(widths, blocks, bias="m_head.bias" in shapes))
    except SettingsError as error:
        raise ModelError(f"{source.path} is an impossible DRUNet: {error}") from error


def _ffdnet(source: Source) -> FFDNet:
    from sfumato.nn import FFDNet, FFDNetConfig

    shapes = source.shapes
    first = shapes["model.0.weight"]
    _check_colours(source, first, 13)
    layers = 1 + max(_numbers(shapes, r"model\.(\d+)\.weight")) // 2
    try:
        return FFDNet(FFDNetConfig(first[0], layers))
    except SettingsError as error:
        raise ModelError(f"{source.path} is an impossible FFDNet: {error}") from error


def _numbers(shapes: Shapes, pattern: str) -> list[int]:
    return [int(found[1]) for name in shapes if (found := re.fullmatch(pattern, name))]


def _check_names(source: Source, names: tuple[str, ...]) -> None:
    missing = [name for name in names if len(source.shapes.get(name, ())) != 4]
    if missing:
        raise ModelError(
            f"{source.path} lacks {missing[0]}", expected="a DRUNet of four levels", do="fetch it"
        )


def _check_colours(source: Source, first: tuple[int, ...], expected: int) -> None:
    if len(first) != 4 or first[1] != expected:
        raise ModelError(
            f"{source.path} is a denoiser of grey pictures, or of another kind: its first layer "
            f"sees {first[1] if len(first) > 1 else 0} channels",
            expected=f"{expected}, for RGB and a map of the noise",
            do="take the one for colour pictures, as drunet_color.pth or ffdnet_color.pth",
        )
