"""Grey with painted colour strokes: one linear measurement for colourisation by hand."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images, Measurements, Shape
from sfumato.errors import ShapeError
from sfumato.operators.base import Locality, Operator, Window
from sfumato.operators.grayscale import BT601


class GrayscaleWithHints(Operator):
    """All of ``x`` where colour is painted, and its grey elsewhere.

    ``A x = p x + (1 − p) w (wᵀx) / |w|²``  with ``p`` = ``painted`` (1, height, width), which is 1
    on strokes. The measurement has three channels: outside the strokes it is the grey value's
    pseudo-inverse. ``A`` is an orthogonal projection, so ``A = Aᵀ = A⁺``.

    >>> A = GrayscaleWithHints((3, 2, 2), torch.zeros(1, 2, 2))
    >>> y = A.join(torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, 3, 2, 2))
    >>> bool(torch.allclose(A(y), y))
    True
    """

    def __init__(
        self, in_shape: Shape, painted: Tensor, weights: tuple[float, float, float] = BT601
    ) -> None:
        if in_shape[0] != 3 or tuple(painted.shape) != (1, *in_shape[1:]):
            raise ShapeError(
                f"strokes of {painted.shape[-1]} x {painted.shape[-2]} pixels",
                expected=f"{in_shape[2]} x {in_shape[1]} like the picture",
                do="paint on a copy of the picture",
            )
        super().__init__(in_shape, in_shape)
        self.painted = painted
        self.weights = weights

    def _w(self, like: Tensor) -> Tensor:
        return torch.tensor(self.weights, dtype=like.dtype, device=like.device)[:, None, None]

    @override
    def forward(self, x: Images) -> Measurements:
        w, p = self._w(x), self.painted.to(x)
        grey = (w * x).sum(1, keepdim=True) * (w / (w * w).sum())
        return p * x + (1 - p) * grey

    @override
    def adjoint(self, y: Measurements) -> Images:
        return self.forward(y)

    @override
    def pinv(self, y: Measurements) -> Images:
        return self.forward(y)

    def join(self, grey: Tensor, colours: Tensor) -> Measurements:
        """Return the measurement of a grey picture with coloured strokes, all in [0, 1].

        A stroke takes its hue from the paint and its grey from the photograph; its saturation is
        lowered where that grey cannot be so colourful.
        """
        w = self._w(grey)
        chroma = colours - (w * colours).sum(1, keepdim=True) / w.sum()
        # The largest share t of the chroma for which grey + t chroma stays in [0, 1].
        room = torch.where(chroma > 0, 1 - grey, grey)
        t = (room / chroma.abs().clamp(min=1e-6)).amin(1, keepdim=True).clamp(0, 1)
        p = self.painted.to(grey)
        return p * (grey + t * chroma) + (1 - p) * grey * (w / (w * w).sum())

    @property
    @override
    def locality(self) -> Locality:
        return Locality(stride=1)

    @override
    def crop(self, window: Window) -> GrayscaleWithHints:
        shape = (3, window.height, window.width)
        return GrayscaleWithHints(shape, window.of(self.painted), self.weights)

    @override
    def measured(self, window: Window) -> Window:
        return window

    @override
    def __str__(self) -> str:
        return "grayscale_hints"
