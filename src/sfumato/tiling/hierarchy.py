"""Hierarchical restoration: the same problem at a coarser scale.

The coarse image ``x..`` stands for the image ``A_sr⁺ x..`` of replicated pixels. Its problem is
therefore ``y = A A_sr⁺ x..`` in least squares. Replication is moved through the operators, from
the image towards the measurement, until it meets one that undoes it:

- grey, identity and nothing commute with it;
- pooling by ``s`` undoes it: of ``average_pool:s`` after replication by ``r``, the quotients by
  their greatest common divisor are left;
- a mask that comes last: least squares takes the mean of a cell's known pixels, and cells with
  none are missing; painted strokes likewise, for the chroma;
- a mask that is pooled later (by a multiple of ``r``) becomes the share of known pixels of each
  cell;
- what is left of it at the end is averaged away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato._typing import Shape
from sfumato.errors import SettingsError
from sfumato.guidance import Measurement
from sfumato.operators import (
    AveragePool,
    Bicubic,
    Composition,
    Grayscale,
    GrayscaleWithHints,
    Identity,
    Mask,
    Nothing,
    Operator,
    Window,
    compose,
)
from sfumato.operators.base import reciprocal


def coarsen(m: Measurement, ratio: int) -> Measurement:
    """Return the coarse problem ``A A_sr⁺`` of ``m``, with ``A_sr`` average pooling by ``ratio``.

    Rows and columns beyond the last whole cell are left out. Raises SettingsError where the
    operator has no coarse form.
    """
    _, h, w = m.A.in_shape
    stride = m.A.locality.stride if m.A.locality.tileable else 0
    h, w = h - h % ratio, w - w % ratio
    if min(h, w) == 0:
        _, height, width = m.A.in_shape
        raise SettingsError(
            f"a level coarser by {ratio} of an image of {width} x {height} pixels",
            expected="at least one pixel there",
            do="use fewer --levels",
        )
    if (h, w) != m.A.in_shape[1:]:
        if not stride or h % stride or w % stride:
            raise SettingsError(
                f"a level coarser by {ratio} for {m.A} on {m.A.in_shape[2]} x {m.A.in_shape[1]}",
                expected=f"sides that are multiples of {ratio}",
                do="use --levels 1",
            )
        m = m.crop(Window(0, 0, h, w))
    operators = m.A.operators if isinstance(m.A, Composition) else (m.A,)
    parts: list[Operator] = []
    shape: Shape = (m.A.in_shape[0], h // ratio, w // ratio)
    r = ratio
    for i, A in enumerate(operators):
        if isinstance(A, Mask) and r > 1 and _is_last(operators[i + 1 :]):
            return _masked(m, parts, A, shape, r)
        if isinstance(A, GrayscaleWithHints) and r > 1 and _is_last(operators[i + 1 :]):
            return _with_hints(m, parts, A, shape, r)
        part, r = _pass(A, shape, r, operators[i + 1 :])
        parts.append(part)
        shape = part.out_shape
    y = F.avg_pool2d(m.y, r) if r > 1 else m.y
    return Measurement(compose(*parts), y, m.sigma_y / r)


def coarse_operator(A: Operator, ratio: int) -> Operator:
    """Return ``A A_sr⁺`` of the whole image, where the measurement stays what it is.

    So it does where pooling or bicubic downsampling undoes the replication: of a factor ``f``,
    ``f / ratio`` is left. What ``coarsen`` does to a measurement that is at hand, this does to
    one that is read by windows. Raises SettingsError for all others.

    >>> str(coarse_operator(Bicubic((3, 64, 32), 16), 4))
    'bicubic:4'
    """
    channels, h, w = A.in_shape
    parts: list[Operator] = []
    shape: Shape = (channels, max(1, h // ratio), max(1, w // ratio))
    operators, r = A.operators if isinstance(A, Composition) else (A,), ratio
    for i, B in enumerate(operators):
        part, r = _pass(B, shape, r, operators[i + 1 :])
        parts.append(part)
        shape = part.out_shape
    if r > 1 or h % ratio or w % ratio:
        raise SettingsError(
            f"a level coarser by {ratio} for {A} by tiles",
            expected="downsampling by a multiple of it",
            do="use fewer --levels, or --stitch joint",
        )
    return compose(*parts)


def _is_last(later: Sequence[Operator]) -> bool:
    return all(isinstance(A, Identity) for A in later)


def _is_pooled_next(later: Sequence[Operator], r: int) -> bool:
    """Say whether a multiple of ``r`` pools what a mask leaves, with nothing but grey before it.

    A second mask in between would need the mean of a product, and not the product of the means.
    """
    first = next((B for B in later if not isinstance(B, Grayscale | Identity)), None)
    return isinstance(first, AveragePool) and first.factor % r == 0


def _pass(A: Operator, shape: Shape, r: int, later: Sequence[Operator]) -> tuple[Operator, int]:
    """Return what is left of ``A`` behind replication by ``r``, and the replication behind it."""
    if r == 1:
        return A, 1
    if isinstance(A, Grayscale):
        return Grayscale(shape, A.weights), r
    if isinstance(A, Identity | Nothing):
        return type(A)(shape), r
    if isinstance(A, AveragePool | Bicubic):
        shared = math.gcd(A.factor, r)
        if shared in (A.factor, r):
            return type(A)(shape, A.factor // shared), r // shared
    if isinstance(A, Mask) and _is_pooled_next(later, r):
        return A.pooled(shape, r), r
    raise SettingsError(
        f"a level coarser by {r} for {A}", expected="pooling, masks and grey", do="use --levels 1"
    )


def _masked(
    m: Measurement, parts: Sequence[Operator], A: Mask, shape: Shape, r: int
) -> Measurement:
    """Least squares for a mask that comes last: the mean of the known pixels of each cell.

    A cell weighs as much as its known pixels, so that all coarse values have the same noise.
    """
    known: Tensor = A.known.to(m.y)[None]
    weight = F.avg_pool2d(known * known, r).sqrt().clamp(max=1.0)
    y = F.avg_pool2d(known * m.y, r) * reciprocal(weight)
    mask = Mask(shape, weight[0], name=A.name)
    return Measurement(compose(*parts, mask), y, m.sigma_y / r)


def _with_hints(
    m: Measurement, parts: Sequence[Operator], A: GrayscaleWithHints, shape: Shape, r: int
) -> Measurement:
    """Least squares for strokes: the mean grey of each cell, the mean chroma of its strokes."""
    grey_only = GrayscaleWithHints(A.in_shape, torch.zeros_like(A.painted), A.weights)
    painted: Tensor = A.painted.to(m.y)[None]
    grey = grey_only(m.y)
    n = F.avg_pool2d(painted * painted, r)
    chroma = F.avg_pool2d(painted * (m.y - grey), r) / n.clamp(min=1e-12)
    coarse = GrayscaleWithHints(shape, (n > 0).to(m.y)[0], A.weights)
    return Measurement(compose(*parts, coarse), F.avg_pool2d(grey, r) + chroma, m.sigma_y)


def level_ratios(n_levels: int, ratio: int = 2) -> list[int]:
    """Return each level's scale against the full image, coarsest first.

    >>> level_ratios(3)
    [4, 2, 1]
    """
    if n_levels < 1:
        raise SettingsError(f"{n_levels} levels", expected="at least 1")
    return [ratio**k for k in range(n_levels - 1, -1, -1)]
