"""From a measured picture and its degradation to a problem in the units of the diffusion."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from sfumato.errors import DegradationError, ShapeError
from sfumato.guidance import Measurement, to_model_units
from sfumato.operators import (
    Bound,
    Degradation,
    Grayscale,
    GrayscaleWithHints,
    Operator,
    Window,
    links,
)
from sfumato.pipeline.presets import Task, task_of
from sfumato.tiling import coarse_operator, coarsen


def rounding_std(bits: int) -> float:
    """Return the standard deviation of rounding to ``bits`` bits:  ``1 / ((2^bits − 1) √12)``.

    It is on the [0, 1] scale.

    >>> round(rounding_std(8) * 255, 4)
    0.2887
    """
    return 1 / (float(2**bits - 1) * math.sqrt(12))


class Source(ABC):
    """Where problems come from: a picture in memory, or a file that is read window by window.

    ``grey`` tells that a grey picture is repeated in three channels, ``exact`` that ``A x = y`` is
    asked for; otherwise the measurement carries noise. With ``supersampling`` the image is so many
    times as wide and high as what was asked for, which is its means.
    """

    task: Task
    grey: bool
    exact: bool
    supersampling: int

    @property
    @abstractmethod
    def A(self) -> Operator:
        """The operator of the whole image."""

    @property
    @abstractmethod
    def sigma_y(self) -> float:
        """The measurement's noise, for data in [-1, 1]."""

    @abstractmethod
    def at(self, window: Window) -> Problem:
        """Return the problem of a window of the image, aligned to the operator's cells.

        It holds the values whose whole support is in the window.
        """

    @abstractmethod
    def alone(self, window: Window) -> Problem:
        """Return the problem of a window as if it were the whole image.

        It differs from ``at`` where the operator has a halo, near the cut edges.
        """

    @abstractmethod
    def coarse(self, ratio: int) -> Source:
        """Return the same problem at a coarser scale, of the same measured values.

        Raises SettingsError where that would have others.
        """

    @abstractmethod
    def hole_radius(self) -> int:
        """Return the largest distance of a missing value to a known one, along rows or columns."""

    @abstractmethod
    def known(self, window: Window) -> float:
        """Return the share of known values in a window of the image, aligned to the cells."""


@dataclass(frozen=True)
class Problem(Source):
    """A measurement, what task it poses, and which of its values count.

    ``weight`` (one measurement's shape) is 0 where nothing was measured.
    """

    measurement: Measurement
    task: Task
    weight: Tensor
    grey: bool
    exact: bool
    supersampling: int = 1

    @property
    @override
    def A(self) -> Operator:
        return self.measurement.A

    @property
    @override
    def sigma_y(self) -> float:
        return self.measurement.sigma_y

    @override
    def at(self, window: Window) -> Problem:
        if window == Window(0, 0, *self.A.in_shape[1:]):
            return self
        weight = self.A.inside(window)[1].of(self.weight)
        return replace(self, measurement=self.measurement.inside(window), weight=weight)

    @override
    def alone(self, window: Window) -> Problem:
        weight = self.A.measured(window).of(self.weight)
        return replace(self, measurement=self.measurement.crop(window), weight=weight)

    @override
    def coarse(self, ratio: int) -> Problem:
        m = self.measurement
        return replace(self, measurement=replace(m, A=coarse_operator(m.A, ratio)))

    def given(self, free: Sequence[Window]) -> Problem:
        """Return the same problem where only the pixels ``free`` may still change.

        Values that these have next to no share in no longer count.
        """
        m = self.measurement
        AF = Bound(m.A, free)
        reached = _row_energy(AF, m.y)
        weight = self.weight * (reached > _REACHED * reached.max())
        return replace(self, measurement=replace(m, movable=AF), weight=weight)

    def coarser(self, ratio: int) -> Measurement:
        """Return the measurement of the same problem at a coarser scale."""
        return self.measurement if ratio == 1 else coarsen(self.measurement, ratio)

    def residual_squares(self, u: Tensor, part: Window | None = None) -> tuple[float, float]:
        """Return the sum of the squares of ``A u − y`` on the [0, 1] scale, and of the weights.

        ``u`` is (1, channels, height, width) in [0, 1]; ``part`` is a window of ``y`` to look at.
        """
        m = self.measurement
        difference = (m.A(2 * u - 1) - m.y) / 2
        w = self.weight.to(difference)
        if part is not None:
            difference, w = part.of(difference), part.of(w)
        squares = (w * difference.double() ** 2).sum()
        return float(squares), float(w.expand_as(difference).double().sum())

    def residual_rmse(self, u: Tensor) -> float:
        """Return the RMSE of ``A u − y`` over the values that count (0 where none does)."""
        squares, weights = self.residual_squares(u)
        return math.sqrt(squares / weights) if weights else 0.0

    @override
    def hole_radius(self) -> int:
        return hole_radius(self.weight.amax(0))

    @override
    def known(self, window: Window) -> float:
        return share_of(self.A.measured(window).of(self.weight))


#: Values with less than this share of the largest energy of a row of ``A F`` are out of reach.
_REACHED = 1e-3


def _row_energy(A: Bound, like: Tensor) -> Tensor:
    """Return ``Σ_j A_ij²`` of every row; else nearly: the mean square of ``A ε``, random signs."""
    energy = A.energy()
    if energy is not None:
        return energy.to(like)
    g = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (16, *A.in_shape[1:]), generator=g).to(like) * 2 - 1
    rows = [A.forward(s.expand(1, *A.in_shape)).square() for s in signs]
    return torch.stack(rows).mean(0)[0]


def share_of(weight: Tensor) -> float:
    """Return the share of the places (channels, height, width) of which a value counts."""
    return float(weight.amax(0).mean())


def hole_radius(known: Tensor) -> int:
    """Return how far the farthest missing place (0) is from a known one, in rows or columns.

    >>> hole_radius(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    3
    """
    missing = 1 - (known > 0).float()[None, None]
    radius = 0
    while bool(missing.any()) and radius < max(known.shape):
        step = max(1, radius // 4)
        missing = -F.max_pool2d(-missing, 2 * step + 1, stride=1, padding=step)
        radius += step
    return radius


#: Blurs that look farther are not restored tile by tile, in pixels.
_SMALL_REACH = 16


def by_windows(A: Operator, *, asked: bool = False) -> bool:
    """Say whether an image is restored by windows of a measurement by ``A``.

    Each value must look at a few pixels only. A halo is for inverses that amplify nothing; where
    it is ``asked`` for, small blurs too, which take many times as long as jointly.
    """
    local, halo = A.locality.stride > 0, A.locality.halo
    return A.locality.tileable or (local and (not A.amplifies or (asked and halo <= _SMALL_REACH)))


def make_problem(
    y: Tensor,
    degradation: Degradation,
    *,
    bits: int = 8,
    operator: Operator | None = None,
    part: bool = False,
    supersampling: int = 1,
) -> Problem:
    """Bind ``degradation`` to the measured picture ``y`` (channels, height, width) in [0, 1].

    A grey picture where a colour one is expected is repeated in three channels; a colour one where
    a grey one is expected is made grey with the operator's own weights. Operators whose inverse
    would amplify rounding noise are taken as measured with it. ``part`` says that ``y`` is a part
    of a measurement, of which nothing may be known. See ``Source`` for ``supersampling``.
    """
    A = operator or degradation.finer(supersampling).operator(
        degradation.finer(supersampling).source_shape((y.shape[0], y.shape[1], y.shape[2]))
    )
    strokes = degradation.strokes()
    grey = y.shape[0] == 1 and A.out_shape[0] == 3 and strokes is None
    if isinstance(A, GrayscaleWithHints) and strokes is not None:
        y = A.join(_match_channels(y, Grayscale(A.in_shape))[None], strokes[None].to(y))
    else:
        y = _match_channels(y, A)[None]
    weight = measured_values(A, y)
    task = task_of(A)
    if not part and task != "generate" and not bool(weight.any()):
        raise DegradationError(
            f"{A}: every pixel is missing",
            expected="a mask that leaves some pixels known (white marks what is missing)",
        )
    noise = degradation.noise
    damped = A.amplifies
    sigma = max(noise, rounding_std(bits)) if damped else noise
    if grey:
        # Three copies share one noise: along (1, 1, 1) it is as long as √3 times as much in each.
        sigma *= math.sqrt(3)
    if isinstance(A, GrayscaleWithHints):
        sigma /= math.sqrt(sum(w * w for w in A.weights))
    return Problem(
        Measurement(
            A,
            to_model_units(A, y) * weight,
            2 * sigma,
            clips=noise > 0 and task != "sense" and not isinstance(A, GrayscaleWithHints),
            copies=3 if grey else 1,
        ),
        task,
        weight,
        grey,
        exact=noise == 0,
        supersampling=supersampling,
    )


def _match_channels(y: Tensor, A: Operator) -> Tensor:
    c = A.out_shape[0]
    if y.shape[0] == 1 and c == 3:
        y = y.expand(3, -1, -1)
    elif y.shape[0] == 3 and c == 1:
        grey = next((P for P in links(A) if isinstance(P, Grayscale)), None)
        weights = torch.tensor(grey.weights if grey else (0.299, 0.587, 0.114)).to(y)
        y = (y * weights[:, None, None]).sum(0, keepdim=True)
    if tuple(y.shape) != A.out_shape:
        raise ShapeError(
            f"a measurement of shape {tuple(y.shape)}", expected=f"{A.out_shape} for {A}"
        )
    return y.contiguous()


def measured_values(A: Operator, y: Tensor) -> Tensor:
    """Return 1 where a value was measured and 0 where ``A`` gives zero whatever the image.

    It is of dtype and device of ``y``, of which no more is looked at.
    """
    d = A.gram_diagonal(y)
    if d is None:
        d = links(A)[-1].gram_diagonal(y)  # what the last operator leaves out is not measured
    if d is None:
        return torch.ones(A.out_shape, dtype=y.dtype, device=y.device)
    return (d > 0).to(y)
