"""The joint engine: a tiled denoiser is a denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.diffusion import Denoiser, Linearised, denoise, linearised
from sfumato.operators import Window
from sfumato.tiling.plan import Tile, TilePlan, batches


def ramp(length: int, start: int, size: int, overlap: int) -> Tensor:
    """Weights along one axis of a tile: 1 in the middle, a ramp towards each neighbour.

    They rise as  sin²(π/2 (i + ½) / n)  over the overlap of ``n`` pixels.
    """
    w = torch.ones(length)
    n = min(overlap, length // 2)
    rise = torch.sin((torch.arange(n) + 0.5) / max(n, 1) * torch.pi / 2) ** 2
    if start > 0:
        w[:n] *= rise
    if start + length < size:
        w[length - n :] *= rise.flip(0)
    return w


class TiledDenoiser:
    """Fuse the tiles' estimates of ``x_0`` with smooth weights:  ``Σ w_k D_k / Σ w_k``.

    The tiles of a whole image are evaluated in batches; a ``condition`` of the whole image is cut
    like it. Since it is the estimates that are fused,
    and not samples, and all tiles share one noise field, nothing blurs (MultiDiffusion, arXiv
    2302.08113). Guidance and sampler see one whole image, so any operator is exact.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        plan: TilePlan,
        *,
        batch: int = 1,
        counted: Callable[[int], None] = lambda n: None,
        condition: Images | None = None,
    ) -> None:
        self.denoiser = denoiser
        self.plan = plan
        self.counted = counted
        self.condition = condition
        self._batches = batches(plan.tiles, batch)

    def _weight(self, w: Window) -> Tensor:
        p = self.plan
        rows = ramp(w.height, w.top, p.height, max(p.overlap, 1))
        cols = ramp(w.width, w.left, p.width, max(p.overlap, 1))
        return rows[:, None] * cols

    def __call__(self, x_t: Images, sigma: float) -> Images:
        """Estimate ``x_0`` of one whole image."""
        if len(self.plan.tiles) == 1:
            self.counted(1)
            return denoise(self.denoiser, x_t, sigma, self.condition)
        total = torch.zeros_like(x_t)
        weights = torch.zeros_like(x_t[:1, :1])
        for tiles in self._batches:
            self.counted(len(tiles))
            c = None if self.condition is None else _cut(self.condition, tiles)
            estimates = denoise(self.denoiser, _cut(x_t, tiles), sigma, c)
            for t, estimate in zip(tiles, estimates, strict=True):
                w = self._weight(t.window).to(x_t)
                t.window.of(total).add_(w * estimate)
                t.window.of(weights).add_(w)
        return total.div_(weights)

    def linearised(self, x_t: Images, sigma: float) -> Linearised:
        """Estimate ``x_0`` of one whole image, and pull back through it tile by tile.

        ``Jᵀ v = Σ_k P_kᵀ J_kᵀ (w_k / Σ w) P_k v``  with ``P_k`` the cut to tile ``k``. Nothing is
        kept of a tile: each pass back evaluates it again, so that memory is that of one batch.
        """

        def pull(v: Images) -> Images:
            share = self._shares(x_t)
            total = torch.zeros_like(x_t)
            for tiles in self._batches:
                c = None if self.condition is None else _cut(self.condition, tiles)
                _, back = linearised(self._given(c), _cut(x_t, tiles), sigma)
                each = torch.cat([share(t) * t.window.of(v) for t in tiles])
                for t, pulled in zip(tiles, back(each), strict=True):
                    t.window.of(total).add_(pulled)
            return total

        if len(self.plan.tiles) == 1:
            self.counted(1)
            return linearised(self._given(self.condition), x_t, sigma)
        return Linearised(self(x_t, sigma), pull)

    def _given(self, condition: Images | None) -> Denoiser:
        return lambda x, sigma: denoise(self.denoiser, x, sigma, condition)

    def _shares(self, like: Tensor) -> Callable[[Tile], Tensor]:
        """Return how to find each tile's share in the estimate of its pixels:  w_k / Σ w."""
        weights = torch.zeros_like(like[:1, :1])
        for t in self.plan.tiles:
            t.window.of(weights).add_(self._weight(t.window).to(like))
        return lambda t: self._weight(t.window).to(like) / t.window.of(weights)


def _cut(x: Tensor, tiles: Sequence[Tile]) -> Tensor:
    return torch.cat([t.window.of(x) for t in tiles])
