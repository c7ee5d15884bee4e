"""Compressed sensing: every cell of the picture is known by a few of its coefficients.

The measurement has the shape of the picture. Each ``block x block`` cell of it holds the
coefficients of the same cell of ``x`` in an orthonormal basis; those not measured are zero. So  A
= P Q  with ``Q`` orthogonal and ``P`` a 0/1 diagonal, ``A⁺ = Aᵀ`` and ``A Aᵀ = P``, and the
operator is cut to tiles exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from sfumato._typing import Images, Measurements, Shape
from sfumato.errors import DegradationError, ShapeError
from sfumato.operators.base import GLOBAL, Locality, Operator, Window

#: Side of a cell, and of the matrices that the Walsh-Hadamard transform is factored into.
BLOCK = 32
_DENSE = 64


class WalshHadamard(Operator):
    """Some coefficients of the orthonormal Walsh-Hadamard transform of each cell.

    Q = H ⊗ H,  H_2n = [[H_n, H_n], [H_n, −H_n]] / √2.  The first coefficient of a cell, its mean,
    is always kept, and as many others, drawn by ``seed``, as make ``round(ratio · cell)``. Cells
    of one shape keep the same ones. What ``block`` leaves over of a side is cut into powers of two
    (13 = 8 + 4 + 1), so the transform stays orthonormal.

    Args:
        in_shape: ``(channels, height, width)`` of the picture and of the measurement.
        ratio: share of the coefficients that is kept, in (0, 1].
        block: side of a cell, a power of two; 0 for cells as large as the picture allows (global).
        seed: which coefficients are kept.

    Raises DegradationError for another ratio or block.

    Reference: Pratt, Kane and Andrews, *Hadamard transform image coding*, 1969.

    >>> A = WalshHadamard((1, 4, 4), 0.25, block=4)
    >>> int(A(torch.rand(1, 1, 4, 4)).count_nonzero())
    4
    """

    def __init__(
        self, in_shape: Shape, ratio: float, *, block: int = BLOCK, seed: int = 0
    ) -> None:
        super().__init__(in_shape, in_shape)
        if block < 0 or block & (block - 1):
            raise DegradationError(
                f"blocks of {block} pixels", expected="a power of two, or 0 for the whole picture"
            )
        self.share = _checked_share(ratio)
        self.block = block
        self.seed = seed
        self._rows, self._cols = (_powers_of_two(n, block) for n in in_shape[1:])
        self._kept = _kept_coefficients(self._rows, self._cols, self.share, seed)

    @override
    def forward(self, x: Images) -> Measurements:
        return self._transformed(x) * self._kept.to(x.device)

    @override
    def adjoint(self, y: Measurements) -> Images:
        return self._transformed(y * self._kept.to(y.device))

    @override
    def pinv(self, y: Measurements) -> Images:
        return self.adjoint(y)

    @override
    def gram_diagonal(self, like: Tensor) -> Tensor:
        return self._kept.to(like).expand(self.out_shape)

    @property
    @override
    def gram_scale(self) -> float | None:
        return 1.0 if bool(self._kept.all()) else None

    @property
    @override
    def locality(self) -> Locality:
        return Locality(stride=self.block) if self.block else GLOBAL

    @override
    def crop(self, window: Window) -> WalshHadamard:
        shape = _cropped(self, window, self.block)
        return WalshHadamard(shape, self.share, block=self.block, seed=self.seed)

    @override
    def measured(self, window: Window) -> Window:
        return window

    @override
    def __str__(self) -> str:
        return _text("walsh_hadamard", self.share, self.block, self.seed)

    def _transformed(self, x: Tensor) -> Tensor:
        """Apply ``Q``, which is symmetric and its own inverse."""
        return _hadamard_segments(_hadamard_segments(x, self._cols).mT, self._rows).mT


class BlockSensing(Operator):
    """Random projections of each cell: block compressed sensing.

    A cell of ``d`` pixels is measured by ``m = round(ratio · d)`` orthonormal rows, at least one:
    the constant 1/√d, then Gaussian ones made orthogonal to it and to each other. Their values are
    the first ``m`` of the cell, read row by row. Cells of one shape share their rows, which depend
    on nothing but the shape and ``seed``; what ``block`` leaves over at the right and at the
    bottom makes cells of its own shape.

    Args:
        in_shape: ``(channels, height, width)`` of the picture and of the measurement.
        ratio: share of the coefficients that is measured, in (0, 1].
        block: side of a cell, from 1 to 64.
        seed: which rows are drawn.

    Raises DegradationError for another ratio or block.

    Reference: Gan, *Block compressed sensing of natural images*, 2007.

    >>> A = BlockSensing((3, 40, 50), 0.1)
    >>> A(torch.rand(2, 3, 40, 50)).shape
    torch.Size([2, 3, 40, 50])
    """

    def __init__(
        self, in_shape: Shape, ratio: float, *, block: int = BLOCK, seed: int = 0
    ) -> None:
        super().__init__(in_shape, in_shape)
        if not 1 <= block <= _DENSE:
            raise DegradationError(
                f"blocks of {block} pixels",
                expected=f"1 to {_DENSE}",
                do="take walsh_hadamard for larger ones",
            )
        self.share = _checked_share(ratio)
        self.block = block
        self.seed = seed

    @override
    def forward(self, x: Images) -> Measurements:
        return self._each_shape(x, inverse=False)

    @override
    def adjoint(self, y: Measurements) -> Images:
        return self._each_shape(y, inverse=True)

    @override
    def pinv(self, y: Measurements) -> Images:
        return self.adjoint(y)

    @override
    def gram_diagonal(self, like: Tensor) -> Tensor:
        d = torch.zeros(self.out_shape).to(like)
        for window, cell in self._regions():
            m = _n_kept(self.share, math.prod(cell))
            filled = (torch.arange(math.prod(cell)) < m).to(d).reshape(cell)
            window.of(d)[:] = filled.repeat(window.height // cell[0], window.width // cell[1])
        return d

    @property
    @override
    def gram_scale(self) -> float | None:
        sizes = [math.prod(cell) for _, cell in self._regions()]
        return 1.0 if all(_n_kept(self.share, d) == d for d in sizes) else None

    @property
    @override
    def locality(self) -> Locality:
        return Locality(stride=self.block)

    @override
    def crop(self, window: Window) -> BlockSensing:
        shape = _cropped(self, window, self.block)
        return BlockSensing(shape, self.share, block=self.block, seed=self.seed)

    @override
    def measured(self, window: Window) -> Window:
        return window

    @override
    def __str__(self) -> str:
        return _text("block_sensing", self.share, self.block, self.seed)

    def _regions(self) -> Iterator[tuple[Window, tuple[int, int]]]:
        """Yield the parts of the picture with cells of one shape: up to four, and that shape."""
        b = self.block
        _, height, width = self.in_shape
        for top, h, p in _whole_and_rest(height, b):
            for left, w, q in _whole_and_rest(width, b):
                yield Window(top, left, h, w), (p, q)

    def _each_shape(self, values: Tensor, *, inverse: bool) -> Tensor:
        """Multiply the cells of each shape, all at once, by their rows, or by these transposed."""
        out = torch.empty_like(values, memory_format=torch.contiguous_format)
        for window, (p, q) in self._regions():
            rows = _sensing_rows(p, q, self.share, self.seed).to(values.dtype).to(values.device)
            cells = window.of(values).unflatten(-1, (-1, q)).unflatten(-3, (-1, p))
            cells = cells.transpose(-3, -2).flatten(-2)
            if inverse:
                cells = cells[..., : len(rows)] @ rows
            else:
                cells = pad(cells @ rows.mT, (0, p * q - len(rows)))
            cells = cells.unflatten(-1, (p, q)).transpose(-3, -2)
            window.of(out)[:] = cells.flatten(-2).flatten(-3, -2)
        return out


def _checked_share(ratio: float) -> float:
    if not 0 < ratio <= 1:
        raise DegradationError(
            f"a ratio of {ratio}", expected="a share of the coefficients above 0 and up to 1"
        )
    return float(ratio)


def _n_kept(share: float, cell: int) -> int:
    return max(1, round(share * cell))


def _text(word: str, share: float, block: int, seed: int) -> str:
    """Name ratio, block and seed, without the last ones where they are the default."""
    numbers = [f"{share:g}", f"{block}", f"{seed}"]
    defaults = [None, f"{BLOCK}", "0"]
    while numbers[-1] == defaults[len(numbers) - 1]:
        numbers.pop()
    return ":".join([word, *numbers])


def _cropped(A: Operator, window: Window, block: int) -> Shape:
    """Return the image shape of ``window``, having checked that it is made of whole cells."""
    c, height, width = A.in_shape
    fits = block > 0 and all(
        start % block == 0 and (size % block == 0 or start + size == whole)
        for start, size, whole in (
            (window.top, window.height, height),
            (window.left, window.width, width),
        )
    )
    if not fits:
        raise ShapeError(
            f"{window} of {A}",
            expected=f"a window of whole cells of {block} pixels" if block else "the whole image",
        )
    return c, window.height, window.width


def _random_words(n: int, *key: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return ``n`` random words of 64 bits that numpy promises to be the same for ever."""
    bits = np.random.PCG64(np.random.SeedSequence(key))
    return np.asarray(bits.random_raw(n), dtype=np.uint64)


def _powers_of_two(length: int, block: int) -> tuple[tuple[int, int], ...]:
    """Cut a side into ``(size, count)``: whole blocks, then descending powers of two."""
    whole = length // block if block else 0
    rest = length - whole * block
    powers = [1 << bit for bit in reversed(range(rest.bit_length())) if rest >> bit & 1]
    return ((block, whole),) * (whole > 0) + tuple((power, 1) for power in powers)


def _whole_and_rest(length: int, block: int) -> Iterator[tuple[int, int, int]]:
    """Yield start, length and cell side of the whole blocks, and of what is left over."""
    whole = length - length % block
    if whole:
        yield 0, whole, block
    if whole < length:
        yield whole, length - whole, length - whole


@lru_cache(maxsize=64)
def _kept_coefficients(
    rows: tuple[tuple[int, int], ...], cols: tuple[tuple[int, int], ...], share: float, seed: int
) -> Tensor:
    """Return the diagonal of ``P``, ``(height, width)``, of bools."""
    bands = [
        torch.cat([_kept_of_cell(p, q, share, seed).repeat(n, m) for q, m in cols], dim=1)
        for p, n in rows
    ]
    return torch.cat(bands)


@lru_cache(maxsize=256)
def _kept_of_cell(p: int, q: int, share: float, seed: int) -> Tensor:
    order = np.argsort(_random_words(p * q - 1, seed, p, q), kind="stable") + 1
    kept = torch.zeros(p * q, dtype=torch.bool)
    kept[0] = True
    kept[torch.from_numpy(order[: _n_kept(share, p * q) - 1])] = True
    return kept.reshape(p, q)


@lru_cache(maxsize=64)
def _sensing_rows(p: int, q: int, share: float, seed: int) -> Tensor:
    """Return ``(m, p q)`` orthonormal rows: the constant, then Gaussian ones made orthogonal."""
    d = p * q
    m = _n_kept(share, d)
    # The middle of each of 2^53 steps: never 0 or 1, where the normal quantile is infinite.
    uniform = ((_random_words(m * d, seed, p, q) >> np.uint64(11)) + 0.5) * 2.0**-53
    rows = torch.from_numpy(ndtri(uniform)).reshape(m, d)
    rows[0] = 1.0
    Q, R = torch.linalg.qr(rows.mT)
    upward: Tensor = Q * R.diagonal().sign()
    return upward.mT.contiguous()


@lru_cache(maxsize=16)
def _hadamard_matrix(n: int) -> Tensor:
    H = torch.ones(1, 1, dtype=torch.float64)
    while len(H) < n:
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return H / math.sqrt(n)


def _hadamard(x: Tensor) -> Tensor:
    """Transform the last axis, whose length is a power of two:  H_nm = H_n ⊗ H_m."""
    n = x.shape[-1]
    if n <= _DENSE:
        return x @ _hadamard_matrix(n).to(x.dtype).to(x.device)
    split = _hadamard(x.unflatten(-1, (-1, _DENSE)))
    return _hadamard(split.mT).mT.flatten(-2)


def _hadamard_segments(x: Tensor, segments: tuple[tuple[int, int], ...]) -> Tensor:
    """Transform each segment of the last axis by itself."""
    parts = x.split([size * count for size, count in segments], dim=-1)
    done = [
        _hadamard(part.unflatten(-1, (count, size))).flatten(-2)
        for part, (size, count) in zip(parts, segments, strict=True)
    ]
    return torch.cat(done, dim=-1)
