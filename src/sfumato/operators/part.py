"""A part of an operator: some of its values, as functions of some of the pixels."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from sfumato._typing import Images, Measurements, Shape
from sfumato.errors import ShapeError
from sfumato.linalg import least_squares, widened
from sfumato.operators.base import SVD, Axis, Operator, Window, reciprocal, require_cells

#: Singular values below this share of the largest count as zero even where ``truncation`` is 0.
_RANK = 1e-9

#: Conjugate gradients: residual to reach for float64, and for inputs that are less exact anyway;
#: products to spend.
_TOLERANCE = 1e-9
_COARSE_TOLERANCE = 1e-6
_MAX_ITERATIONS = 10_000

#: First and last but one row or column.
Span = tuple[int, int]


class Part(Operator):
    """``S A F``:  ``F`` keeps a rectangle of the pixels, ``S`` one of the values.

    Images keep the shape that ``A`` takes; pixels beyond ``free`` count as 0, and ``adjoint`` and
    ``pinv`` are exactly 0 there. The pseudo-inverse is

    - where ``A = A_h ⊗ A_w`` (``A.axes``): that of the parts of both axes' matrices, decomposed
      once for each kind of part in float64. Products of singular values below ``truncation`` of
      the largest are left out: A⁺ is the exact pseudo-inverse of the operator without them;
    - else  (BᵀB + λ² I)⁻¹ Bᵀ  of the part ``B``, by conjugate gradients, with λ = ``damping``.

    Args:
        A: the operator that a part is taken of.
        values: the rectangle of ``y`` that is kept; all of it where None.
        free: the rectangle of ``x`` that is kept; all of it where None.
        truncation: see above, in [0, 1); that of ``A`` where None. Only used where it has axes.
        damping: λ, in the unit of the singular values; that of ``A`` where None. Only used where
            it has none.

    Raises ShapeError for rectangles that are empty or not inside.

    >>> from sfumato.operators import Bicubic
    >>> B = Part(Bicubic((3, 32, 32), 4), values=Window(2, 2, 4, 4), free=Window(8, 8, 24, 24))
    >>> tuple(B(torch.zeros(1, 3, 32, 32)).shape)
    (1, 3, 4, 4)
    """

    def __init__(
        self,
        A: Operator,
        values: Window | None = None,
        free: Window | None = None,
        *,
        truncation: float | None = None,
        damping: float | None = None,
    ) -> None:
        (_, h, w), (c, rows, cols) = A.in_shape, A.out_shape
        self.values = _checked(values, rows, cols, "values")
        self.free = _checked(free, h, w, "pixels")
        super().__init__(A.in_shape, (c, self.values.height, self.values.width))
        self.A = A
        truncation = A.truncation if truncation is None else truncation
        damping = A.damping if damping is None else damping
        self.truncation, self._damping = (truncation, 0.0) if A.axes else (0.0, damping)

    @override
    def forward(self, x: Images) -> Measurements:
        if not self._all_free:
            x = self._framed(self.free.of(x))
        return self.values.of(self.A.forward(x))

    @override
    def adjoint(self, y: Measurements) -> Images:
        x = self.A.adjoint(placed(y, self.values, self.A.out_shape))
        return x if self._all_free else self._framed(self.free.of(x))

    @override
    def pinv(self, y: Measurements) -> Images:
        """Return ``A⁺ y``, truncated or damped as the class says."""
        svd = self.svd()
        if svd is not None:
            return svd.v(reciprocal(svd.s).to(y.dtype).to(y.device) * svd.u_t(y))
        x = least_squares(
            self.forward,
            self.adjoint,
            widened(y),
            damping=self.damping,
            tolerance=_TOLERANCE if y.dtype == torch.float64 else _COARSE_TOLERANCE,
            max_iterations=_MAX_ITERATIONS,
        )
        return x.to(y.dtype)

    @override
    def svd(self) -> SVD | None:
        """Return that of both axes where there are such; truncated values are zeros."""
        axes = self.axes
        if axes is None:
            return None

        def both(left: int, x: Tensor, right: int, *, transposed: bool) -> Tensor:
            h, w = (_factors(axis, x.dtype, x.device) for axis in axes)
            if transposed:
                return h[left].mT @ x @ w[right]
            return h[left] @ x @ w[right].mT

        s_h, s_w = (_factors(axis, torch.float64, torch.device("cpu"))[1] for axis in axes)
        s = s_h[:, None] * s_w
        s = torch.where(s >= max(self.truncation, _RANK) * s.max(), s, 0.0)
        return SVD(
            s=s.expand(self.in_shape[0], *s.shape),
            v_t=lambda x: both(2, x, 2, transposed=True),
            v=lambda c: both(2, c, 2, transposed=False),
            u_t=lambda y: both(0, y, 0, transposed=True),
            u=lambda c: both(0, c, 0, transposed=False),
        )

    @property
    @override
    def axes(self) -> tuple[Axis, Axis] | None:
        """Those of ``A``, without the rows that are left out; columns beyond ``free`` are 0."""
        if self.A.axes is None:
            return None
        v, f = self.values, self.free
        spans = (
            ((v.top, v.top + v.height), (f.top, f.top + f.height)),
            ((v.left, v.left + v.width), (f.left, f.left + f.width)),
        )
        h, w = (Axis(_part, (axis, *span)) for axis, span in zip(self.A.axes, spans, strict=True))
        return h, w

    @property
    @override
    def damping(self) -> float:
        return self._damping

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
        return str(self.A)

    @property
    def _all_free(self) -> bool:
        return self.free == Window(0, 0, *self.in_shape[1:])

    def _framed(self, x: Tensor) -> Tensor:
        return placed(x, self.free, self.in_shape)


#: Pixels that a value looks at before and behind its own cell, along rows and along columns.
Reach = tuple[tuple[int, int], tuple[int, int]]


def inside(
    A: Operator, window: Window, reach: Reach, *, damping: float | None = None
) -> tuple[Operator, Window]:
    """Return ``Operator.inside``, from what the values see beyond their own cells.

    ``A.crop(window)`` treats all sides of the window as borders of the image. A value that sees
    nothing beyond the window does not notice; the others, next to its inner sides, are cut off.

    Raises ShapeError as ``Operator.inside`` does.
    """
    require_cells(A, window)
    s, (_, h, w) = A.locality.stride, A.in_shape
    sides = (window.top, window.height, h), (window.left, window.width, w)
    cut = [
        (-(-before // s) if first else 0, -(-behind // s) if first + n < end else 0)
        for (before, behind), (first, n, end) in zip(reach, sides, strict=True)
    ]
    (top, bottom), (left, right) = cut
    m = A.measured(window)
    height, width = m.height - top - bottom, m.width - left - right
    if min(height, width) < 1:
        raise ShapeError(
            f"a window of {window.width} x {window.height} pixels, which holds no value of {A}",
            expected=f"at least {(left + right + 1) * s} x {(top + bottom + 1) * s} there",
        )
    crop, place = A.crop(window), Window(m.top + top, m.left + left, height, width)
    if place == m:
        return crop, m
    return Part(crop, Window(top, left, height, width), damping=damping), place


def _checked(window: Window | None, height: int, width: int, of: str) -> Window:
    whole = Window(0, 0, height, width)
    window = whole if window is None else window
    if not whole.holds(window) or min(window.height, window.width) < 1:
        raise ShapeError(
            f"{window.height} x {window.width} {of} from row {window.top}, column {window.left}",
            expected=f"at least one, inside of {height} x {width}",
        )
    return window


def placed(part: Tensor, window: Window, shape: Shape) -> Tensor:
    """Put ``part`` into the window of an array of zeros; it has a gradient."""
    _, height, width = shape
    right, below = width - window.left - window.width, height - window.top - window.height
    return pad(part, (window.left, right, window.top, below))


def _part(axis: Axis, rows: Span, columns: Span) -> Tensor:
    matrix = torch.zeros_like(axis.matrix()[slice(*rows)])
    matrix[:, slice(*columns)] = axis.matrix()[slice(*rows), slice(*columns)]
    return matrix


@lru_cache(maxsize=16)
def _decomposed(axis: Axis) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, s, V; rows of ``V`` that belong to columns of zeros are 0 exactly."""
    matrix = axis.matrix()
    U, s, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U, s, Vh.mT * matrix.any(0)[:, None]


@lru_cache(maxsize=16)
def _factors(
    axis: Axis, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, s, V in a dtype on a device: every step of the sampler asks for them."""
    U, s, V = (t.to(dtype).to(device) for t in _decomposed(axis))
    return U, s, V
