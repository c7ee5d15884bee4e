"""Linear physics of the library deepinv, taken as they are."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images, Measurements, Shape
from sfumato.errors import DegradationError
from sfumato.operators.base import Operator


@runtime_checkable
class LinearPhysics(Protocol):
    """What is needed of deepinv's ``LinearPhysics``: three methods, on batches."""

    def A(self, x: Tensor, /) -> Tensor:
        """Measure without noise: ``A x``."""

    def A_adjoint(self, y: Tensor, /) -> Tensor:
        """Return ``Aᵀ y``."""

    def A_dagger(self, y: Tensor, /) -> Tensor:
        """Return ``A⁺ y``."""


class FromDeepinv(Operator):
    """An operator whose maps are ``physics.A``, ``physics.A_adjoint`` and ``physics.A_dagger``.

    The physics is used unmodified and deepinv is not imported. Its ``forward``, which adds noise,
    is not called. deepinv keeps pictures in [0, 1]; as the maps are linear they serve pictures in
    [-1, 1] as well, with measurements y_model = 2 y − A 1. The pseudo-inverse is as exact as
    ``A_dagger`` is: where deepinv computes it by iterations, its own ``tol`` and ``max_iter``
    decide.

    The shape of measurements is found by measuring zeros. Those that are no images, ``(batch, n)``
    say, are laid out as an image of one row. The physics decides about device and dtype: it must
    hold its parameters where the images are.

    Args:
        physics: any object with the three methods.
        in_shape: ``(channels, height, width)`` of images.
        name: text form, for display; the class of the physics by default.

    Raises DegradationError for an object without these methods, and where a measurement is not one
    real tensor.

    Reference: https://deepinv.github.io, ``deepinv.physics.LinearPhysics``.

    >>> class Halve:
    ...     A = A_adjoint = staticmethod(lambda x: x / 2)
    ...     A_dagger = staticmethod(lambda y: 2 * y)
    >>> A = FromDeepinv(Halve(), (1, 2, 2))
    >>> str(A), A.pinv(A(torch.ones(1, 1, 2, 2))).unique()
    ('deepinv:Halve', tensor([1.]))
    """

    def __init__(self, physics: LinearPhysics, in_shape: Shape, *, name: str = "") -> None:
        if not isinstance(physics, LinearPhysics):
            raise DegradationError(
                f"an object of type {type(physics).__name__}",
                expected="linear physics with A, A_adjoint and A_dagger",
                do="derive it from deepinv.physics.LinearPhysics",
            )
        y = physics.A(torch.zeros((1, *in_shape), device=_device_of(physics)))
        if not isinstance(y, Tensor) or y.is_complex():
            got = f"dtype {y.dtype}" if isinstance(y, Tensor) else f"type {type(y).__name__}"
            raise DegradationError(
                f"a measurement of {got}",
                expected="one real tensor",
                do="give complex parts as channels, and several measurements as several operators",
            )
        self._y_shape = tuple(y.shape[1:])
        c, h, w = self._y_shape if y.ndim == 4 else (1, 1, math.prod(self._y_shape))
        super().__init__(in_shape, (c, h, w))
        self.physics = physics
        self.name = name or f"deepinv:{type(physics).__name__}"

    @override
    def forward(self, x: Images) -> Measurements:
        return self.physics.A(x).reshape(len(x), *self.out_shape).to(x.dtype)

    @override
    def adjoint(self, y: Measurements) -> Images:
        return self.physics.A_adjoint(y.reshape(len(y), *self._y_shape)).to(y.dtype)

    @override
    def pinv(self, y: Measurements) -> Images:
        return self.physics.A_dagger(y.reshape(len(y), *self._y_shape)).to(y.dtype)

    @override
    def __str__(self) -> str:
        return self.name


def _device_of(physics: object) -> torch.device:
    """Return where the physics keeps its parameters (masks, filters); the CPU if it has none."""
    if isinstance(physics, torch.nn.Module):
        for held in (*physics.parameters(), *physics.buffers()):
            return held.device
    return torch.device("cpu")
