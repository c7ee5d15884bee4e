"""The last step: an image that lies in the gamut and agrees with the measurement."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.linalg import NotConvergedWarning, conjugate_gradient
from sfumato.operators.base import reciprocal
from sfumato.pipeline.problem import Problem

#: Agreement that is reached before rounding to 8 bits, which adds up to 0.29/255.
_GOAL = 0.02 / 255
_GOAL_DAMPED = 0.3 / 255
#: Values that straddle finished pixels carry those pixels' rounding, which the others cannot undo.
_GOAL_BOUND = 0.05 / 255

_ROUNDS = 60
#: A blur that is off by more after the first rounds is not the one that was: no use in more.
_OUT_OF_REACH = 3 / 255


def settle(x: Tensor, problem: Problem) -> Tensor:
    """Alternate the projections on ``{x : A x = y}`` and on the gamut, until they stop gaining.

    The gamut is [-1, 1]. Where an image in it has this measurement, the limit is such an image;
    otherwise it is close to the least-squares one in the gamut. A measurement with stated noise is
    left as it is, and only the gamut is enforced.
    """
    x = x.clamp(-1, 1)
    if not problem.exact:
        return x
    goal = _GOAL_DAMPED if problem.measurement.sigma_y > 0 else _GOAL
    if problem.measurement.movable is not None:
        goal = max(goal, _GOAL_BOUND)
    rmse = problem.residual_rmse((x + 1) / 2)
    if problem.measurement.A.disjoint_rows:
        phases = [_Phase(free=True, gain=1e-3)]
    elif problem.measurement.sigma_y > 0:
        phases = [_Phase(True, 0.01), _Phase(False, 0.05), _Phase(True, 0.01)]
    else:
        phases = [_Phase(False, 0.05), _Phase(True, 0.05), _Phase(False, 1e-3)]
    for phase in phases:
        x, rmse = _settle(x, rmse, problem, phase, goal)
        if problem.measurement.sigma_y > 0 and rmse > _OUT_OF_REACH:
            break
    return x


@dataclass(frozen=True)
class _Phase:
    """Rounds of one kind: by all values or by the ``free`` ones, while each gains so much."""

    free: bool
    gain: float


def _settle(
    x: Tensor, rmse: float, problem: Problem, phase: _Phase, goal: float
) -> tuple[Tensor, float]:
    """Do rounds of one kind; return the best image and its RMSE."""
    best, least = x, rmse
    for k in range(_ROUNDS):
        if rmse <= goal:
            break
        x = (x + _towards(x, problem, k, free=phase.free)).clamp(-1, 1)
        rmse, before = problem.residual_rmse((x + 1) / 2), rmse
        if rmse < least:
            best, least = x, rmse
        if k > 2 and rmse > (1 - phase.gain) * before:
            break
    return best, least


def _towards(x: Tensor, problem: Problem, k: int, *, free: bool) -> Tensor:
    """Return the ``k``-th step that takes ``x`` to the measurement:  ``F Aᵀ (A F Aᵀ)⁺ r``.

    With ``free``, ``F`` is 0 where ``x`` lies at the border of the gamut and would be pushed
    beyond. Else it is 1, and the projections creep: onto a white patch of grey, each takes blue
    3 % of the way. Where ``A⁺`` would amplify rounding the step is damped, ever less so.
    """
    m, A = problem.measurement, problem.measurement.AF
    residual = (m.y - m.A(x)) * problem.weight
    if m.sigma_y == 0 and not free:
        return A.pinv(residual)
    push = A.adjoint(residual)
    F = (((x < 1) | (push < 0)) & ((x > -1) | (push > 0))) if free else torch.ones_like(x)
    if A.disjoint_rows:
        d = A(F * A.adjoint(torch.ones_like(residual)))
        return F * A.adjoint(residual * reciprocal(d))
    damping = (m.sigma_y / (0.02 * 1.5**k)) ** 2
    with warnings.catch_warnings():
        # The next round goes on from whatever this one has reached.
        warnings.simplefilter("ignore", NotConvergedWarning)
        u = conjugate_gradient(
            lambda v: A.forward(F * A.adjoint(v)) + damping * v,
            residual,
            tolerance=1e-3,
            max_iterations=100 if damping else 20,
        )
    return F * A.adjoint(u)


def quantise(u: Tensor, bits: int) -> Tensor:
    """Round an image in [0, 1] to the values that a file of ``bits`` bits holds.

    >>> quantise(torch.tensor([0.5]), 8)
    tensor([0.5020])
    """
    top = float(2**bits - 1)
    return (u.clamp(0, 1) * top).round() / top
