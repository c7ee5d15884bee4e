"""Average pooling: the measurement of a sensor with pixels s times as wide."""

from __future__ import annotations

import torch.nn.functional as F
from typing_extensions import override

from sfumato._typing import Images, Measurements, Shape
from sfumato.errors import DegradationError, ShapeError
from sfumato.operators.base import Locality, Operator, Window


class AveragePool(Operator):
    """Mean of each ``s x s`` cell:  ``(A x)[i, j] = 1/s² Σ x[s i + a, s j + b]``.

    ``A⁺`` replicates each value over its cell, ``Aᵀ = A⁺ / s²``, and ``A Aᵀ = I / s²``. Sides of
    ``x`` are multiples of ``s``.

    >>> import torch
    >>> A = AveragePool((3, 8, 12), 4)
    >>> tuple(A(torch.zeros(1, 3, 8, 12)).shape)
    (1, 3, 2, 3)
    """

    def __init__(self, in_shape: Shape, factor: int) -> None:
        if factor < 1:
            raise DegradationError(
                f"a factor of {factor}", expected="a whole number of at least 1"
            )
        c, h, w = in_shape
        if h % factor or w % factor:
            raise ShapeError(
                f"an image of {w} x {h} pixels",
                expected=f"sides that are multiples of {factor}",
                do=f"crop it to {w - w % factor} x {h - h % factor}",
            )
        super().__init__(in_shape, (c, h // factor, w // factor))
        self.factor = factor

    @override
    def forward(self, x: Images) -> Measurements:
        s = self.factor
        # One axis after the other: four times as fast as both at once.
        y: Measurements = x.unflatten(2, (-1, s)).mean(3).unflatten(3, (-1, s)).mean(4)
        return y

    @override
    def adjoint(self, y: Measurements) -> Images:
        return self.pinv(y) / self.factor**2

    @override
    def pinv(self, y: Measurements) -> Images:
        return F.interpolate(y, scale_factor=self.factor, mode="nearest")

    @property
    @override
    def locality(self) -> Locality:
        return Locality(stride=self.factor)

    @override
    def crop(self, window: Window) -> AveragePool:
        return AveragePool((self.in_shape[0], window.height, window.width), self.factor)

    @override
    def measured(self, window: Window) -> Window:
        s = self.factor
        return Window(window.top // s, window.left // s, window.height // s, window.width // s)

    @property
    @override
    def disjoint_rows(self) -> bool:
        return True

    @property
    @override
    def gram_scale(self) -> float:
        return 1 / self.factor**2

    @override
    def __str__(self) -> str:
        return f"average_pool:{self.factor}"
