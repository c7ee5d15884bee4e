"""Peak signal-to-noise ratio, of all channels or of luma alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ShapeError
from sfumato.metrics._pictures import Pictures, Scores, check_pictures, crop

#: ITU-R BT.601, studio swing: black is 16, white 235 (= 16 + the sum of these).
BT601 = (65.481, 128.553, 24.966)


def to_luma(rgb: Pictures) -> Float[Tensor, "*batch 1 height width"]:
    """Return luma:  ``Y = (65.481 R + 128.553 G + 24.966 B + 16) / 255``.

    ``rgb`` is (..., 3, height, width) in [0, 1]; the result is (..., 1, height, width) in
    [16/255, 235/255], MATLAB's ``rgb2ycbcr``, which the super-resolution tables are made with.

    Raises ShapeError where there are not three channels. Reference: ITU-R BT.601.

    >>> to_luma(torch.ones(3, 1, 1)).mul(255).round().flatten().tolist()
    [235.0]
    """
    check_pictures(rgb)
    if rgb.shape[-3] != len(BT601):
        raise ShapeError(f"{rgb.shape[-3]} channels", expected="3: red, green, blue")
    weights: Tensor = rgb.new_tensor(BT601).view(3, 1, 1)
    return ((rgb * weights).sum(dim=-3, keepdim=True) + 16) / 255


def psnr(a: Pictures, b: Pictures, data_range: float = 1.0, border: int = 0) -> Scores:
    """Return the peak signal-to-noise ratio in decibels:  ``10 log10(L² / mean (a − b)²)``.

    ``a`` and ``b`` have one shape, (channels, height, width) or with a batch axis before it; ``L``
    is ``data_range``; ``border`` pixels on each side do not count. The result is one number a
    picture: (), or (batch,). It is infinite for equal pictures.

    Raises ShapeError for shapes that differ, ImageError for integer values.

    >>> psnr(torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.1)).item()
    20.0
    """
    check_pictures(a, b)
    error = (crop(a, border) - crop(b, border)).square().mean(dim=(-3, -2, -1))
    return 10 * torch.log10(data_range**2 / error)


def psnr_luma(a: Pictures, b: Pictures, border: int = 0) -> Scores:
    """Return the PSNR of luma in decibels, as super-resolution tables have it ("Y-PSNR").

    ``psnr(to_luma(a), to_luma(b))``: ``a`` and ``b`` are RGB in [0, 1], the peak is 255 although
    luma spans only 16 to 235. Those tables use a ``border`` of as many pixels as the scale.

    Raises as ``psnr`` and ``to_luma`` do.

    >>> round(psnr_luma(torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.1)).item(), 2)
    21.32
    """
    return psnr(to_luma(a), to_luma(b), border=border)
