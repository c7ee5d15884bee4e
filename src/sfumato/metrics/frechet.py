"""Fréchet distance between two sets of feature vectors, each taken for a Gaussian.

With the features of an Inception network of 2015 this is the FID. What a distance means is decided
by the features, so those of other networks bear other names; see ``PooledAlexNet``.

Reference: Dowson and Landau, "The Fréchet distance between multivariate normal distributions",
1982; Heusel et al., "GANs trained by a two time-scale update rule ..." (FID), arXiv 1706.08500.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import SettingsError, ShapeError

#: (pictures, dimensions): one vector a picture. Sets may differ in size.
FeatureVectors: TypeAlias = Float[Tensor, "_ dimensions"]
Mean: TypeAlias = Float[Tensor, " dimensions"]
Covariance: TypeAlias = Float[Tensor, "dimensions dimensions"]

#: Of the largest eigenvalue: what rounding may leave of symmetry, and below zero.
_ROUNDING = 1e-5


def frechet_distance(mean_a: Mean, cov_a: Covariance, mean_b: Mean, cov_b: Covariance) -> float:
    """Return  ``d² = |m_a − m_b|² + tr(C_a + C_b − 2 (C_a^½ C_b C_a^½)^½)``.

    It is the squared distance that tables call FID. The last trace is the nuclear norm of
    ``C_a^½ C_b^½``, with roots by symmetric eigenvalues: nothing becomes complex, singular
    covariances are no trouble, and no digits are lost to squares. All in float64; means are
    (dimensions,), covariances (dimensions, dimensions).

    Raises ShapeError for shapes that do not belong together; SettingsError for NaN and infinity,
    and for what is no covariance: not symmetric, or with an eigenvalue below zero.

    Reference: Dowson and Landau, 1982, eq. 4; arXiv 1706.08500, eq. 6.

    >>> m, C = torch.zeros(2), torch.eye(2)
    >>> round(frechet_distance(m, C, m + 3, 4 * C), 9)
    20.0
    """
    n = mean_a.numel()
    wanted = [(n,), (n, n), (n,), (n, n)]
    shapes = [tuple(t.shape) for t in (mean_a, cov_a, mean_b, cov_b)]
    if shapes != wanted or n == 0:
        raise ShapeError(
            f"means and covariances of shapes {shapes}", expected="(n,), (n, n), (n,), (n, n)"
        )
    m_a, C_a, m_b, C_b = (t.double() for t in (mean_a, cov_a, mean_b, cov_b))
    _check_finite(m_a, C_a, m_b, C_b)
    overlap = torch.linalg.svdvals(_root(C_a) @ _root(C_b)).sum()
    distance = (m_a - m_b).square().sum() + C_a.trace() + C_b.trace() - 2 * overlap
    return max(0.0, float(distance))


def frechet_between(a: FeatureVectors, b: FeatureVectors) -> float:
    """Return the Fréchet distance of two sets of feature vectors, (pictures, dimensions) each.

    It shrinks as sets grow, by a bias of about ``dimensions² / pictures``: compare sets of one
    size only.

    Raises ShapeError where dimensions differ; SettingsError for NaN, and for fewer than
    ``dimensions + 1`` vectors, whose covariance is singular whatever the pictures are.

    >>> a = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    >>> round(frechet_between(a, a + 1), 6)
    4.0
    """
    check_vectors(a, b, least=1 + a.shape[-1], why="or the covariance is singular")
    return frechet_distance(*moments(a), *moments(b))


def moments(features: FeatureVectors) -> tuple[Mean, Covariance]:
    """Return mean (dimensions,) and unbiased covariance (dimensions, dimensions), in float64.

    Raises SettingsError for NaN and for fewer than two vectors.

    >>> moments(torch.tensor([[0.0], [2.0]]))[1].item()
    2.0
    """
    check_vectors(features, features, least=2, why="or there is no covariance")
    f = features.double()
    mean = f.mean(0)
    return mean, (f - mean).mT @ (f - mean) / (len(f) - 1)


def within_span(a: FeatureVectors, b: FeatureVectors) -> tuple[Tensor, Tensor]:
    """Return two sets of vectors in coordinates of what they span, which has no more dimensions.

    Of fewer vectors than dimensions the Fréchet distance is found there in far less time: no
    rotation or shift of both sets changes it. In float64.

    >>> a, b = torch.randn(3, 9, generator=torch.Generator().manual_seed(0)).split((2, 1))
    >>> within_span(a, b)[0].shape
    torch.Size([2, 3])
    """
    x = torch.cat([a, b]).double()
    x = x - x.mean(0)
    if x.shape[0] < x.shape[1]:
        x = x @ torch.linalg.qr(x.mT).Q
    return x[: len(a)], x[len(a) :]


def check_vectors(a: FeatureVectors, b: FeatureVectors, *, least: int, why: str) -> None:
    """See that two sets of feature vectors can be compared.

    Raises ShapeError for other shapes than (pictures, dimensions) with the same dimensions;
    SettingsError for fewer than ``least`` vectors (``why`` says what is wrong with fewer), and for
    NaN or infinity.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.shape[1] == 0:
        raise ShapeError(
            f"features of shapes {tuple(a.shape)} and {tuple(b.shape)}",
            expected="(pictures, dimensions), with the same dimensions",
        )
    n = min(len(a), len(b))
    if n < least:
        raise SettingsError(
            f"{n} pictures with features of {a.shape[1]} dimensions",
            expected=f"at least {least} pictures, {why}",
            do="take more pictures, or features of fewer dimensions",
        )
    _check_finite(a, b)


def _check_finite(*values: Tensor) -> None:
    if not all(bool(v.isfinite().all()) for v in values):
        raise SettingsError(
            "features with NaN or infinity",
            expected="finite numbers",
            do="look for a picture that is none, or a network that overflows",
        )


def _root(C: Covariance) -> Covariance:
    """Return ``C^½`` by symmetric eigenvalues, those below zero by rounding taken for 0."""
    values, vectors = torch.linalg.eigh(C)
    slack = _ROUNDING * float(C.abs().amax())
    if float((C - C.mT).abs().amax()) > slack or float(values[0]) < -slack * len(C):
        raise SettingsError(
            "a matrix that is no covariance", expected="symmetric, no eigenvalue below zero"
        )
    root: Covariance = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
    return root
