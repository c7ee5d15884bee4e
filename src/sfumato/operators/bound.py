"""An operator on a window that is bound to finished pixels along its upper and left sides."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images, Measurements
from sfumato.operators.base import SVD, Axis, Operator, Window, reciprocal
from sfumato.operators.restricted import restricted

#: Turns that the rectangles take; what is left after these is below the rounding of 8 bits.
_TURNS = 3


class Bound(Operator):
    """``A F``, where ``F`` keeps the pixels that lie in any of the rectangles ``free``.

    ``pinv`` solves  A F x = y  in each rectangle in turn, given the others (block Gauss-Seidel):
    a solution, where the pseudo-inverse would be the shortest one. With one rectangle it is that
    of ``restricted``.

    Raises ShapeError for a rectangle that is empty or not inside.

    >>> from sfumato.operators import Bicubic
    >>> A, _ = Bicubic((3, 256, 256), 4).inside(Window(64, 64, 64, 64))
    >>> B, y = Bound(A, [Window(48, 0, 16, 64), Window(16, 24, 48, 40)]), torch.rand(1, 3, 12, 12)
    >>> bool((B.pinv(y)[..., :16, :] == 0).all())
    True
    """

    def __init__(self, A: Operator, free: Sequence[Window]) -> None:
        super().__init__(A.in_shape, A.out_shape)
        self.A = A
        self.parts = [restricted(A, part) for part in free]
        self.mask: Tensor = torch.zeros((1, *A.in_shape[1:]))
        for part in free:
            part.of(self.mask).fill_(1.0)

    @override
    def forward(self, x: Images) -> Measurements:
        return self.A.forward(self.mask.to(x) * x)

    @override
    def adjoint(self, y: Measurements) -> Images:
        return self.mask.to(y) * self.A.adjoint(y)

    @override
    def pinv(self, y: Measurements) -> Images:
        """Return a solution of  A F x = y  where there is one, else nearly one."""
        if len(self.parts) == 1:
            return self.parts[0].pinv(y)
        svds = [svd for part in self.parts if (svd := part.svd()) and svd.u]
        if len(svds) == len(self.parts):
            return _taking_turns(svds, y)
        x = self.parts[-1].pinv(y)
        for _ in range(_TURNS):
            for part in self.parts:
                x = x + part.pinv(y - self.A.forward(x))
        return x

    def energy(self) -> Tensor | None:
        """Return  Σ_j (A F)_ij²  of every row, (height, width) of ``y``, in float64.

        None where ``A`` is not known to be a product of axes.
        """
        if self.A.axes is None:
            return None
        h, w = (_squares(axis) for axis in self.A.axes)
        return h @ self.mask[0].double() @ w.mT

    @property
    @override
    def ratio(self) -> int:
        return self.A.ratio

    @override
    def __str__(self) -> str:
        return str(self.A)


@lru_cache(maxsize=16)
def _squares(axis: Axis) -> Tensor:
    return axis.matrix().square()


def _taking_turns(svds: Sequence[SVD], y: Measurements) -> Images:
    """Do what ``Bound.pinv`` does among the values, of which there are fewer than pixels.

    What a rectangle  A_k = U diag(s) Vᵀ  does in its turn,  x ← x + A_k⁺ r,  leaves of the
    residual  r ← r − U Uᵀ r  (of ``U`` what has  s > 0).  Pixels are made once, at the end.
    """
    inverse = [reciprocal(svd.s).to(y.dtype).to(y.device) for svd in svds]
    found = [torch.zeros_like(i)[None] for i in inverse]
    last = len(svds) - 1
    for k in (last, *(_TURNS * [*range(len(svds))])):
        svd, used = svds[k], inverse[k] > 0
        assert svd.u is not None, "the caller looked"
        c = svd.u_t(y) * used
        found[k] = found[k] + c * inverse[k]
        y = y - svd.u(c)
    return sum((svd.v(c) for svd, c in zip(svds[1:], found[1:], strict=True)), svds[0].v(found[0]))
