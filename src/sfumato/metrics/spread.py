"""How a picture's samples differ from each other, and its colours from those of another."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ShapeError
from sfumato.metrics._pictures import Pictures, Scores, check_pictures

#: Samples of one picture.
Samples = Float[Tensor, "samples channels height width"]


def colour_bias(a: Pictures, b: Pictures) -> Scores:
    """Return by how much the mean colour is off:  ``√ mean_c (mean_hw (a − b)_c)²``.

    ``a`` and ``b`` are (channels, height, width), or with a batch axis before it; the result, one
    number a picture, is in their units. Noise does not enter, a veil of colour does.

    Raises ShapeError for shapes that differ, ImageError for integer values.

    >>> round(colour_bias(torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.5)).item(), 3)
    0.5
    """
    check_pictures(a, b)
    return (a - b).mean(dim=(-2, -1)).square().mean(dim=-1).sqrt()


def diversity(samples: Samples) -> Float[Tensor, ""]:
    """Return the mean over pixels and channels of the standard deviation over the samples.

    ``mean_chw √(Σ_n (x_n − x̄)² / (N − 1))``, in the units of the samples.

    Raises ShapeError for fewer than two samples.

    >>> diversity(torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 2.0)])).item() ** 2
    2.0...
    """
    _check_several(samples)
    return samples.std(dim=0).mean()


def pairwise(distance: Callable[[Tensor, Tensor], Tensor], samples: Samples) -> Float[Tensor, ""]:
    """Return the mean of a ``distance`` over all pairs of samples.

    ``distance`` takes two pictures (channels, height, width).

    Raises ShapeError for fewer than two samples.

    >>> samples = torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1, 1)
    >>> pairwise(lambda a, b: (a - b).abs().mean(), samples).item()
    2.0
    """
    _check_several(samples)
    return torch.stack([distance(a, b) for a, b in combinations(samples, 2)]).mean()


def _check_several(samples: Tensor) -> None:
    check_pictures(samples)
    if len(samples) < 2:
        raise ShapeError(f"{len(samples)} sample", expected="at least 2, to compare them")
