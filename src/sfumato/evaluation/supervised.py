"""The blind supervised kind: one network, one pass, no word on how the picture was made."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from sfumato.errors import ModelError, SettingsError
from sfumato.evaluation.posed import Answer, Contender, Posed, as_shaped, digest_of, eight_bits
from sfumato.tiling import TilePlan
from sfumato.tiling.fused import ramp

if TYPE_CHECKING:
    from sfumato.nn import RRDBNet

#: Side and overlap of the tiles of the small picture, in pixels.
TILE, OVERLAP = 256, 32


@final
class Supervised(Contender):
    """An RRDBNet (ESRGAN, BSRGAN, Real-ESRGAN) from a file of its weights.

    Pictures larger than a tile are enlarged tile by tile, and joined by weights that rise and fall
    over the overlap. Raises ModelError where there is no such file.
    """

    def __init__(self, name: str, path: Path, caption: str = "", *, device: str = "cpu") -> None:
        if not path.is_file():
            raise ModelError(f"there is no checkpoint {path}", do="check the name")
        self.name, self.caption = name, caption or path.stem
        self._path, self._device = path, device

    @cached_property
    def _net(self) -> RRDBNet:
        from sfumato.zoo.rrdb import load_rrdb

        return load_rrdb(self._path, device=self._device)

    @override
    def identity(self, picture: str) -> Mapping[str, object]:
        return {"rrdb": digest_of(self._path), "tile": [TILE, OVERLAP]}

    @override
    def answer(self, posed: Posed) -> Answer:
        if not posed.is_picture or self._net.config.scale != posed.scale:
            raise SettingsError(
                f"{posed.degradation} with {self._path.name}",
                expected=f"a picture that is to be {self._net.config.scale} times larger",
            )
        y = posed.y.expand(3, -1, -1).to(self._device)
        x, n_tiles = enlarged(self._net, y)
        x = eight_bits(as_shaped(x.cpu(), posed.shape)).contiguous()
        side, overlap = TILE * posed.scale, OVERLAP * posed.scale
        return Answer(x, evaluations=1, tiles=None if n_tiles == 1 else (side, overlap))


def enlarged(
    net: RRDBNet, y: Tensor, *, tile: int = TILE, overlap: int = OVERLAP
) -> tuple[Tensor, int]:
    """Enlarge a picture (3, h, w) in tiles of at most ``tile``; return it and their number.

    ``x = Σ w_k F(y_k) / Σ w_k``, each tile mirrored up to a multiple of what the network folds.
    """
    _, height, width = y.shape
    s = net.config.scale
    total = y.new_zeros(3, s * height, s * width)
    weights = y.new_zeros(1, s * height, s * width)
    plan = TilePlan(height, width, tile, overlap, net.config.fold)
    with torch.no_grad():
        for t in plan.tiles:
            w = t.window
            rows = ramp(s * w.height, s * w.top, s * height, s * overlap)
            cols = ramp(s * w.width, s * w.left, s * width, s * overlap)
            weight = (rows[:, None] * cols).to(y)
            place = (
                slice(s * w.top, s * (w.top + w.height)),
                slice(s * w.left, s * (w.left + w.width)),
            )
            total[:, place[0], place[1]] += weight * _whole(net, w.of(y[None]))[0]
            weights[:, place[0], place[1]] += weight
    return total / weights, len(plan.tiles)


def _whole(net: RRDBNet, y: Tensor) -> Tensor:
    """Enlarge a picture in one piece."""
    height, width = y.shape[-2:]
    fold, s = net.config.fold, net.config.scale
    pads = (0, -width % fold, 0, -height % fold)
    x: Tensor = net(functional.pad(y, pads, mode="reflect"))
    return x[..., : s * height, : s * width]
