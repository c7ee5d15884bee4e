"""Hierarchical restoration: the same problem at a coarser scale.

The coarse image ``x..`` stands for the image ``A_sr⁺ x..`` of replicated pixels. Its problem is therefore ``y = A A_sr⁺ x..`` in least squares.
Replication is moved through the operators, from the image towards the measurement, until it meets one that undoes it:

- grey and identity commute with it;
- pooling by ``s`` undoes it: of ``average_pool:s`` after replication by ``r``, the quotients by their greatest common divisor are left;
- a mask that comes last: least squares takes the mean of a cell's known pixels, and cells with none are missing;
- a mask that is pooled later (by a multiple of ``r``) becomes the share of known pixels of each cell;
- what is left of it at the end is averaged away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    Operator,
    Window,
    compose,
)


def coarsen(m: Measurement, ratio: int) -> Measurement:
    """Return the coarse problem ``A A_sr⁺`` of ``m``, with ``A_sr`` average pooling by ``ratio``.

    Rows and columns beyond the last whole cell are left out. Raises SettingsError where the operator has no coarse form.
    """
    _, h, w = m.A.in_shape
    h, w = h - h % ratio, w - w % ratio
    if min(h, w) == 0:
        raise SettingsError(f"a level coarser by {ratio} of an image of {m.A.in_shape[2]} x {m.A.in_shape[1]} pixels")
    if (h, w) != m.A.in_shape[1:]:
        m = m.crop(Window(0, 0, h, w))
    operators = m.A.operators if isinstance(m.A, Composition) else (m.A,)
    parts: list[Operator] = []
    shape: Shape = (m.A.in_shape[0], h // ratio, w // ratio)
    r = ratio
    for i, A in enumerate(operators):
        if isinstance(A, Mask) and r > 1 and _is_last(operators[i + 1 :]):
            return _masked(m, parts, A, shape, r)
        part, r = _pass(A, shape, r, operators[i + 1 :])
        parts.append(part)
        shape = part.out_shape
    y = F.avg_pool2d(m.y, r) if r > 1 else m.y
    return Measurement(compose(*parts), y, m.sigma_y / r)


def _is_last(later: Sequence[Operator]) -> bool:
    return all(isinstance(A, Identity) for A in later)


def _pass(A: Operator, shape: Shape, r: int, later: Sequence[Operator]) -> tuple[Operator, int]:
    """Return what is left of ``A`` behind replication by ``r``, and the replication left behind it."""
    if r == 1:
        return A, 1
    if isinstance(A, Grayscale):
        return Grayscale(shape, A.weights), r
    if isinstance(A, Identity):
        return Identity(shape), r
    if isinstance(A, GrayscaleWithHints):
        return GrayscaleWithHints(shape, (F.avg_pool2d(A.painted, r) > 0).float(), A.weights), r
    if isinstance(A, AveragePool | Bicubic):
        shared = math.gcd(A.factor, r)
        if shared in (A.factor, r):
            return type(A)(shape, A.factor // shared), r // shared
    if isinstance(A, Mask) and any(isinstance(B, AveragePool) and B.factor % r == 0 for B in later):
        return Mask(shape, F.avg_pool2d(A.known[None], r)[0], name=A.name), r
    raise SettingsError(
        f"a level coarser by {r} for {A}", expected="pooling, masks and grey", do="use --levels 1"
    )


def _masked(m: Measurement, parts: Sequence[Operator], A: Mask, shape: Shape, r: int) -> Measurement:
    """Least squares for a mask that comes last: the mean of the known pixels of each cell."""
    known: Tensor = A.known.to(m.y)[None]
    n = F.avg_pool2d(known * known, r)
    y = F.avg_pool2d(known * m.y, r) / n.clamp(min=1e-12)
    any_known = (n > 0).to(m.y)
    mask = Mask(shape, any_known[0], name=A.name)
    return Measurement(compose(*parts, mask), y * any_known, m.sigma_y)


def level_ratios(n_levels: int, ratio: int = 2) -> list[int]:
    """Return each level's scale against the full image, coarsest first.

    >>> level_ratios(3)
    [4, 2, 1]
    """
    if n_levels < 1:
        raise SettingsError(f"{n_levels} levels", expected="at least 1")
    return [ratio**k for k in range(n_levels - 1, -1, -1)]
