"""Whether a result still explains its measurement."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import SettingsError, ShapeError


@dataclass(frozen=True)
class Consistency:
    """How far ``A x`` is from ``y``, over all measured entries.

    ``rmse_255``: root mean square error in 8-bit steps. ``mse_1e5``: mean square error on the
    scale [0, 1], times 10⁵, the unit of SR3's tables.
    """

    rmse_255: float
    mse_1e5: float


def rmse(
    a: Float[Tensor, " ..."], b: Float[Tensor, " ..."], weight: Float[Tensor, " ..."] | None = None
) -> Float[Tensor, ""]:
    """Return the root mean square error:  ``√(Σ w (a − b)² / Σ w)``, over all entries.

    ``a`` and ``b`` have one shape, any; ``weight`` (broadcast to it, at least 0) marks the
    measured entries that count, all of them by default. The result is in the units of ``a``, and 0
    where no entry counts. The sum is taken in float64 where the device has it.

    Raises ShapeError for shapes that differ or do not broadcast, SettingsError for a negative
    weight.

    >>> known = torch.tensor([1.0, 1.0, 0.0])
    >>> rmse(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([7.0, 10.0, 0.0]), known).square().item()
    50.0
    """
    if a.shape != b.shape:
        raise ShapeError(
            f"measurements of shapes {tuple(a.shape)} and {tuple(b.shape)}",
            expected="two of one shape",
        )
    square = (a - b).square()
    exact = torch.float32 if a.device.type == "mps" else torch.float64
    if weight is None:
        return square.mean(dtype=exact).sqrt().to(a.dtype)
    w = _weight_of(weight, a)
    total = w.sum(dtype=exact)
    mean = (w * square).sum(dtype=exact) / total.clamp_min(torch.finfo(exact).tiny)
    return mean.sqrt().to(a.dtype)


def _weight_of(weight: Tensor, a: Tensor) -> Tensor:
    if weight.numel() and weight.min() < 0:
        raise SettingsError(f"a weight of {float(weight.min()):g}", expected="0 or more")
    try:
        return weight.to(a).expand_as(a)
    except RuntimeError as error:
        raise ShapeError(
            f"a weight of shape {tuple(weight.shape)}",
            expected=f"one that broadcasts to {tuple(a.shape)}, the measurement's",
        ) from error


def consistency(
    Ax: Float[Tensor, " ..."],
    y: Float[Tensor, " ..."],
    *,
    weight: Float[Tensor, " ..."] | None = None,
    data_range: float = 1.0,
) -> Consistency:
    """Compare what the result would measure, ``Ax``, with what was measured, ``y``.

    ``rmse_255 = 255 RMSE / L``, ``mse_1e5 = 10⁵ (RMSE / L)²`` with ``L = data_range``: 1 for
    values in [0, 1], 2 for [-1, 1]. Shapes, ``weight`` and errors are those of ``rmse``.

    An 8-bit measurement carries a rounding noise of 1/√12 = 0.29 steps; agreement below that says
    nothing more about the scene.

    Reference: Saharia et al., "Image super-resolution via iterative refinement" (SR3), 2021, whose
    tables give "consistency" as MSE x 10⁻⁵ of the low-resolution pictures.

    >>> report = consistency(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 2 / 255))
    >>> round(report.rmse_255, 4), round(report.mse_1e5, 4)
    (2.0, 6.1515)
    """
    if not data_range > 0:
        raise SettingsError(f"data_range={data_range}", expected="a number above 0")
    error = float(rmse(Ax, y, weight)) / data_range
    return Consistency(rmse_255=255 * error, mse_1e5=1e5 * error**2)
