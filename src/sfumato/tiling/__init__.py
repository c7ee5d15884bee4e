"""Any size: tiles, waves, mask-shift, the joint engine, hierarchy.

Work in a thread of its own, for GPUs, is in ``sfumato.tiling.thread``, workers in other processes
in ``sfumato.tiling.processes``, those on Ray in ``sfumato.tiling.on_ray``.
"""

from sfumato.tiling.engine import Engine, Keeper, Progress, Restoration, Stitch
from sfumato.tiling.executor import Executor, InProcess
from sfumato.tiling.frontier import Frontier
from sfumato.tiling.fused import TiledDenoiser
from sfumato.tiling.hierarchy import coarse_operator, coarsen, level_ratios
from sfumato.tiling.level import (
    Canvas,
    Finish,
    Level,
    LevelSource,
    Local,
    TensorCanvas,
    coarser,
    cut_guide,
)
from sfumato.tiling.plan import Order, Tile, TilePlan, batches, positions
from sfumato.tiling.room import Room, micro_batch_on
from sfumato.tiling.tasks import Restorer, ShortOfMemoryWarning, TileTask

__all__ = [
    "Canvas",
    "Engine",
    "Executor",
    "Finish",
    "Frontier",
    "InProcess",
    "Keeper",
    "Level",
    "LevelSource",
    "Local",
    "Order",
    "Progress",
    "Restoration",
    "Restorer",
    "Room",
    "ShortOfMemoryWarning",
    "Stitch",
    "TensorCanvas",
    "Tile",
    "TilePlan",
    "TileTask",
    "TiledDenoiser",
    "batches",
    "coarse_operator",
    "coarsen",
    "coarser",
    "cut_guide",
    "level_ratios",
    "micro_batch_on",
    "positions",
]
