"""An operator of which only some pixels may still change."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images, Measurements
from sfumato.errors import ShapeError
from sfumato.linalg import power_iteration
from sfumato.operators.base import SVD, Operator, Window, whole_cells
from sfumato.operators.composition import Composition, compose
from sfumato.operators.part import Part, placed

#: Singular values of ``A F`` below this share of the largest are left out of its pseudo-inverse.
#:
#: For bicubic downsampling an axis has singular values of 0.69 to 1, one of 0.14 to 0.21 (the
#: value that sees one free cell and a half) and one below 0.0043 (the value that sees half a free
#: cell). Products of two axes leave a gap from 0.0043 to 0.0208. What lies below is no more than
#: the rounding of 8 bits, which it would amplify 250 times; left out, it leaves up to 0.15/255
#: unenforced in the values that graze the free pixels.
TRUNCATION = 0.01


def restricted(A: Operator, free: Window) -> Operator:
    """Return ``A F``, where ``F`` keeps the rectangle ``free`` of the image and zeroes the rest.

    The projection of the free pixels given the others is  x + (A F)⁺ (y − A x),  which changes
    ``free`` only (mind that the residual is that of ``A``: what is frozen counts). With ``free``
    all of the image it is ``A`` itself. Otherwise the pseudo-inverse is

    - exact for operators of cells, where ``free`` consists of such (see ``Operator.locality``);
    - exact but for singular values below 1 % of the largest for separable operators: bicubic
      downsampling, most blurs (which leave out more), and what ``Operator.inside`` gives of them.
      Each axis is decomposed once for every kind of window and border;
    - behind grey or pooling that of the operators that follow;
    - damped by at least 1 % of the largest singular value for all others, by conjugate gradients.

    The free pixels should begin between cells: within one, bicubic singular values lie closer to
    the limit, and changes grow to many times what is replaced. Frozen should be only what its
    tile has not just met but met with room to spare, twice the halo away from the tile's inner
    sides: then values can still be met that see frozen and free pixels.

    Raises ShapeError for a rectangle that is empty or not inside.

    >>> from sfumato.operators import Bicubic
    >>> A, _ = Bicubic((3, 256, 256), 4).inside(Window(64, 64, 64, 64))
    >>> B, x = restricted(A, Window(16, 24, 48, 40)), torch.rand(1, 3, 64, 64)
    >>> change = B.pinv(0.5 - A(x))
    >>> bool((change[..., :16, :] == 0).all() and (change[..., :24] == 0).all())
    True
    """
    whole = Window(0, 0, *A.in_shape[1:])
    if free == whole:
        return A
    if not whole.holds(free) or min(free.height, free.width) < 1:
        raise ShapeError(
            f"free pixels {free}", expected=f"at least one, in {whole.height} x {whole.width}"
        )
    if _of_cells(A, free):
        return _OnCells(A, free)
    if isinstance(A, Composition) and A.split[0]:
        first, rest = compose(*A.split[0]), A.split[1]
        if _of_cells(first, free):
            return compose(first, restricted(rest, first.measured(free)))
    if A.axes:
        return Part(A, free=free, truncation=max(A.truncation, TRUNCATION))
    damping = max(A.truncation, TRUNCATION) * _norm(A)
    return Part(A, free=free, damping=max(A.damping, damping))


class _OnCells(Operator):
    """``A F`` where cells know nothing of each other: ``A`` on the free ones, 0 elsewhere."""

    def __init__(self, A: Operator, free: Window) -> None:
        super().__init__(A.in_shape, A.out_shape)
        self.A, self.free, self.values = A.crop(free), free, A.measured(free)
        self.truncation = self.A.truncation
        self.name = str(A)

    @override
    def forward(self, x: Images) -> Measurements:
        return placed(self.A.forward(self.free.of(x)), self.values, self.out_shape)

    @override
    def adjoint(self, y: Measurements) -> Images:
        return placed(self.A.adjoint(self.values.of(y)), self.free, self.in_shape)

    @override
    def pinv(self, y: Measurements) -> Images:
        return placed(self.A.pinv(self.values.of(y)), self.free, self.in_shape)

    @override
    def svd(self) -> SVD | None:
        svd = self.A.svd()
        if svd is None:
            return None
        return SVD(
            s=svd.s,
            v_t=lambda x: svd.v_t(self.free.of(x)),
            v=lambda c: placed(svd.v(c), self.free, self.in_shape),
            u_t=lambda y: svd.u_t(self.values.of(y)),
        )

    @property
    @override
    def disjoint_rows(self) -> bool:
        return self.A.disjoint_rows

    @property
    @override
    def damping(self) -> float:
        return self.A.damping

    @property
    @override
    def amplifies(self) -> bool:
        return self.A.amplifies

    @property
    @override
    def ratio(self) -> int:
        return self.A.ratio

    @override
    def __str__(self) -> str:
        return self.name


def _of_cells(A: Operator, free: Window) -> bool:
    """Say whether ``A`` is cut to ``free`` exactly."""
    return A.locality.tileable and whole_cells(A, free) == free


def _norm(A: Operator) -> float:
    """Return ‖A‖ (from below), the same in every run."""
    start: Tensor = torch.ones((1, *A.in_shape), dtype=torch.float64)
    start[..., ::2, ::3] = 0.5
    square = power_iteration(lambda x: A.adjoint(A.forward(x)), start, n_iterations=20)
    return float(square.sqrt())
