"""Kernel distance between two sets of feature vectors: no Gaussians, no bias, few pictures.

Reference: Bińkowski et al., "Demystifying MMD GANs" (KID), arXiv 1801.01401.
"""

from __future__ import annotations

from sfumato.metrics.frechet import FeatureVectors, check_vectors


def kernel_distance(a: FeatureVectors, b: FeatureVectors) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy  ``MMD²``.

    ``mean_{i≠j} k(a_i, a_j) + mean_{i≠j} k(b_i, b_j) − 2 mean_{i,j} k(a_i, b_j)``  with the kernel
    ``k(x, y) = (x·y / d + 1)³``, for (pictures, d) each, in float64, over all pairs (not a mean
    over random subsets, as KID is often given). Its mean over sets is 0 for sets of one kind, so
    single values may lie below 0. The kernel has no scale of its own: features should have a mean
    square near 1, see ``Projection``.

    Raises ShapeError where dimensions differ, SettingsError for NaN and for fewer than two
    vectors.

    Reference: arXiv 1801.01401, eq. 4 and section 4; Gretton et al., "A kernel two-sample test",
    2012, lemma 6.

    >>> import torch
    >>> a = torch.tensor([[0.0], [1.0]])
    >>> kernel_distance(a, a - 1)
    0.5
    """
    check_vectors(a, b, least=2, why="or there are no pairs")
    x, y = a.double(), b.double()
    d = x.shape[1]
    k_xx, k_yy, k_xy = ((u @ v.mT / d + 1) ** 3 for u, v in ((x, x), (y, y), (x, y)))
    within = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (k_xx, k_yy)]
    return float(within[0] + within[1] - 2 * k_xy.mean())
