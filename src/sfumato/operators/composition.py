"""Several operators one after the other, with a pseudo-inverse that is exact."""

from __future__ import annotations

import math
from functools import cached_property, reduce
from itertools import pairwise

import torch
from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images, Measurements
from sfumato.errors import DegradationError, ShapeError
from sfumato.linalg import least_squares, widened
from sfumato.operators.base import (
    GLOBAL,
    SVD,
    Locality,
    Operator,
    Window,
    reciprocal,
    require_cells,
    whole_cells,
)
from sfumato.operators.convolution import TRUNCATION
from sfumato.operators.part import Part


def compose(*operators: Operator) -> Operator:
    """Apply ``operators`` from left to right:  ``compose(A, B) x = B A x``.

    A single one is returned as it is.

    >>> from sfumato.operators import AveragePool, Grayscale
    >>> str(compose(Grayscale((3, 8, 8)), AveragePool((1, 8, 8), 4)))
    'grayscale | average_pool:4'
    """
    flat = [a for A in operators for a in (A.operators if isinstance(A, Composition) else (A,))]
    return flat[0] if len(flat) == 1 else Composition(*flat)


class Composition(Operator):
    """``A = A_n … A_2 A_1``, the first one applied first.

    Its pseudo-inverse is exact in each of these cases, tried in this order:

    1. Every value of ``x`` enters at most one of ``y`` (masks, pooling, grey, in any order):
       ``A Aᵀ = diag(d)`` and ``A⁺ = Aᵀ diag(d)⁺``. The pool of a masked picture is so divided by
       what is kept of each cell.
    2. ``A_1 A_1ᵀ = c I`` (grey or pooling first):  ``A⁺ = A_1⁺ (A_n … A_2)⁺``.
    3. Otherwise least squares by conjugate gradients, in double precision; damped where a blur
       would have rounding noise amplified (``damping``).
    """

    def __init__(self, *operators: Operator) -> None:
        for a, b in pairwise(operators):
            if a.out_shape != b.in_shape:
                raise ShapeError(
                    f"{b} after {a}", expected=f"an operator on {a.out_shape}, not {b.in_shape}"
                )
        super().__init__(operators[0].in_shape, operators[-1].out_shape)
        self.operators = operators
        if not self.disjoint_rows:
            self.truncation = self.split[1].truncation if self.split[0] else 0.0

    @override
    def forward(self, x: Images) -> Measurements:
        return reduce(lambda v, A: A.forward(v), self.operators, x)

    @override
    def adjoint(self, y: Measurements) -> Images:
        return reduce(lambda v, A: A.adjoint(v), reversed(self.operators), y)

    @cached_property
    def split(self) -> tuple[tuple[Operator, ...], Operator]:
        """Return the leading operators with ``A Aᵀ = c I``, and the rest (never empty)."""
        n = 0
        while n < len(self.operators) - 1 and self.operators[n].gram_scale is not None:
            n += 1
        return self.operators[:n], compose(*self.operators[n:]) if n else self

    @cached_property
    def _diagonal(self) -> Tensor | None:
        return self.gram_diagonal(torch.ones((), dtype=torch.float64))

    @override
    def pinv(self, y: Measurements) -> Images:
        if self._diagonal is not None:
            return self.adjoint(y * reciprocal(self._diagonal).to(y))
        first, rest = self.split
        if first:
            return reduce(lambda v, A: A.pinv(v), reversed(first), rest.pinv(y))
        x = least_squares(self.forward, self.adjoint, widened(y), damping=self.damping)
        return x.to(y)

    @property
    @override
    def damping(self) -> float:
        first, rest = self.split
        if self.disjoint_rows:
            return 0.0
        if not first:
            return TRUNCATION if self.amplifies else 0.0
        return rest.damping * math.sqrt(compose(*first).gram_scale or 1.0)

    @property
    @override
    def amplifies(self) -> bool:
        return any(A.amplifies for A in self.operators)

    @property
    @override
    def locality(self) -> Locality:
        stride, halo, ratio = 1, 0, 1
        for A in self.operators:
            here = A.locality
            if here.stride == 0:
                return GLOBAL
            stride, halo = math.lcm(stride, ratio * here.stride), halo + ratio * here.halo
            ratio *= A.ratio
        return Locality(stride, halo)

    @override
    def crop(self, window: Window) -> Operator:
        parts = []
        for A in self.operators:
            parts.append(A.crop(window))
            window = A.measured(window)
        return compose(*parts)

    @override
    def measured(self, window: Window) -> Window:
        return reduce(lambda w, A: A.measured(w), self.operators, window)

    @override
    def inside(self, window: Window) -> tuple[Operator, Window]:
        """Return what is inside of one part after the other; one of them may have a halo.

        Raises DegradationError for more halos, and for parts that are global; ShapeError as
        ``Operator.inside``.
        """
        if self.locality.stride == 0 or sum(A.locality.halo > 0 for A in self.operators) > 1:
            raise DegradationError(
                f"{self} in a window", expected="local operators, of which one has a halo"
            )
        require_cells(self, window)
        parts: list[Operator] = []
        given = window
        for A in self.operators:
            cells = whole_cells(A, window)
            if min(cells.height, cells.width) < 1:
                raise ShapeError(f"{given}, which holds no value of {self}", expected="more cells")
            if cells != window:
                parts.append(Part(parts.pop(), cells.within(window)))
            part, window = A.inside(cells)
            parts.append(part)
        return compose(*parts), window

    @property
    @override
    def ratio(self) -> int:
        return math.prod(A.ratio for A in self.operators)

    @property
    @override
    def disjoint_rows(self) -> bool:
        return all(A.disjoint_rows for A in self.operators)

    @property
    @override
    def gram_scale(self) -> float | None:
        scales = [A.gram_scale for A in self.operators]
        known = [c for c in scales if c is not None]
        return math.prod(known) if len(known) == len(scales) else None

    @override
    def svd(self) -> SVD | None:
        if self.disjoint_rows:
            return super().svd()
        first, rest = self.split
        inner = rest.svd() if first else None
        if inner is None:
            return None
        A_1 = compose(*first)
        c = math.sqrt(A_1.gram_scale or 1.0)
        return SVD(
            s=c * inner.s,
            v_t=lambda x: inner.v_t(A_1.forward(x)) / c,
            v=lambda k: A_1.adjoint(inner.v(k)) / c,
            u_t=inner.u_t,
        )

    @override
    def __str__(self) -> str:
        return " | ".join(map(str, self.operators))


def links(A: Operator) -> tuple[Operator, ...]:
    """Return the operators that ``A`` is composed of, in their order."""
    return A.operators if isinstance(A, Composition) else (A,)
