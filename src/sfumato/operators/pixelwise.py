"""Operators on single pixels that keep the image's size: identity, nothing, and mask."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images, Measurements, Shape
from sfumato.errors import DegradationError, ShapeError
from sfumato.operators.base import Locality, Operator, Window, reciprocal


class _Pixelwise(Operator):
    """What they share: cells of one pixel, and a measurement of the image's size."""

    @property
    @override
    def locality(self) -> Locality:
        return Locality(stride=1)

    @override
    def measured(self, window: Window) -> Window:
        return window

    @property
    @override
    def disjoint_rows(self) -> bool:
        return True

    @abstractmethod
    def crop(self, window: Window) -> Operator: ...


class Identity(_Pixelwise):
    """``A = I``: every pixel is measured. With measurement noise, this is denoising.

    >>> import torch
    >>> A = Identity((3, 4, 4))
    >>> bool((A(torch.ones(1, 3, 4, 4)) == 1).all())
    True
    """

    def __init__(self, in_shape: Shape) -> None:
        super().__init__(in_shape, in_shape)

    @override
    def forward(self, x: Images) -> Measurements:
        return x

    @override
    def adjoint(self, y: Measurements) -> Images:
        return y

    @override
    def pinv(self, y: Measurements) -> Images:
        return y

    @property
    @override
    def gram_scale(self) -> float:
        return 1.0

    @override
    def crop(self, window: Window) -> Identity:
        return Identity((self.in_shape[0], window.height, window.width))

    @override
    def __str__(self) -> str:
        return "identity"


class Nothing(_Pixelwise):
    """``A = 0``: nothing is known, so that restoring makes an image from nothing.

    >>> import torch
    >>> A = Nothing((3, 4, 4))
    >>> bool((A(torch.ones(1, 3, 4, 4)) == 0).all())
    True
    """

    def __init__(self, in_shape: Shape) -> None:
        super().__init__(in_shape, in_shape)

    @override
    def forward(self, x: Images) -> Measurements:
        return 0 * x

    @override
    def adjoint(self, y: Measurements) -> Images:
        return 0 * y

    @override
    def pinv(self, y: Measurements) -> Images:
        return 0 * y

    @property
    @override
    def gram_scale(self) -> float:
        return 0.0

    @override
    def crop(self, window: Window) -> Nothing:
        return Nothing((self.in_shape[0], window.height, window.width))

    @override
    def __str__(self) -> str:
        return "nothing"


class Mask(_Pixelwise):
    """Keep the known pixels:  ``A x = m x``  with 1 = known, 0 = missing.

    ``m`` = ``known`` has the shape (1 or channels, height, width), floats or bool. Fractions
    between 0 and 1 weigh a pixel (they arise where a mask is pooled);  ``A⁺ y = y / m`` where
    ``m > 0``, else 0.

    >>> import torch
    >>> A = Mask((3, 2, 2), torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]))
    >>> A(torch.full((1, 3, 2, 2), 0.5))[0, 0].tolist()
    [[0.5, 0.0], [0.5, 0.5]]
    """

    def __init__(self, in_shape: Shape, known: Tensor, *, name: str = "mask") -> None:
        if known.ndim != 3 or known.shape[0] not in (1, in_shape[0]):
            raise ShapeError(
                f"a mask of shape {tuple(known.shape)}", expected="(1, height, width)"
            )
        if tuple(known.shape[1:]) != in_shape[1:]:
            raise ShapeError(
                f"a mask of {known.shape[2]} x {known.shape[1]} pixels",
                expected=f"{in_shape[2]} x {in_shape[1]} like the picture that it is laid on",
                do="resize the mask, or draw it on the picture itself",
            )
        if known.dtype is not torch.bool and (
            not bool(torch.isfinite(known).all())
            or float(known.min()) < 0
            or float(known.max()) > 1
        ):
            raise DegradationError(
                "a mask with values that are no share", expected="0 to 1 everywhere"
            )
        super().__init__(in_shape, in_shape)
        self._known = known
        self.name = name

    @property
    def known(self) -> Tensor:
        """The shares, as floats."""
        return self._known if self._known.is_floating_point() else self._known.float()

    @override
    def forward(self, x: Images) -> Measurements:
        return x * self._known.to(x)

    @override
    def adjoint(self, y: Measurements) -> Images:
        return y * self._known.to(y)

    @override
    def pinv(self, y: Measurements) -> Images:
        return y * reciprocal(self.known).to(y)

    @override
    def crop(self, window: Window) -> Mask:
        shape = (self.in_shape[0], window.height, window.width)
        return Mask(shape, window.of(self._known), name=self.name)

    @override
    def __str__(self) -> str:
        return self.name


def random_mask(in_shape: Shape, keep: float, seed: int = 0) -> Mask:
    """Keep each pixel with probability ``keep``, by ``seed``."""
    if not 0 < keep <= 1:
        raise DegradationError(f"a share of {keep} kept", expected="above 0 and at most 1")
    g = torch.Generator().manual_seed(seed)
    known = (torch.rand((1, *in_shape[1:]), generator=g) < keep).float()
    return Mask(in_shape, known, name=f"random_mask:{keep:g}:{seed}")
