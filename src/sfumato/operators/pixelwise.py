"""Operators on single pixels that keep the image's size: identity, nothing, and mask."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import max_pool2d, pad
from typing_extensions import override

from sfumato._typing import Images, Measurements, Shape
from sfumato.errors import DegradationError, ShapeError
from sfumato.operators.base import Locality, Operator, Window, reciprocal


class _Pixelwise(Operator):
    """What they share: cells of one pixel, and a measurement of the image's size."""

    @property
    @override
    def locality(self) -> Locality:
        return Locality(stride=1)

    @override
    def measured(self, window: Window) -> Window:
        return window

    @property
    @override
    def disjoint_rows(self) -> bool:
        return True

    @abstractmethod
    def crop(self, window: Window) -> Operator: ...


class Identity(_Pixelwise):
    """``A = I``: every pixel is measured. With measurement noise, this is denoising.

    >>> import torch
    >>> A = Identity((3, 4, 4))
    >>> bool((A(torch.ones(1, 3, 4, 4)) == 1).all())
    True
    """

    def __init__(self, in_shape: Shape) -> None:
        super().__init__(in_shape, in_shape)

    @override
    def forward(self, x: Images) -> Measurements:
        return x

    @override
    def adjoint(self, y: Measurements) -> Images:
        return y

    @override
    def pinv(self, y: Measurements) -> Images:
        return y

    @property
    @override
    def gram_scale(self) -> float:
        return 1.0

    @override
    def crop(self, window: Window) -> Identity:
        return Identity((self.in_shape[0], window.height, window.width))

    @override
    def __str__(self) -> str:
        return "identity"


class Nothing(_Pixelwise):
    """``A = 0``: nothing is known, so that restoring makes an image from nothing.

    >>> import torch
    >>> A = Nothing((3, 4, 4))
    >>> bool((A(torch.ones(1, 3, 4, 4)) == 0).all())
    True
    """

    def __init__(self, in_shape: Shape) -> None:
        super().__init__(in_shape, in_shape)

    @override
    def forward(self, x: Images) -> Measurements:
        return 0 * x

    @override
    def adjoint(self, y: Measurements) -> Images:
        return 0 * y

    @override
    def pinv(self, y: Measurements) -> Images:
        return 0 * y

    @property
    @override
    def gram_scale(self) -> float:
        return 0.0

    @override
    def crop(self, window: Window) -> Nothing:
        return Nothing((self.in_shape[0], window.height, window.width))

    @override
    def __str__(self) -> str:
        return "nothing"


@runtime_checkable
class Shares(Protocol):
    """What is known of each pixel, read by windows: for masks that are larger than memory."""

    @property
    def shape(self) -> Shape:
        """(1, height, width)."""

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return (1, height, width), bool or shares between 0 and 1."""


@final
@dataclass(frozen=True)
class _Pooled:
    """The mean shares of squares of ``r`` pixels."""

    fine: Shares
    r: int

    @property
    def shape(self) -> Shape:
        _, height, width = self.fine.shape
        return 1, height // self.r, width // self.r

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        r = self.r
        return _pooled(self.fine.read(top * r, left * r, height * r, width * r), r)


def _pooled(known: Tensor, r: int) -> Tensor:
    return F.avg_pool2d((known if known.is_floating_point() else known.float())[None], r)[0]


class Mask(_Pixelwise):
    """Keep the known pixels:  ``A x = m x``  with 1 = known, 0 = missing.

    ``m`` = ``known`` has the shape (1 or channels, height, width), floats or bool. Fractions
    between 0 and 1 weigh a pixel (they arise where a mask is pooled);  ``A⁺ y = y / m`` where
    ``m > 0``, else 0. It may be read by windows (``Shares``): then of a mask that is cut to
    windows no more is held than these, and of one that is applied all.

    >>> import torch
    >>> A = Mask((3, 2, 2), torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]))
    >>> A(torch.full((1, 3, 2, 2), 0.5))[0, 0].tolist()
    [[0.5, 0.0], [0.5, 0.5]]
    """

    def __init__(self, in_shape: Shape, known: Tensor | Shares, *, name: str = "mask") -> None:
        if len(known.shape) != 3 or known.shape[0] not in (1, in_shape[0]):
            raise ShapeError(
                f"a mask of shape {tuple(known.shape)}", expected="(1, height, width)"
            )
        if tuple(known.shape[1:]) != in_shape[1:]:
            raise ShapeError(
                f"a mask of {known.shape[2]} x {known.shape[1]} pixels",
                expected=f"{in_shape[2]} x {in_shape[1]} like the picture that it is laid on",
                do="resize the mask, or draw it on the picture itself",
            )
        if isinstance(known, Tensor) and not _are_shares(known):
            raise DegradationError(
                "a mask with values that are no share", expected="0 to 1 everywhere"
            )
        super().__init__(in_shape, in_shape)
        self._stored = known
        self.name = name

    @cached_property
    def _known(self) -> Tensor:
        return self._read(Window(0, 0, *self.in_shape[1:]))

    def _read(self, w: Window) -> Tensor:
        m = self._stored
        return w.of(m) if isinstance(m, Tensor) else m.read(w.top, w.left, w.height, w.width)

    @property
    def known(self) -> Tensor:
        """The shares, as floats."""
        return self._known if self._known.is_floating_point() else self._known.float()

    def pooled(self, shape: Shape, r: int) -> Mask:
        """Return the mask of the mean shares of squares of ``r`` pixels, for images of ``shape``.

        >>> A = Mask((3, 2, 4), torch.tensor([[[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]]))
        >>> A.pooled((3, 1, 2), 2).known.tolist()
        [[[0.75, 1.0]]]
        """
        m = self._stored
        known = _pooled(m, r) if isinstance(m, Tensor) else _Pooled(m, r)
        return Mask(shape, known, name=self.name)

    @override
    def forward(self, x: Images) -> Measurements:
        return x * self._known.to(x)

    @override
    def adjoint(self, y: Measurements) -> Images:
        return y * self._known.to(y)

    @override
    def pinv(self, y: Measurements) -> Images:
        return y * reciprocal(self.known).to(y)

    @override
    def crop(self, window: Window) -> Mask:
        shape = (self.in_shape[0], window.height, window.width)
        return Mask(shape, self._read(window), name=self.name)

    @override
    def __str__(self) -> str:
        return self.name


def _are_shares(known: Tensor) -> bool:
    if known.dtype is torch.bool:
        return True
    finite = bool(torch.isfinite(known).all())
    return finite and float(known.min()) >= 0 and float(known.max()) <= 1


#: Rows of a random mask that are drawn at once.
_ROWS = 256


def random_mask(in_shape: Shape, keep: float, seed: int = 0) -> Mask:
    """Keep each pixel with probability ``keep``, by ``seed``."""
    if not 0 < keep <= 1:
        raise DegradationError(f"a share of {keep} kept", expected="above 0 and at most 1")
    g = torch.Generator().manual_seed(seed)
    _, height, width = in_shape
    known = torch.empty((1, height, width), dtype=torch.bool)
    for top in range(0, height, _ROWS):
        n = min(_ROWS, height - top)
        known[:, top : top + n] = torch.rand((1, n, width), generator=g) < keep
    return Mask(in_shape, known, name=f"random_mask:{keep:g}:{seed}")


def box_mask(in_shape: Shape, share: float) -> Mask:
    """Leave a hole in the middle whose sides are ``share`` of the picture's.

    >>> int((1 - box_mask((1, 8, 8), 0.5).known).sum())
    16
    """
    if not 0 < share < 1:
        raise DegradationError(f"a hole of {share} of the sides", expected="between 0 and 1")
    known = torch.ones((1, *in_shape[1:]))
    height, width = (max(1, round(share * n)) for n in in_shape[1:])
    top, left = (in_shape[1] - height) // 2, (in_shape[2] - width) // 2
    known[:, top : top + height, left : left + width] = 0
    return Mask(in_shape, known, name=f"box_mask:{share:g}")


def scratch_mask(in_shape: Shape, n: int, seed: int = 0) -> Mask:
    """Leave out ``n`` scratches: bent lines of 1 to 3 pixels, which ``seed`` draws.

    Each is a parabola (a Bézier curve of three points anywhere in the picture).

    >>> scratch_mask((1, 64, 64), 4).known.mean() < 1
    tensor(True)
    """
    g = torch.Generator().manual_seed(seed)
    _, height, width = in_shape
    corner = torch.tensor([height - 1.0, width - 1.0])
    t = torch.linspace(0, 1, 4 * max(height, width))[:, None]
    missing = torch.zeros(1, height, width)
    for _ in range(n):
        p, q, r = torch.rand(3, 2, generator=g) * corner
        rows, cols = ((1 - t) ** 2 * p + 2 * t * (1 - t) * q + t**2 * r).round().long().T
        line = torch.zeros(1, height, width)
        line[0, rows, cols] = 1
        thick = int(torch.randint(1, 4, (), generator=g))
        wide = pad(line, (thick // 2, (thick - 1) // 2) * 2)
        missing = torch.maximum(missing, max_pool2d(wide, thick, stride=1))
    return Mask(in_shape, 1 - missing, name=f"scratch_mask:{n}:{seed}")
