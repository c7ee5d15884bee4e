"""The image to begin from, where the measurement pins down much."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato._typing import Images
from sfumato.guidance.measurement import Measurement
from sfumato.linalg import conjugate_gradient
from sfumato.operators import Grayscale, GrayscaleWithHints, compose, links

#: Strokes are spread on a copy of about this many pixels a side.
_SPREAD_SIDE = 256
#: Grey values that differ by this much (in [-1, 1]) count as the border of an object.
_EDGE = 0.2


def start_image(m: Measurement, *, fill: bool = False) -> Images:
    """Return a smooth image that agrees with the measurement, or nearly so.

    ``A⁺ y``, smoothed by the width of a measured pixel and projected again (for pooling:
    back-projected linear interpolation). Three exceptions: grey is made neutral and not
    ``w / |w|²``, which is greenish; painted strokes are spread to where grey is alike; blurs are
    not inverted but taken as ``α Aᵀ y``, with the α that agrees best. Holes are grey, or
    with ``fill`` what lies around them.
    """
    if isinstance(m.A, GrayscaleWithHints):
        return spread_strokes(m.A, m.y)
    first, *rest = links(m.A)
    if isinstance(first, Grayscale) and sum(first.weights) > 0:
        grey = m.y
        if rest:
            grey = start_image(Measurement(compose(*rest), m.y, m.sigma_y), fill=fill)
        return (grey / sum(first.weights)).expand(-1, 3, -1, -1).clamp(-1, 1)
    if m.A.amplifies:
        x = m.A.adjoint(m.y)
        Ax = m.A(x)
        return (x * (m.y * Ax).sum() / (Ax * Ax).sum().clamp(min=1e-12)).clamp(-1, 1)
    x = m.A.pinv(m.y)
    if fill:
        # A⁺ A 1 is 0 in holes and 1 elsewhere.
        x = filled(x, (m.A.pinv(m.A(torch.ones_like(x))) > 0.5).to(x))
    if m.A.ratio > 1:
        x = _smooth(x, m.A.ratio)
        x = x + m.A.pinv(m.y - m.A(x))
    return x.clamp(-1, 1)


def filled(x: Tensor, known: Tensor) -> Tensor:
    """Fill where ``known`` is 0 with the mean of what is known around, from squares that double.

    Both are (batch, channels, height, width). Where nothing is known, 0 stays.

    >>> x, known = torch.tensor([[1.0, 0, 0, 4]]), torch.tensor([[1.0, 0, 0, 1]])
    >>> filled(x[None, None], known[None, None])
    tensor([[[[1.0000, 1.7500, 3.2500, 4.0000]]]])
    """
    known = (known > 0).to(x)
    height, width = x.shape[2:]
    if max(height, width) == 1 or bool(known.all()):
        return x * known
    pad = (0, width % 2, 0, height % 2)
    share = F.avg_pool2d(F.pad(known, pad), 2)
    mean = F.avg_pool2d(F.pad(x * known, pad), 2) / share.clamp(min=0.25)
    coarse = F.interpolate(filled(mean, share), scale_factor=2, mode="bilinear")
    return torch.where(known > 0, x, coarse[..., :height, :width])


def _smooth(x: Tensor, width: int) -> Tensor:
    """Average over ``width`` pixels in both axes, edges replicated."""
    left, right = width // 2, width - 1 - width // 2
    x = F.pad(x, (left, right, left, right), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(x, (width, 1), stride=1), (1, width), stride=1)


def spread_strokes(A: GrayscaleWithHints, y: Tensor) -> Images:
    """Spread the strokes' chroma to neighbours of like grey: ``min Σ w_ij (c_i − c_j)²``.

    ``w_ij = exp(−(g_i − g_j)² / 2 e²)`` over the four neighbours, and ``c`` is that of the
    strokes where they are painted (Levin, Lischinski and Weiss, *Colorization using
    optimization*, 2004). Solved by conjugate gradients on a smaller copy.
    """
    w = torch.tensor(A.weights).to(y)[:, None, None]
    grey = (w * y).sum(1, keepdim=True)
    painted = A.painted.to(y)[None]
    chroma = (y - grey) * painted
    r = max(1, max(y.shape[-2:]) // _SPREAD_SIDE)
    small = [F.avg_pool2d(v, r, ceil_mode=True) for v in (grey, painted, chroma)]
    p = small[1]
    fixed = small[2] / p.clamp(min=1e-6) * (p > 0)
    spread = _solve(small[0], (p > 0).to(y), fixed)
    size = tuple(y.shape[-2:])
    spread = F.interpolate(spread, size=size, mode="bilinear", align_corners=False)
    return (grey + torch.where(painted > 0, chroma, spread)).clamp(-1, 1)


def _solve(grey: Tensor, painted: Tensor, fixed: Tensor) -> Tensor:
    """Solve ``(L + λ P) c = λ P c_fixed`` with L the graph Laplacian of ``grey``."""

    def affinity(axis: int) -> Tensor:
        return torch.exp(-(grey.diff(dim=axis) ** 2) / (2 * _EDGE**2)) + 1e-3

    across, down = affinity(3), affinity(2)

    def laplacian(c: Tensor) -> Tensor:
        gx, gy = across * c.diff(dim=3), down * c.diff(dim=2)
        return (
            F.pad(gx, (1, 0))
            - F.pad(gx, (0, 1))
            + F.pad(gy, (0, 0, 1, 0))
            - F.pad(gy, (0, 0, 0, 1))
        )

    strength = 10.0
    return conjugate_gradient(
        lambda c: laplacian(c) + strength * painted * c,
        strength * painted * fixed,
        tolerance=1e-3,
        max_iterations=2000,
    )
