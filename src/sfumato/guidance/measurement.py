"""A measurement with its operator and its noise, in the units of the diffusion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato._typing import Images, Measurements
from sfumato.errors import ShapeError
from sfumato.guidance.clipping import completion
from sfumato.operators import Operator, Window


def to_model_units(A: Operator, y: Tensor) -> Tensor:
    """Turn the measurement of ``u`` in [0, 1] into that of ``x = 2 u − 1``:  A x = 2 A u − A 1."""
    return 2 * y - A(A.ones(y))


def to_unit_range(A: Operator, y: Tensor) -> Tensor:
    """Turn the measurement of ``x`` in [-1, 1] into that of ``u = (x + 1) / 2``.

    It undoes ``to_model_units``:  A u = (A x + A 1) / 2.
    """
    return (y + A(A.ones(y))) / 2


@dataclass(frozen=True)
class Measurement:
    """``y = A x + n`` with ``n ~ N(0, sigma_y² I)``, for ``x`` in [-1, 1].

    ``y`` has a batch axis of one. A noise that was stated for data in [0, 1] counts double here.
    """

    A: Operator
    y: Measurements
    sigma_y: float = 0.0
    #: ``A F``, where ``F`` keeps the pixels that may still change (None: all may).
    movable: Operator | None = None
    #: Whether ``y`` was clipped to [-1, 1] after its noise came, as pictures are.
    clips: bool = False
    #: So many channels are copies of one: their noise is one, and ``sigma_y`` is √copies times it.
    copies: int = 1

    @property
    def AF(self) -> Operator:
        """``A`` as corrections see it: they change what may still change, and no more."""
        return self.A if self.movable is None else self.movable

    def __post_init__(self) -> None:
        if tuple(self.y.shape) != (1, *self.A.out_shape):
            raise ShapeError(
                f"a measurement of shape {tuple(self.y.shape)}",
                expected=f"{(1, *self.A.out_shape)} for {self.A}",
            )
        if not bool(torch.isfinite(self.y).all()):
            raise ShapeError("a measurement with NaN or infinity", expected="finite numbers")

    def completed(self, x_0: Images) -> Tensor:
        """Return ``y``, and what was clipped of it as the estimate ``x_0`` has it.

        Clipped noise has another mean than 0: what was white would come out grey.
        """
        if not self.clips or self.sigma_y == 0:
            return self.y
        return completion(self.y, self.A(x_0), self.sigma_y, copies=self.copies)

    def residual(self, x_0: Images) -> Tensor:
        """Return ``y − A x_0``, with ``y`` completed where it was clipped."""
        return self.completed(x_0) - self.A(x_0)

    def crop(self, window: Window) -> Measurement:
        """Cut to one window of the image, aligned to the operator's cells.

        Where the operator has a halo, the values near the cut edges are those of the window alone.
        """
        return self._cut(self.A.crop(window), self.A.measured(window))

    def inside(self, window: Window) -> Measurement:
        """Cut to the values whose whole support is in a window; as ``crop`` without a halo."""
        return self._cut(*self.A.inside(window))

    def _cut(self, A: Operator, measured: Window) -> Measurement:
        return replace(self, A=A, y=measured.of(self.y), movable=None)
