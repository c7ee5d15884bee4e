"""Bicubic downsampling with antialiasing: how most low-resolution test pictures are made."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from sfumato._typing import Images, Measurements, Shape
from sfumato.errors import DegradationError, ShapeError
from sfumato.operators.base import SVD, Axis, Locality, Operator, Window
from sfumato.operators.part import inside

#: Cells that one measured value is made of along an axis: its own and two on each side.
_REACH = 2


class Bicubic(Operator):
    """Downsampling by a whole factor ``s`` with Keys' cubic, widened by ``s``.

    Along each axis  y[i] = Σⱼ w((j + ½)/s − (i + ½)) x[j] / Σⱼ w((j + ½)/s − (i + ½)),  where
    ``w`` is the cubic with a = −½ and ``j`` runs over the picture only: near the border the
    weights are made to sum to 1 again. It is what torch's ``interpolate(mode="bicubic",
    antialias=True)`` and Pillow compute.

    The operator is a product of axes, A = B_h ⊗ B_w, so A⁺ = B_h⁺ ⊗ B_w⁺ with
    B⁺ = Bᵀ (B Bᵀ)⁻¹  exactly: ``B`` has full rank and a condition number below 1.5. The small
    Gram matrix B Bᵀ is decomposed once, in float64; ``B`` itself is never a dense matrix.

    Args:
        in_shape: ``(channels, height, width)``; sides are multiples of ``factor``.
        factor: ``s``, whole and at least 1.

    Raises DegradationError for another factor, ShapeError for sides that it does not divide.

    Reference: Keys, *Cubic convolution interpolation for digital image processing*, 1981.

    >>> A = Bicubic((3, 8, 12), 4)
    >>> A(torch.ones(1, 3, 8, 12)).shape
    torch.Size([1, 3, 2, 3])
    """

    def __init__(self, in_shape: Shape, factor: int) -> None:
        if factor < 1 or int(factor) != factor:
            raise DegradationError(
                f"bicubic downsampling by {factor}", expected="a whole number of 1 or more"
            )
        c, h, w = in_shape
        if h % factor or w % factor:
            raise ShapeError(
                f"an image of {w} x {h} pixels",
                expected=f"sides that are multiples of {factor}",
                do=f"crop it to {w - w % factor} x {h - h % factor}",
            )
        super().__init__(in_shape, (c, h // factor, w // factor))
        self.factor = factor

    @override
    def forward(self, x: Images) -> Measurements:
        return _down(_down(x, self.factor).mT, self.factor).mT

    @override
    def adjoint(self, y: Measurements) -> Images:
        return _up(_up(y, self.factor).mT, self.factor).mT

    @override
    def pinv(self, y: Measurements) -> Images:
        """Return ``Aᵀ (A Aᵀ)⁻¹ y``: the shortest picture that is downsampled to ``y``."""
        (U_h, s_h), (U_w, s_w) = self._axes(y)
        coefficients = U_h.mT @ y @ U_w / (s_h[:, None] * s_w).square()
        return self.adjoint(U_h @ coefficients @ U_w.mT)

    @override
    def svd(self) -> SVD:
        """Return  U = U_h ⊗ U_w,  s = s_h ⊗ s_w  (of the measurement's shape),  V = Aᵀ U / s."""

        def rotated(y: Tensor) -> Tensor:
            (U_h, _), (U_w, _) = self._axes(y)
            return U_h.mT @ y @ U_w

        def u(c: Tensor) -> Tensor:
            (U_h, _), (U_w, _) = self._axes(c)
            return U_h @ c @ U_w.mT

        def v(c: Tensor) -> Tensor:
            (U_h, s_h), (U_w, s_w) = self._axes(c)
            return self.adjoint(U_h @ (c / (s_h[:, None] * s_w)) @ U_w.mT)

        def v_t(x: Tensor) -> Tensor:
            (_, s_h), (_, s_w) = self._axes(x)
            return rotated(self.forward(x)) / (s_h[:, None] * s_w)

        (_, s_h), (_, s_w) = self._axes(torch.zeros((), dtype=torch.float64))
        s = (s_h[:, None] * s_w).expand(self.out_shape)
        return SVD(s=s, v_t=v_t, v=v, u_t=rotated, u=u)

    @property
    @override
    def locality(self) -> Locality:
        """A value looks one cell and a half beyond its own cell."""
        return Locality(stride=self.factor, halo=3 * self.factor // 2 if self.factor > 1 else 0)

    @override
    def crop(self, window: Window) -> Bicubic:
        """Return that of the window alone: another one within ``halo`` of the cut edges."""
        return Bicubic((self.in_shape[0], window.height, window.width), self.factor)

    @override
    def measured(self, window: Window) -> Window:
        s = self.factor
        return Window(window.top // s, window.left // s, window.height // s, window.width // s)

    @override
    def inside(self, window: Window) -> tuple[Operator, Window]:
        halo = self.locality.halo
        return inside(self, window, ((halo, halo), (halo, halo)))

    @property
    @override
    def axes(self) -> tuple[Axis, Axis]:
        _, h, w = self.out_shape
        return Axis(_matrix, (h, self.factor)), Axis(_matrix, (w, self.factor))

    @override
    def __str__(self) -> str:
        return f"bicubic:{self.factor}"

    def _axes(self, like: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """U and s of both axes, in dtype and on the device of ``like``."""
        _, h, w = self.out_shape
        rows, cols = _decomposed(h, self.factor), _decomposed(w, self.factor)
        return (_like(rows[0], like), _like(rows[1], like)), (
            _like(cols[0], like),
            _like(cols[1], like),
        )


def _like(t: Tensor, like: Tensor) -> Tensor:
    return t.to(like.dtype).to(like.device)


def _keys(t: Tensor) -> Tensor:
    """Keys' cubic with a = −½: 1 at 0, 0 at all other whole numbers and beyond 2."""
    t = t.abs()
    inner = (1.5 * t - 2.5) * t * t + 1
    outer = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t <= 1, inner, torch.where(t < 2, outer, 0.0))


@lru_cache(maxsize=32)
def _taps(factor: int) -> Tensor:
    """Return the weights of one value, ``(5, factor)``: a row for each cell that it looks at."""
    n_cells = 2 * _REACH + 1
    j = torch.arange(n_cells * factor, dtype=torch.float64)
    return _keys((j + 0.5) / factor - n_cells / 2).reshape(n_cells, factor) / factor


@lru_cache(maxsize=32)
def _sums(n: int, factor: int) -> Tensor:
    """Return the sum of the weights that lie on the picture, for each of ``n`` values."""
    cells = pad(torch.ones(n, dtype=torch.float64), (_REACH, _REACH))
    return cells.unfold(0, 2 * _REACH + 1, 1) @ _taps(factor).sum(1)


def _down(x: Tensor, factor: int) -> Tensor:
    """Apply ``B`` to the columns: weigh each cell by all taps, add five neighbours."""
    n = x.shape[-2] // factor
    weighed = _like(_taps(factor), x) @ x.unflatten(-2, (n, factor))
    weighed = pad(weighed, (0, 0, 0, 0, _REACH, _REACH))
    total = sum(weighed[..., o : o + n, o, :] for o in range(1, 2 * _REACH + 1))
    return (weighed[..., :n, 0, :] + total) / _like(_sums(n, factor), x)[:, None]


def _up(y: Tensor, factor: int) -> Tensor:
    """Apply ``Bᵀ`` to the columns: every value spreads over five cells."""
    n = y.shape[-2]
    framed = pad(y / _like(_sums(n, factor), y)[:, None], (0, 0, _REACH, _REACH))
    sources = [framed[..., 2 * _REACH - o : 2 * _REACH - o + n, :] for o in range(2 * _REACH + 1)]
    return (_like(_taps(factor), y).mT @ torch.stack(sources, dim=-2)).flatten(-3, -2)


def _matrix(n: int, factor: int) -> Tensor:
    """Return ``B`` with ``n`` rows as a dense matrix."""
    return _up(torch.eye(n, dtype=torch.float64), factor).mT.contiguous()


@lru_cache(maxsize=16)
def _decomposed(n: int, factor: int) -> tuple[Tensor, Tensor]:
    """Return ``U`` and ``s`` of ``B`` with ``n`` rows, from  B Bᵀ = U diag(s²) Uᵀ."""
    gram = _down(_matrix(n, factor).mT, factor)
    squares, U = torch.linalg.eigh((gram + gram.mT) / 2)
    return U, squares.sqrt()
