"""The degradation operator: what every measurement ``y = A x`` is made with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato._typing import Images, Measurements, Shape
from sfumato.errors import ShapeError


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels: rows ``top .. top + height``, columns ``left .. left + width``."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index the last two axes with."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )

    def of(self, x: Tensor) -> Tensor:
        """Return this part of ``x`` (a view)."""
        rows, cols = self.slices
        return x[..., rows, cols]

    def holds(self, inner: Window) -> bool:
        """Say whether another rectangle lies in this one, on which it may border.

        >>> Window(0, 0, 8, 8).holds(Window(4, 4, 4, 4))
        True
        """
        down, right = inner.top - self.top, inner.left - self.left
        return (
            min(down, right) >= 0
            and down + inner.height <= self.height
            and right + inner.width <= self.width
        )

    def within(self, outer: Window) -> Window:
        """Return this rectangle in the coordinates of one that holds it.

        >>> Window(10, 20, 4, 4).within(Window(8, 16, 32, 32))
        Window(top=2, left=4, height=4, width=4)
        """
        return Window(self.top - outer.top, self.left - outer.left, self.height, self.width)


@dataclass(frozen=True)
class Locality:
    """How far one measured value reaches in ``x``.

    With ``halo = 0`` the image falls apart into cells of ``stride`` pixels, and every measured
    value depends on one cell only: such an operator is cut to tiles exactly. ``halo > 0`` says how
    many pixels beyond its cell a value looks. ``stride = 0`` stands for an operator that is
    global: it cannot be cut.
    """

    stride: int
    halo: int = 0

    @property
    def tileable(self) -> bool:
        """Whether the operator falls apart into cells."""
        return self.stride > 0 and self.halo == 0


#: The locality of an operator whose values may depend on the whole image.
GLOBAL = Locality(stride=0)


@dataclass(frozen=True)
class Axis:
    """One factor of  A = A_h ⊗ A_w,  as a value: what its matrix is computed from.

    Equal axes have equal matrices, so that what is made of one is made once.
    """

    make: Callable[..., Tensor]
    arguments: tuple[Hashable, ...]

    def matrix(self) -> Tensor:
        """Return the dense matrix, (values, pixels), in float64 on the CPU."""
        return self.make(*self.arguments)


@dataclass(frozen=True)
class SVD:
    """``A = U diag(s) Vᵀ`` by its actions; ``s`` has the shape of one image's coefficients.

    ``v_t`` takes images to coefficients, ``v`` back; ``u_t`` takes measurements to coefficients,
    and ``u``, where that is known, back. Zeros in ``s`` mark coefficients without a measurement.
    """

    s: Tensor
    v_t: Callable[[Tensor], Tensor]
    v: Callable[[Tensor], Tensor]
    u_t: Callable[[Tensor], Tensor]
    u: Callable[[Tensor], Tensor] | None = None


class Operator(ABC):
    """A linear map ``A`` from images of one shape to measurements of another.

    Shapes are ``(channels, height, width)``; the maps take and return a leading batch axis, and
    follow dtype and device of what they are given. A subclass is final: it stores its settings,
    and says

    - ``forward(x) = A x``, ``adjoint(y) = Aᵀ y``, ``pinv(y) = A⁺ y`` (the Moore-Penrose
      pseudo-inverse),
    - how local it is, and, where it is, ``crop(window)``: the same operator for one window of the
      image,
    - what it knows about itself: ``gram`` and ``svd``.

    The laws that every operator obeys are in ``sfumato.testing.check_operator``.
    """

    #: Singular values below this share of the largest are left out of ``pinv`` (0: none).
    truncation: float = 0.0

    def __init__(self, in_shape: Shape, out_shape: Shape) -> None:
        if min(in_shape) < 1 or min(out_shape) < 1:
            raise ShapeError(
                f"{type(self).__name__} from {in_shape} to {out_shape}",
                expected="at least one channel, row and column",
            )
        self.in_shape = in_shape
        self.out_shape = out_shape

    @abstractmethod
    def forward(self, x: Images) -> Measurements:
        """Measure: ``y = A x``."""

    @abstractmethod
    def adjoint(self, y: Measurements) -> Images:
        """Return ``Aᵀ y``, for which ``<A x, y> = <x, Aᵀ y>``."""

    @abstractmethod
    def pinv(self, y: Measurements) -> Images:
        """Return ``A⁺ y``: of all least-squares solutions the shortest."""

    def ones(self, like: Tensor) -> Tensor:
        """Return an image of ones that ``A`` can measure, of dtype and device of ``like``."""
        return torch.ones((1, *self.in_shape), dtype=like.dtype, device=like.device)

    def __call__(self, x: Images) -> Measurements:
        """Measure: ``y = A x``, having checked the shape of ``x``."""
        if tuple(x.shape[1:]) != self.in_shape:
            raise ShapeError(
                f"an image of shape {tuple(x.shape)}",
                expected=f"(batch, {', '.join(map(str, self.in_shape))}) for {self}",
            )
        return self.forward(x)

    @property
    def locality(self) -> Locality:
        """How local the operator is; global unless a subclass knows better."""
        return GLOBAL

    def crop(self, window: Window) -> Operator:
        """Return the operator for one window of the image, aligned to the locality's cells."""
        raise NotImplementedError(f"{self} is not local: it cannot be cut to {window}")

    def measured(self, window: Window) -> Window:
        """Return the window of ``y`` that belongs to an aligned window of ``x``."""
        raise NotImplementedError(f"{self} is not local: it cannot be cut to {window}")

    def inside(self, window: Window) -> tuple[Operator, Window]:
        """Return the values whose whole support is in an aligned window, and where they lie in y.

        The operator takes images of the window's shape, and  A_W(W.of(x)) = W_y.of(A x)  for
        every ``x``: other than those of ``crop``, its values are those of the whole image also
        where ``A`` has a halo. Support counts as far as the image goes.

        Raises ShapeError for windows that are not aligned to the cells, that reach beyond the
        image, or that hold no value's support.
        """
        if not self.locality.tileable:
            raise NotImplementedError(f"{self} does not know which values lie in {window}")
        require_cells(self, window)
        return self.crop(window), self.measured(window)

    @property
    def axes(self) -> tuple[Axis, Axis] | None:
        """``A_h`` and ``A_w`` where  A = A_h ⊗ A_w,  the same for every channel; else None.

        They are for windows: their matrices are dense.
        """
        return None

    @property
    def disjoint_rows(self) -> bool:
        """Whether each value of ``x`` enters at most one of ``y`` (then ``A Aᵀ`` is diagonal)."""
        return False

    def gram_diagonal(self, like: Tensor) -> Tensor | None:
        """Return the diagonal of ``A Aᵀ`` where that matrix is diagonal, else None.

        It has the shape of one measurement, and dtype and device of ``like``.
        """
        if not self.disjoint_rows:
            return None
        return self.forward(self.adjoint(torch.ones((1, *self.out_shape)).to(like)))[0]

    @property
    def ratio(self) -> int:
        """How many pixels of ``x`` lie along the side of one of ``y``."""
        return self.in_shape[1] // self.out_shape[1]

    @property
    def gram_scale(self) -> float | None:
        """``c`` where ``A Aᵀ = c I``, else None."""
        return None

    @property
    def damping(self) -> float:
        """Tikhonov's λ where ``pinv`` is damped:  ``A⁺ = (AᵀA + λ²)⁻¹ Aᵀ``  (0: it is exact)."""
        return 0.0

    @property
    def amplifies(self) -> bool:
        """Whether ``A⁺`` would amplify the rounding noise of a measurement beyond use."""
        return False

    def svd(self) -> SVD | None:
        """Return the singular value decomposition where it is cheap, else None.

        Where ``A Aᵀ = diag(d)``:  ``U = I``,  ``s = √d``,  ``V = Aᵀ diag(1/s)``.
        """
        d = self.gram_diagonal(torch.ones((), dtype=torch.float64))
        return None if d is None else _svd_of_rows(self, d)

    def __str__(self) -> str:
        """Name the operator as in its text form."""
        return type(self).__name__


def whole_cells(A: Operator, window: Window) -> Window:
    """Return the part of ``window`` that consists of whole cells of the image of ``A``.

    The image's last cells may be smaller ones. Without a whole cell the part has no pixels.
    """
    s = A.locality.stride

    def span(first: int, n: int, size: int) -> tuple[int, int]:
        start, end = max(0, -(-first // s) * s), min(first + n, size)
        return start, max(0, (end if end == size else end - end % s) - start)

    (top, height), (left, width) = (
        span(window.top, window.height, A.in_shape[1]),
        span(window.left, window.width, A.in_shape[2]),
    )
    return Window(top, left, height, width)


def require_cells(A: Operator, window: Window) -> None:
    """Raise ShapeError unless ``window`` consists of whole cells of the image of ``A``."""
    cells = whole_cells(A, window)
    if cells != window or min(cells.height, cells.width) < 1:
        raise ShapeError(
            f"{window} of an image of {A.in_shape[2]} x {A.in_shape[1]} pixels",
            expected=f"a window inside, with place and sides in multiples of {A.locality.stride}",
        )


def reciprocal(d: Tensor) -> Tensor:
    """Return the pseudo-inverse of a diagonal: ``1 / d`` where ``d`` is not (nearly) 0, else 0."""
    small = d.abs() <= 1e-12 * d.abs().max()
    return torch.where(small, 0.0, 1 / torch.where(small, 1.0, d))


def _svd_of_rows(A: Operator, d: Tensor) -> SVD:
    s = d.clamp(min=0).sqrt()
    r = reciprocal(s)
    return SVD(
        s=s,
        v_t=lambda x: r.to(x) * A.forward(x),
        v=lambda c: A.adjoint(r.to(c) * c),
        u_t=lambda y: (s > 0).to(y) * y,
    )
