"""Colour to grey: what colourisation has to undo."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images, Measurements, Shape
from sfumato.errors import DegradationError, ShapeError
from sfumato.operators.base import Locality, Operator, Window

#: Rec. ITU-R BT.601 luma, what scanners, JPEG and most programs mean by grey.
BT601 = (0.299, 0.587, 0.114)


class Grayscale(Operator):
    """Weighted mean of the channels:  ``A x = Σ_c w_c x_c``.

    ``A⁺ y = w y / |w|²`` and ``A Aᵀ = |w|² I``: exact for the weights given, whatever their sum.

    >>> import torch
    >>> A = Grayscale((3, 2, 2))
    >>> round(float(A(torch.ones(1, 3, 2, 2)).mean()), 6)
    1.0
    """

    def __init__(self, in_shape: Shape, weights: tuple[float, ...] = BT601) -> None:
        c, h, w = in_shape
        if c != len(weights):
            raise ShapeError(
                f"a picture with {c} channels", expected=f"{len(weights)}, one for each weight"
            )
        total = sum(v * v for v in weights)
        if not 0 < total < float("inf"):
            raise DegradationError(
                f"grey weights {weights}", expected="finite numbers, not all zero"
            )
        super().__init__(in_shape, (1, h, w))
        self.weights = tuple(weights)
        self._total = total

    def _w(self, like: Tensor) -> Tensor:
        return torch.tensor(self.weights, dtype=like.dtype, device=like.device)[:, None, None]

    @override
    def forward(self, x: Images) -> Measurements:
        return (x * self._w(x)).sum(1, keepdim=True)

    @override
    def adjoint(self, y: Measurements) -> Images:
        return y * self._w(y)

    @override
    def pinv(self, y: Measurements) -> Images:
        return y * (self._w(y) / self._total)

    @property
    @override
    def locality(self) -> Locality:
        return Locality(stride=1)

    @override
    def crop(self, window: Window) -> Grayscale:
        return Grayscale((self.in_shape[0], window.height, window.width), self.weights)

    @override
    def measured(self, window: Window) -> Window:
        return window

    @property
    @override
    def disjoint_rows(self) -> bool:
        return True

    @property
    @override
    def gram_scale(self) -> float:
        return self._total

    @override
    def __str__(self) -> str:
        if self.weights == BT601:
            return "grayscale"
        return "grayscale:" + ":".join(f"{v:g}" for v in self.weights)
