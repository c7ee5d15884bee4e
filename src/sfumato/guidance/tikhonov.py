"""The damped inverse of an operator, which several methods share."""

from __future__ import annotations

from typing import final

from torch import Tensor

from sfumato._typing import Images, Measurements
from sfumato.linalg import conjugate_gradient
from sfumato.operators import Operator


@final
class Tikhonov:
    """``K_d = Aᵀ (A Aᵀ + d I)⁻¹``;  ``K_0 = A⁺``.

    By singular values where they are cheap, else by conjugate gradients up to a residual of
    ``tolerance``.
    """

    def __init__(self, A: Operator, *, tolerance: float = 1e-3) -> None:
        self._A = A
        self._svd = A.svd()
        self._tolerance = tolerance

    def __call__(self, v: Measurements, damping: float) -> Images:
        """Apply ``K`` with this ``damping`` to a batch."""
        A = self._A
        if damping == 0:
            return A.pinv(v)
        if self._svd is not None:
            s = self._svd.s.to(v)
            weighted: Tensor = s / (s**2 + damping) * self._svd.u_t(v)
            return self._svd.v(weighted)
        solution = conjugate_gradient(
            lambda u: A.forward(A.adjoint(u)) + damping * u,
            v,
            tolerance=self._tolerance,
            max_iterations=1000,
        )
        return A.adjoint(solution)
