"""Any size: tiles, waves, mask-shift, the joint engine, hierarchy."""

from sfumato.tiling.engine import Engine, Level, Progress, Restoration, Stitch
from sfumato.tiling.fused import TiledDenoiser
from sfumato.tiling.hierarchy import coarsen, level_ratios
from sfumato.tiling.plan import Order, Tile, TilePlan, batches, positions

__all__ = [
    "Engine",
    "Level",
    "Order",
    "Progress",
    "Restoration",
    "Stitch",
    "Tile",
    "TilePlan",
    "TiledDenoiser",
    "batches",
    "coarsen",
    "level_ratios",
    "positions",
]
