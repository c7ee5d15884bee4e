"""The last step: an image that lies in the gamut and agrees with the measurement."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.linalg import conjugate_gradient
from sfumato.pipeline.problem import Problem

#: Agreement that is reached before rounding to 8 bits, which adds up to 0.29/255.
_GOAL = 0.02 / 255
_GOAL_DAMPED = 0.3 / 255


def settle(x: Tensor, problem: Problem, *, rounds: int = 60) -> Tensor:
    """Alternate the projections on ``{x : A x = y}`` and on the gamut [-1, 1], until they agree or stop gaining.

    Where an image in the gamut has this measurement, the limit is such an image; otherwise it is close to the least-squares one in the gamut.
    A measurement with stated noise is left as it is, and only the gamut is enforced.
    """
    if not problem.exact:
        return x.clamp(-1, 1)
    goal = _GOAL_DAMPED if problem.measurement.sigma_y > 0 else _GOAL
    best, least = x.clamp(-1, 1), float("inf")
    x = best
    for k in range(rounds):
        rmse = problem.residual_rmse((x + 1) / 2)
        if rmse < least:
            best, gain, least = x, least - rmse, rmse
            if rmse <= goal or gain < 1e-3 * least:
                break
        elif k > 2:
            break
        x = (x + _towards(x, problem, k)).clamp(-1, 1)
    return best


def _towards(x: Tensor, problem: Problem, k: int) -> Tensor:
    """Return the step that takes ``x`` to the measurement; damped, ever less so, where ``A⁺`` would amplify rounding."""
    m = problem.measurement
    residual = m.y - m.A(x)
    if m.sigma_y == 0:
        return m.A.pinv(residual)
    damping = (m.sigma_y / (0.02 * 1.5**k)) ** 2
    u = conjugate_gradient(
        lambda v: m.A.forward(m.A.adjoint(v)) + damping * v, residual, tolerance=1e-3, max_iterations=100
    )
    return m.A.adjoint(u)


def quantise(u: Tensor, bits: int) -> Tensor:
    """Round an image in [0, 1] to the values that a file of ``bits`` bits holds.

    >>> quantise(torch.tensor([0.5]), 8)
    tensor([0.5020])
    """
    top = 2**bits - 1
    return (u.clamp(0, 1) * top).round() / top
