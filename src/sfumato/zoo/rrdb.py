"""RRDBNet from published state dicts: ESRGAN's (old and new names), BSRGAN's, Real-ESRGAN's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.errors import ModelError, SettingsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sfumato.nn import RRDBNet, RRDBNetConfig

#: Where a checkpoint keeps its weights, the better ones first.
_WRAPPED = ("params_ema", "params")
_EXPECTED = "weights of an RRDBNet: ESRGAN, BSRGAN or Real-ESRGAN (.pth, .safetensors)"
#: Names of BSRGAN and of ESRGAN's later checkpoints, and what they are here.
_LATER = (
    (r"^module\.", ""),
    (r"^RRDB_trunk\.", "body."),
    (r"\.RDB(\d)\.", r".rdb\1."),
    (r"^trunk_conv\.", "conv_body."),
    (r"^upconv(\d)\.", r"conv_up\1."),
    (r"^HRconv\.", "conv_hr."),
)


def load_rrdb(path: str | Path, *, device: str | torch.device = "cpu") -> RRDBNet:
    """Load an RRDBNet on ``device``, without gradients; its form follows from the weights.

    Of a pickle only tensors are read. Raises ModelError for a file that is missing, damaged, or
    holds something else.
    """
    from sfumato.io.checkpoints import load_state, load_tensors
    from sfumato.io.pickles import is_pickle, load_pickle
    from sfumato.nn import RRDBNet
    from sfumato.zoo.prior import as_device

    path = Path(path)
    if is_pickle(path):
        tensors = load_pickle(path, expected=_EXPECTED, wrapped=_WRAPPED)
    else:
        tensors = load_tensors(path)
    named = renamed(tensors)
    net = RRDBNet(_config(named, path))
    load_state(net, named)
    return net.to(as_device(device)).eval().requires_grad_(False)


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by Real-ESRGAN's names, whichever of the published ones they had."""
    old = "model.0.weight" in tensors
    rename = _names_of_old(tensors) if old else _renamed_later
    return {rename(name): t for name, t in tensors.items()}


def _renamed_later(name: str) -> str:
    for pattern, other in _LATER:
        name = re.sub(pattern, other, name)
    return name


def _names_of_old(tensors: Mapping[str, Tensor]) -> Callable[[str], str]:
    """Read ESRGAN's first names, which count layers: those after the trunk are told by order."""
    found = (re.fullmatch(r"model\.(\d+)\.weight", name) for name in tensors)
    _, *after = sorted(int(m[1]) for m in found if m)
    layers = {0: "conv_first"} | {n: f"conv_up{k}" for k, n in enumerate(after[:-2], 1)}
    layers |= dict(zip(reversed(after), ("conv_last", "conv_hr"), strict=False))

    def rename(name: str) -> str:
        if m := re.fullmatch(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(\w+)", name):
            return f"body.{m[1]}.rdb{m[2]}.conv{m[3]}.{m[4]}"
        if m := re.fullmatch(r"model\.1\.sub\.\d+\.(\w+)", name):
            return f"conv_body.{m[1]}"
        if (m := re.fullmatch(r"model\.(\d+)\.(\w+)", name)) and int(m[1]) in layers:
            return f"{layers[int(m[1])]}.{m[2]}"
        return name

    return rename


def _config(tensors: Mapping[str, Tensor], path: Path) -> RRDBNetConfig:
    from sfumato.nn import RRDBNetConfig

    first, dense = tensors.get("conv_first.weight"), tensors.get("body.0.rdb1.conv1.weight")
    if first is None or dense is None or first.ndim != 4 or dense.ndim != 4:
        some = ", ".join(list(tensors)[:5])
        raise ModelError(f"{path} holds {some or 'nothing'}", expected=_EXPECTED)
    found = (re.match(r"body\.(\d+)\.", name) for name in tensors)
    blocks = 1 + max(int(m[1]) for m in found if m)
    doublings = sum(bool(re.fullmatch(r"conv_up\d\.weight", name)) for name in tensors)
    folds = {3: 1, 12: 2, 48: 4}
    if first.shape[1] not in folds:
        raise ModelError(
            f"{path}: its first layer sees {first.shape[1]} channels",
            expected="3, 12 or 48, for colour pictures",
        )
    try:
        return RRDBNetConfig(
            first.shape[0], blocks, dense.shape[0], folds[first.shape[1]], doublings
        )
    except SettingsError as error:
        raise ModelError(f"{path} is an impossible RRDBNet: {error}") from error
