"""Features of pictures, for distances between sets of them: one vector a picture.

Any callable of pictures (batch, 3, height, width) in [0, 1] that returns (batch, dimensions) will
do; here are one that needs no download, and the reduction to few dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.metrics._pictures import check_pictures
from sfumato.metrics.frechet import FeatureVectors, check_vectors
from sfumato.metrics.perceptual import Network, Trunk, find_weights

#: A feature network: pictures (batch, 3, height, width) in [0, 1] to (batch, dimensions).
Features: TypeAlias = Callable[[Tensor], Tensor]


@final
class PooledFeatures:
    """``φ(a) = (mean_{h,w} √w_lc â_lchw)_lc``: appearance, by the channels of a classifier.

    ``â_l`` are the features of layer ``l`` (of five) of shift-tolerant LPIPS, at each place scaled
    to length 1, and ``w_lc`` its calibrated weights: 1152 of AlexNet, 1472 of VGG-16. So
    ``|φ(a) − φ(b)|²`` is at most the perceptual distance of the two, and what is left is blind to
    where things are. Distances by these features are **not** FID or KID: reports call them
    "AlexNet-Fréchet" and "AlexNet-kernel", by the ``name`` of the network.

    Raises SettingsError where the package with the weights is missing, ModelError where its file
    is damaged.

    Reference: as ``ShiftTolerantLPIPS``.

    >>> PooledFeatures("vgg")(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1472])
    """

    def __init__(self, network: Network = "alex", weights: Path | None = None) -> None:
        """Load ``weights``, by default the file of the installed ``stlpips_pytorch``."""
        self.name = {"alex": "AlexNet", "vgg": "VGG"}[network]
        wanted_by = f"the distance by {self.name}'s features"
        found = weights or find_weights(wanted_by, network=network)
        self._trunk = Trunk.installed(found, network)

    def __call__(self, pictures: Float[Tensor, "batch channels height width"]) -> FeatureVectors:
        """Return (batch, dimensions) for pictures in [0, 1] of at least 21 x 21 pixels.

        Raises ShapeError for smaller ones, and for channels other than 1 or 3.
        """
        check_pictures(pictures)
        layers = self._trunk(pictures)
        return torch.cat([(w.sqrt() * unit).mean((2, 3)) for unit, w in layers], dim=1)


def PooledAlexNet(weights: Path | None = None) -> PooledFeatures:
    """Return `PooledFeatures` of AlexNet.

    >>> PooledAlexNet()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1152])
    """
    return PooledFeatures("alex", weights)


@dataclass(frozen=True, eq=False)
class Projection:
    """``p(f) = Vᵀ (f − m) / s``: features in the few directions in which a reference set differs.

    ``m`` (dimensions,) is the reference's mean, ``V`` (dimensions, kept) its first principal
    directions, and ``s`` such that the reference's kept features have variance 1 on average. With
    few pictures few directions must do: a covariance in many is singular.

    >>> f = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 5
    >>> p = Projection.of(f, 3)
    >>> p(f).shape, round(p(f).square().mean().item(), 6)
    (torch.Size([40, 3]), 1.0)
    """

    mean: Tensor
    directions: Tensor
    scale: float

    @classmethod
    def of(cls, reference: FeatureVectors, kept: int) -> Projection:
        """Find the ``kept`` directions of largest variance, or all if there are fewer.

        Raises SettingsError for NaN, for fewer than ``kept + 1`` vectors, and for vectors that are
        all equal.
        """
        kept = min(kept, reference.shape[-1])
        if kept < 1:
            raise SettingsError(f"{kept} dimensions", expected="at least 1")
        check_vectors(reference, reference, least=kept + 1, why="to find so many directions")
        f = reference.double()
        mean = f.mean(0)
        _, S, Vt = torch.linalg.svd(f - mean, full_matrices=False)
        scale = float((S[:kept].square().sum() / (len(f) * kept)).sqrt())
        if scale <= 1e-9 * float(f.abs().amax()):
            raise SettingsError(
                f"{len(f)} pictures whose features are all equal", expected="different pictures"
            )
        return cls(mean, Vt[:kept].mT.contiguous(), scale)

    def __call__(self, features: FeatureVectors) -> Float[Tensor, "_ kept"]:
        """Return (pictures, kept), in float64."""
        return (features.double() - self.mean) @ self.directions / self.scale
