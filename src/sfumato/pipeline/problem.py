"""From a measured picture and its degradation to a problem in the units of the diffusion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import DegradationError, ShapeError
from sfumato.guidance import Measurement, to_model_units
from sfumato.operators import Degradation, Grayscale, GrayscaleWithHints, Operator
from sfumato.pipeline.presets import Task, links, task_of


def rounding_std(bits: int) -> float:
    """Return the standard deviation of rounding to ``bits`` bits:  ``1 / ((2^bits − 1) √12)``.

    It is on the [0, 1] scale.

    >>> round(rounding_std(8) * 255, 4)
    0.2887
    """
    return 1 / (float(2**bits - 1) * math.sqrt(12))


@dataclass(frozen=True)
class Problem:
    """A measurement, what task it poses, and which of its values count.

    ``weight`` (one measurement's shape) is 0 where nothing was measured. ``grey`` tells that a
    grey picture was repeated in three channels. ``exact`` tells that ``A x = y`` is asked for;
    otherwise the measurement carries noise.
    """

    measurement: Measurement
    task: Task
    weight: Tensor
    grey: bool
    exact: bool

    def residual_rmse(self, u: Tensor) -> float:
        """Return the RMSE of ``A u − y`` over the values that count, on the [0, 1] scale.

        ``u`` is (1, channels, height, width) in [0, 1].
        """
        m = self.measurement
        difference = (m.A(2 * u - 1) - m.y) / 2
        w = self.weight.to(difference)
        total = (w * difference.double() ** 2).sum() / w.expand_as(difference).sum()
        return float(total.sqrt())


def make_problem(
    y: Tensor, degradation: Degradation, *, bits: int = 8, operator: Operator | None = None
) -> Problem:
    """Bind ``degradation`` to the measured picture ``y`` (channels, height, width) in [0, 1].

    A grey picture where a colour one is expected is repeated in three channels; a colour one where
    a grey one is expected is made grey with the operator's own weights. Operators whose inverse
    would amplify rounding noise are taken as measured with it.
    """
    A = operator or degradation.operator(
        degradation.source_shape((y.shape[0], y.shape[1], y.shape[2]))
    )
    strokes = degradation.strokes()
    grey = y.shape[0] == 1 and A.out_shape[0] == 3 and strokes is None
    if isinstance(A, GrayscaleWithHints) and strokes is not None:
        y = A.join(_match_channels(y, Grayscale(A.in_shape))[None], strokes[None].to(y))
    else:
        y = _match_channels(y, A)[None]
    weight = _measured_values(A, y)
    if not bool(weight.any()):
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
        Measurement(A, to_model_units(A, y) * weight, 2 * sigma),
        task_of(A),
        weight,
        grey,
        exact=noise == 0,
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


def _measured_values(A: Operator, y: Tensor) -> Tensor:
    """Return 1 where a value was measured and 0 where ``A`` gives zero whatever the image."""
    d = A.gram_diagonal(y)
    if d is None:
        d = links(A)[-1].gram_diagonal(y)  # what the last operator leaves out is not measured
    if d is None:
        return torch.ones(A.out_shape, dtype=y.dtype, device=y.device)
    return (d > 0).to(y)
