"""Kernel distance between two sets of feature vectors: no Gaussians, no bias, few pictures.

Reference: Bińkowski et al., "Demystifying MMD GANs" (KID), arXiv 1801.01401.
"""

from __future__ import annotations

from torch import Tensor

from sfumato.errors import ShapeError
from sfumato.metrics.frechet import FeatureVectors, check_vectors

#: Values of the kernel that are in memory at once.
_BLOCK = 1 << 23


def kernel_distance(a: FeatureVectors, b: FeatureVectors, *, paired: bool = False) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy  ``MMD²``.

    ``mean_{i≠j} k(a_i, a_j) + mean_{i≠j} k(b_i, b_j) − 2 mean_{i,j} k(a_i, b_j)``  with the kernel
    ``k(x, y) = (x·y / d + 1)³``, for (pictures, d) each, in float64, over all pairs (not a mean
    over random subsets, as KID is often given). Its mean over sets is 0 for sets of one kind, so
    single values may lie below 0. The kernel has no scale of its own: features should have a mean
    square near 1, see ``Projection``.

    With ``paired``, ``a_i`` and ``b_i`` show the same thing, such as a sample and its truth. Being
    no independent draws, they are left out of the last mean too, which keeps it unbiased.

    Raises ShapeError where dimensions differ, or sizes of paired sets, and SettingsError for NaN
    and for fewer than two vectors.

    Reference: arXiv 1801.01401, eq. 4 and section 4; Gretton et al., "A kernel two-sample test",
    2012, lemma 6.

    >>> import torch
    >>> a = torch.tensor([[0.0], [1.0]])
    >>> kernel_distance(a, a - 1)
    0.5
    """
    check_vectors(a, b, least=2, why="or there are no pairs")
    x, y = a.double(), b.double()
    if paired and len(x) != len(y):
        raise ShapeError(f"pairs of {len(x)} and {len(y)} pictures", expected="as many")
    across = _mean(x, y, diagonal=not paired)
    return _mean(x, x, diagonal=False) + _mean(y, y, diagonal=False) - 2 * across


def _mean(x: Tensor, y: Tensor, *, diagonal: bool) -> float:
    """Return the mean of ``k(x_i, y_j)`` over all pairs, or those with ``i ≠ j``, by blocks."""
    total, rows = 0.0, max(1, _BLOCK // len(y))
    for first in range(0, len(x), rows):
        k = (x[first : first + rows] @ y.mT / x.shape[1] + 1) ** 3
        total += float(k.sum()) - (0.0 if diagonal else float(k.diagonal(first).sum()))
    return total / (len(x) * (len(y) if diagonal else len(y) - 1))
