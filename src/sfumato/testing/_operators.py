"""Laws of a degradation operator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.linalg import power_iteration
from sfumato.operators.base import Operator


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()


def _distance(a: Tensor, b: Tensor) -> float:
    """Return  ‖a − b‖  over the larger of the two lengths (0 where both vanish)."""
    scale = max(float(a.norm()), float(b.norm()))
    return float((a - b).norm()) / scale if scale else 0.0


def check_operator(
    A: Operator, *, seed: int = 0, tolerance: float = 1e-6, dtype: torch.dtype = torch.float64
) -> None:
    """Check linearity, the adjoint, the four Penrose conditions and the singular values of ``A``.

    For random ``x, x', y, y'``:  ``A(a x + b x') = a A x + b A x'``,  ``<A x, y> = <x, Aᵀ y>``,
    ``A A⁺ A = A`` (within ``A.truncation`` times ‖A‖ where small singular values are left out),
    ``A⁺ A A⁺ = A⁺``, and ``A A⁺``, ``A⁺ A`` are symmetric. Shapes, dtype and the batch axis are
    checked on the way. An operator whose pseudo-inverse is damped (a positive attribute
    ``damping``) obeys  ``(AᵀA + damping²) A⁺ = Aᵀ``  in place of  ``A⁺ A A⁺ = A⁺``.

    Raises AssertionError, naming the law that fails and by how much.

    >>> from sfumato.operators import AveragePool
    >>> check_operator(AveragePool((3, 8, 12), 4))
    """
    g = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn((2, *shape), generator=g, dtype=dtype)

    x, x2, y, y2 = draw(A.in_shape), draw(A.in_shape), draw(A.out_shape), draw(A.out_shape)
    Ax, Aty, Ay = A(x), A.adjoint(y), A.pinv(y)
    for name, got, shape in (
        ("A x", Ax, A.out_shape),
        ("Aᵀ y", Aty, A.in_shape),
        ("A⁺ y", Ay, A.in_shape),
    ):
        assert tuple(got.shape) == (2, *shape), (
            f"{A}: {name} has shape {tuple(got.shape)}, not (2, {shape})"
        )
        assert got.dtype == dtype, f"{A}: {name} has dtype {got.dtype}, not {dtype}"

    def law(name: str, a: Tensor, b: Tensor, slack: float = 0.0) -> None:
        error = _distance(a, b)
        assert error <= tolerance + slack, (
            f"{A}: {name} fails by {error:.2e} (allowed {tolerance + slack:.2e})"
        )

    law("A(a x + b x') = a A x + b A x'", A(1.7 * x - 0.3 * x2), 1.7 * Ax - 0.3 * A(x2))
    law("batch", A(x[1:]), Ax[1:])
    size = float(Ax.norm() * y.norm()) or 1.0
    adjoint = abs(float(_inner(Ax, y) - _inner(x, Aty))) / size
    assert adjoint <= tolerance, f"{A}: <A x, y> = <x, Aᵀ y> fails by {adjoint:.2e}"

    pAx, ApY = A.pinv(Ax), A(Ay)
    damping = A.damping
    left_out = max(A.truncation * _norm(A, x), damping / 2) if A.truncation or damping else 0.0
    lost = left_out * float(x.norm()) / max(float(Ax.norm()), 1e-30)
    law("A A⁺ A = A", A(pAx), Ax, slack=lost)
    if damping:
        law("(AᵀA + damping²) A⁺ = Aᵀ", A.adjoint(ApY) + damping**2 * Ay, Aty)
    else:
        law("A⁺ A A⁺ = A⁺", A.pinv(ApY), Ay)
    for name, a, b, u, v in (
        ("A A⁺", ApY, A(A.pinv(y2)), y, y2),
        ("A⁺ A", pAx, A.pinv(A(x2)), x, x2),
    ):
        skew = abs(float(_inner(a, v) - _inner(u, b))) / (float(u.norm() * v.norm()) or 1.0)
        assert skew <= tolerance, f"{A}: {name} is not symmetric, by {skew:.2e}"
    _check_svd(A, x, tolerance, lost)


def _norm(A: Operator, x: Tensor) -> float:
    """Return ‖A‖, from below."""
    squares = power_iteration(lambda v: A.adjoint(A(v)), x, n_iterations=20)
    return math.sqrt(float(squares.max()))


def _check_svd(A: Operator, x: Tensor, tolerance: float, lost: float) -> None:
    svd = A.svd()
    if svd is None:
        return
    s = svd.s.to(x.dtype)
    c = svd.v_t(x)
    error = _distance(svd.u_t(A(x)), s * c)
    slack = tolerance + 1e-5 + lost
    assert error <= slack, f"{A}: Uᵀ A x = s Vᵀ x fails by {error:.2e}"
    kept = (s > 0).to(x.dtype)
    error = _distance(svd.v_t(svd.v(kept * c)), kept * c)
    assert error <= tolerance + 1e-5, f"{A}: Vᵀ V = I on the range fails by {error:.2e}"
    if svd.u is not None:
        error = _distance(svd.u(kept * s * c), A(svd.v(kept * c)))
        assert error <= tolerance + 1e-5, f"{A}: U s = A V on the range fails by {error:.2e}"
