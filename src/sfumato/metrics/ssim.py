"""The structural similarity index."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sfumato.errors import SettingsError, ShapeError
from sfumato.metrics._pictures import Pictures, Scores, check_pictures, crop

SIGMA = 1.5
K1, K2 = 0.01, 0.03


def ssim(
    a: Pictures, b: Pictures, *, window: int = 11, data_range: float = 1.0, border: int = 0
) -> Scores:
    """Return the mean structural similarity, 1 for equal pictures.

    ``SSIM = (2 μ_a μ_b + C₁)(2 σ_ab + C₂) / ((μ_a² + μ_b² + C₁)(σ_a² + σ_b² + C₂))``,
    ``C₁ = (0.01 L)²``, ``C₂ = (0.03 L)²``, ``L = data_range``. Means and (co)variances are
    weighted by a Gaussian of sigma 1.5 in a window of 11 x 11 pixels; only places where the window
    lies inside the picture count, and channels are averaged.

    ``a`` and ``b`` are (channels, height, width), or with a batch axis before it; ``border``
    pixels on each side are cut off first. The result is one number a picture: (), or (batch,).

    Raises ShapeError for shapes that differ and for pictures smaller than the window, whose
    ``window`` (odd) may be made smaller: such values do not compare with those of 11 pixels.

    Reference: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
    structural similarity", IEEE Transactions on Image Processing 13 (2004), eq. 13.

    >>> a = torch.linspace(0, 1, 256).view(1, 16, 16)
    >>> ssim(a, a).item()
    1.0
    """
    check_pictures(a, b)
    a, b = crop(a, border), crop(b, border)
    _check_window(window, a.shape[-2], a.shape[-1])
    map_ = _similarity(a, b, _gaussian(window).to(a), data_range)
    return map_.mean(dim=(-3, -2, -1))


def _check_window(window: int, height: int, width: int) -> None:
    if window < 1 or window % 2 == 0:
        raise SettingsError(f"window={window}", expected="an odd number of pixels")
    if min(height, width) < window:
        raise ShapeError(
            f"a picture of {height} x {width} pixels",
            expected=f"at least {window} x {window}, the window of SSIM",
            do="give a smaller odd window=",
        )


def _gaussian(window: int) -> Tensor:
    """Weights ``exp(−i² / 2σ²)`` that sum to 1, (window,), in float64."""
    i = torch.arange(window, dtype=torch.float64) - window // 2
    weights = torch.exp(-i.square() / (2 * SIGMA**2))
    return weights / weights.sum()


def _blur(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean around each pixel whose window lies inside; the two axes in turn."""
    planes = x.reshape(-1, 1, *x.shape[-2:])
    planes = functional.conv2d(
        functional.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1)
    )
    return planes.view(*x.shape[:-2], *planes.shape[-2:])


def _similarity(a: Tensor, b: Tensor, weights: Tensor, L: float) -> Tensor:
    """Eq. 13 at every place of the window."""
    C_1, C_2 = (K1 * L) ** 2, (K2 * L) ** 2
    mu_a, mu_b = _blur(a, weights), _blur(b, weights)
    var_a = _blur(a * a, weights) - mu_a * mu_a
    var_b = _blur(b * b, weights) - mu_b * mu_b
    cov = _blur(a * b, weights) - mu_a * mu_b
    luminance = (2 * mu_a * mu_b + C_1) / (mu_a * mu_a + mu_b * mu_b + C_1)
    structure = (2 * cov + C_2) / (var_a + var_b + C_2)
    return luminance * structure
