"""An operator from two functions, for those whose pseudo-inverse has no closed form."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images, Measurements, Shape
from sfumato.errors import DegradationError
from sfumato.linalg import least_squares, widened
from sfumato.operators.base import Operator


class KrylovPinv(Operator):
    """``A`` and ``Aᵀ`` as given, and ``A⁺`` from them by conjugate gradients.

    A⁺ y = argmin ‖A x − y‖² + damping² ‖x‖²,  the shortest one.

    Any rank will do. The number of products with ``A`` grows with the ratio of its largest to its
    smallest non-zero singular value, which ``damping`` bounds; with damping, ``A⁺ A A⁺ = A⁺``
    holds only for singular values far above it. Iterations run in float64, so the functions must
    follow the dtype of what they are given.

    Args:
        forward: ``x -> A x``, ``(batch, *in_shape)`` to ``(batch, *out_shape)``, linear.
        adjoint: ``y -> Aᵀ y``, back.
        in_shape: ``(channels, height, width)`` of images.
        out_shape: the same of measurements.
        damping: Tikhonov's parameter, in the unit of the singular values.
        tolerance: length of the normal equations' residual to reach, as a share of that of
            ``Aᵀ y``.
        max_iterations: products with ``A`` to spend; then a ``NotConvergedWarning`` is given.
        name: text form, for display.

    Raises DegradationError for settings that are not positive (``damping``: negative).

    >>> import torch
    >>> sums, spread = lambda x: x.sum(3, keepdim=True), lambda y: y.expand(-1, -1, -1, 4)
    >>> A = KrylovPinv(sums, spread, (1, 2, 4), (1, 2, 1))
    >>> A.pinv(torch.full((1, 1, 2, 1), 8.0)).unique()
    tensor([2.])
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor],
        in_shape: Shape,
        out_shape: Shape,
        *,
        damping: float = 0.0,
        tolerance: float = 1e-10,
        max_iterations: int = 2000,
        name: str = "custom",
    ) -> None:
        super().__init__(in_shape, out_shape)
        if not (damping >= 0 and tolerance > 0 and max_iterations >= 1):
            raise DegradationError(
                f"damping {damping}, tolerance {tolerance}, max_iterations {max_iterations}",
                expected="damping of 0 or more, a tolerance above 0, at least one iteration",
            )
        self._forward = forward
        self._adjoint = adjoint
        self._damping = damping
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.name = name

    @override
    def forward(self, x: Images) -> Measurements:
        return self._forward(x)

    @override
    def adjoint(self, y: Measurements) -> Images:
        return self._adjoint(y)

    @override
    def pinv(self, y: Measurements) -> Images:
        x = least_squares(
            self._forward,
            self._adjoint,
            widened(y),
            damping=self.damping,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )
        return x.to(y.dtype)

    @property
    @override
    def damping(self) -> float:
        return self._damping

    @override
    def __str__(self) -> str:
        return self.name
