"""Blur kernels: matrices of float64 that sum to 1, with odd sides and the centre in the middle.

No kernel is cut short: a tap that belongs to it is there, and the sum (the gain of a flat area) is
1.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from sfumato.errors import DegradationError
from sfumato.io import read_measurement

#: A kernel of ``height x width`` taps.
Kernel = Float64[Tensor, "height width"]

#: Gaussians reach this many standard deviations: what is left out is below 7e-5 of the sum.
_REACH = 4.0


def gaussian_kernel(sigma: float) -> Kernel:
    """Return a round Gaussian  k(d) ∝ exp(−‖d‖² / 2 σ²)  of radius ⌈4 σ⌉.

    Args:
        sigma: standard deviation in pixels, positive.

    Raises DegradationError for other values.

    >>> gaussian_kernel(2.0).shape
    torch.Size([17, 17])
    """
    return anisotropic_gaussian_kernel(sigma, sigma, 0.0)


def anisotropic_gaussian_kernel(sigma_1: float, sigma_2: float, angle_degrees: float) -> Kernel:
    """Return a Gaussian with two widths,  k(d) ∝ exp(−½ (d·e₁)²/σ₁² − ½ (d·e₂)²/σ₂²).

    Args:
        sigma_1: standard deviation in pixels along ``e₁``, positive.
        sigma_2: standard deviation in pixels across, along ``e₂``, positive.
        angle_degrees: direction of ``e₁``, counted from the right towards the top of the picture.

    Raises DegradationError for widths that are not positive or an angle that is not finite.

    >>> k = anisotropic_gaussian_kernel(3.0, 1.0, 0.0)
    >>> k.shape, round(float(k.sum()), 12)
    (torch.Size([9, 25]), 1.0)
    """
    _require(_positive(sigma_1) and _positive(sigma_2), f"sigma {sigma_1:g}, {sigma_2:g}")
    cos, sin = _direction(angle_degrees)
    half_height = _REACH * math.hypot(sigma_1 * sin, sigma_2 * cos)
    half_width = _REACH * math.hypot(sigma_1 * cos, sigma_2 * sin)
    down, right = _grid(_radius(half_height), _radius(half_width))
    along, across = right * cos - down * sin, right * sin + down * cos
    return _normalised(torch.exp(-0.5 * ((along / sigma_1) ** 2 + (across / sigma_2) ** 2)))


def uniform_kernel(size: int) -> Kernel:
    """Return the mean over ``size x size`` pixels,  k = 1 / size².

    With an even ``size`` the centre is tap ``size / 2``: the blurred picture lies half a pixel up
    and left of what it would be with an odd one.

    Raises DegradationError unless ``size`` is a positive whole number.

    >>> uniform_kernel(2)
    tensor([[0.2500, 0.2500],
            [0.2500, 0.2500]], dtype=torch.float64)
    """
    _require(
        _positive(size) and int(size) == size,
        f"a kernel of size {size}",
        expected="a whole number of 1 or more",
    )
    return _normalised(torch.ones(int(size), int(size), dtype=torch.float64))


def motion_kernel(length: float, angle_degrees: float) -> Kernel:
    """Return the blur of a straight, even motion: a line of ``length`` pixels about the centre.

    A tap is the share of the line that runs inside its pixel,  k[i, j] = |{t : |t cosα − j| ≤ ½,
    |t sinα + i| ≤ ½, |t| ≤ length/2}| / length,  so the line is antialiased along its length, any
    real length and angle is met, and the kernel equals itself turned by 180 degrees.

    Args:
        length: way of the motion in pixels, positive; below 1 at angle 0 nothing is blurred.
        angle_degrees: direction, counted from the right towards the top of the picture.

    Raises DegradationError for a length that is not positive or an angle that is not finite.

    >>> motion_kernel(3, 0.0)
    tensor([[0.3333, 0.3333, 0.3333]], dtype=torch.float64)
    """
    _require(_positive(length), f"a motion of length {length:g}")
    cos, sin = _direction(angle_degrees)
    half = length / 2
    down, right = _grid(_radius(half * abs(sin) - 0.5), _radius(half * abs(cos) - 0.5))
    start, end = torch.full_like(down, -half), torch.full_like(down, half)
    for speed, place in ((cos, right), (-sin, down)):
        if speed == 0.0:
            end = torch.where(place.abs() <= 0.5, end, start)
            continue
        edges = torch.stack([(place - 0.5) / speed, (place + 0.5) / speed])
        start, end = torch.maximum(start, edges.amin(0)), torch.minimum(end, edges.amax(0))
    inside = (end - start).clamp_min(0.0)
    return _normalised(inside + inside.flip(0, 1))


def read_kernel(path: str | Path) -> Kernel:
    """Read a kernel from a picture or a matrix of numbers, and divide it by its sum.

    Args:
        path: a grey picture (of colours the mean counts) or what ``sfumato.io.read_measurement``
            takes
            beside: a float TIFF, a .npy array, in which taps may be negative.

    Raises ImageError for a file that cannot be read, DegradationError where the sum is not
    positive.

    >>> import numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/k.npy", np.ones((2, 2)))
    ...     read_kernel(f"{folder}/k.npy")
    tensor([[0.2500, 0.2500],
            [0.2500, 0.2500]], dtype=torch.float64)
    """
    k = read_measurement(path).to(torch.float64).mean(0)
    _require(
        bool(k.sum() > 0),
        f"{path} with taps that sum to {float(k.sum()):g}",
        expected="a kernel with a sum above 0",
    )
    return _normalised(k)


def _radius(reach: float) -> int:
    """Return the taps needed on each side of the centre; a rounding error does not add one."""
    return max(0, math.ceil(reach - 1e-9))


def _grid(half_height: int, half_width: int) -> tuple[Tensor, Tensor]:
    """Return each tap's place below and to the right of the centre."""
    down = torch.arange(-half_height, half_height + 1, dtype=torch.float64)
    right = torch.arange(-half_width, half_width + 1, dtype=torch.float64)
    return down[:, None].expand(-1, len(right)), right.expand(len(down), -1)


def _direction(angle_degrees: float) -> tuple[float, float]:
    """Cosine and sine, exact at multiples of 90°: kernels along the axes are symmetric."""
    _require(
        math.isfinite(angle_degrees),
        f"an angle of {angle_degrees:g} degrees",
        expected="a finite angle",
    )
    quarter, rest = divmod(angle_degrees, 90.0)
    cos, sin = math.cos(math.radians(rest)), math.sin(math.radians(rest))
    return ((cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos))[int(quarter) % 4]


def _normalised(k: Tensor) -> Kernel:
    return k / k.sum()


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _require(holds: bool, got: str, *, expected: str = "a finite value above 0") -> None:
    if not holds:
        raise DegradationError(got, expected=expected, do="correct the kernel's parameter")
