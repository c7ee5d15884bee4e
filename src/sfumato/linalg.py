"""Linear algebra of functions: solvers that see a matrix only act, and the cosine transform.

Everything works on batches: axis 0 counts independent problems, all other axes together are one
vector.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

#: A linear map, by its action on a batch.
LinearMap = Callable[[Tensor], Tensor]


class NotConvergedWarning(RuntimeWarning):
    """An iterative solver used up its iterations before it reached its tolerance."""


def conjugate_gradient(
    matvec: LinearMap,
    b: Tensor,
    *,
    tolerance: float = 1e-10,
    max_iterations: int = 1000,
    precondition: LinearMap | None = None,
) -> Tensor:
    """Solve ``M x = b`` for a symmetric positive (semi-)definite ``M`` by conjugate gradients.

    Each item of the batch has its own step lengths and is left alone once ``‖b − M x‖ <= tolerance
    ‖b‖``, so that its solution does not depend on the items beside it. The work ends when the last
    one has converged.

    Args:
        matvec: ``x -> M x`` for a batch of vectors of the shape of ``b``.
        b: right-hand sides, ``(batch, ...)``.
        tolerance: length of the residual to reach, as a share of that of ``b``.
        max_iterations: products with ``M`` to spend; a ``NotConvergedWarning`` is given when they
            do not suffice.
        precondition: ``r -> P r`` with ``P`` close to the inverse of ``M``, symmetric and positive
            definite.

    Returns the solutions, in shape, dtype and device those of ``b``.

    Reference: Hestenes and Stiefel, *Methods of conjugate gradients for solving linear systems*,
    1952.

    >>> M = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
    >>> conjugate_gradient(lambda x: x @ M, torch.tensor([[1.0, 2.0]]), tolerance=1e-5)
    tensor([[0.0909, 0.6364]])
    """
    x, r = torch.zeros_like(b), b
    z = r if precondition is None else precondition(r)
    p, rho = z, _inner(r, z)
    goal = tolerance**2 * _inner(b, b)
    active = _inner(r, r) > goal
    for _ in range(max_iterations):
        if not bool(active.any()):
            return x
        q = matvec(p)
        curvature = _inner(p, q)
        # In a direction without curvature rounding has taken over: nothing more can be gained
        # there.
        active = active & (curvature > 0)
        alpha = _ratio(rho, curvature, active)
        x = x + alpha * p
        r = r - alpha * q
        z = r if precondition is None else precondition(r)
        rho, rho_old = _inner(r, z), rho
        active = active & (_inner(r, r) > goal)
        p = z + _ratio(rho, rho_old, active) * p
    _warn_unless_converged(_inner(r, r), goal, max_iterations, tolerance)
    return x


def least_squares(
    A: LinearMap,
    At: LinearMap,
    y: Tensor,
    *,
    damping: float = 0.0,
    tolerance: float = 1e-10,
    max_iterations: int = 1000,
    precondition: LinearMap | None = None,
) -> Tensor:
    """Minimise  ‖A x − y‖² + damping² ‖x‖²;  of several minimisers return the shortest ``x``.

    Conjugate gradients on the normal equations in the stable form (CGLS): the residual of ``y`` is
    carried, the square of ``A`` is never formed. Without damping the iterates stay in the range of
    ``Aᵀ``, so they converge to the pseudo-inverse solution ``A⁺ y`` for any rank of ``A``.

    Args:
        A: ``x -> A x``, its adjoint ``At``: ``y -> Aᵀ y``, both for batches.
        At: see ``A``.
        y: measurements, ``(batch, ...)``.
        damping: Tikhonov's parameter, in the unit of the singular values of ``A``.
        tolerance: length of ``Aᵀ(y − A x) − damping² x`` to reach, as a share of that of ``Aᵀ y``.
        max_iterations: products with ``A`` to spend; a ``NotConvergedWarning`` is given when they
            do not suffice.
        precondition: close to ``(AᵀA + damping² I)⁻¹``, symmetric and positive definite. Without
            damping, and for an ``A`` that has a null space, the solution is then no longer the
            shortest one.

    Reference: Björck, *Numerical methods for least squares problems*, 1996, algorithm 7.4.1.

    >>> A = torch.tensor([[1.0, 1.0]])
    >>> least_squares(lambda x: x @ A.T, lambda y: y @ A, torch.tensor([[4.0]]))
    tensor([[2., 2.]])
    """
    s = At(y)
    x, r = torch.zeros_like(s), y
    z = s if precondition is None else precondition(s)
    p, rho = z, _inner(s, z)
    goal = tolerance**2 * _inner(s, s)
    active = _inner(s, s) > goal
    for _ in range(max_iterations):
        if not bool(active.any()):
            return x
        q = A(p)
        curvature = _inner(q, q) + damping**2 * _inner(p, p)
        active = active & (curvature > 0)
        alpha = _ratio(rho, curvature, active)
        x = x + alpha * p
        r = r - alpha.reshape(-1, *(1,) * (r.ndim - 1)) * q
        s = At(r) - damping**2 * x
        z = s if precondition is None else precondition(s)
        rho, rho_old = _inner(s, z), rho
        active = active & (_inner(s, s) > goal)
        p = z + _ratio(rho, rho_old, active) * p
    _warn_unless_converged(_inner(s, s), goal, max_iterations, tolerance)
    return x


def power_iteration(matvec: LinearMap, start: Tensor, *, n_iterations: int = 50) -> Tensor:
    """Return the largest eigenvalue of a positive semi-definite matrix, for each batch item.

    The estimate is the Rayleigh quotient, which grows towards the eigenvalue from below. With
    ``matvec`` the action of ``AᵀA`` its root is the norm ``‖A‖``.

    Args:
        matvec: ``x -> M x`` for a batch of vectors.
        start: vectors to begin with, ``(batch, ...)``; random ones are safe, zeros are not.
        n_iterations: products with ``M`` to spend.

    >>> M = torch.diag(torch.tensor([3.0, 1.0]))
    >>> power_iteration(lambda x: x @ M, torch.ones(1, 2))
    tensor([3.])
    """
    x = start
    eigenvalue = torch.zeros(len(start), dtype=start.dtype, device=start.device)
    for _ in range(n_iterations):
        x = x / _inner(x, x).sqrt().clamp_min(torch.finfo(x.dtype).tiny)
        x, x_old = matvec(x), x
        eigenvalue = _inner(x_old, x).flatten()
    return eigenvalue


def dct(x: Tensor) -> Tensor:
    """Return the orthonormal cosine transform (DCT-II) over the last two axes, of any length.

    Along each axis  X[k] = c(k) Σₙ x[n] cos(π k (2 n + 1) / 2 N),  c(0) = √(1/N), else √(2/N): the
    basis in which every symmetric convolution with half-sample symmetric borders is diagonal.

    Reference: Makhoul, *A fast cosine transform in one and two dimensions*, 1980.

    >>> torch.allclose(dct(torch.ones(1, 4)), torch.tensor([[2.0, 0, 0, 0]]), atol=1e-6)
    True
    """
    wide = _transformable(x)
    return _dct_last(_dct_last(wide).mT).mT.to(x.dtype)


def idct(X: Tensor) -> Tensor:
    """Undo ``dct``: the orthonormal DCT-III over the last two axes, its transpose and inverse.

    >>> x = torch.arange(6.0).reshape(2, 3)
    >>> torch.allclose(idct(dct(x)), x, atol=1e-6)
    True
    """
    wide = _transformable(X)
    return _idct_last(_idct_last(wide).mT).mT.to(X.dtype)


def widened(x: Tensor) -> Tensor:
    """Return ``x`` in float64, for iterative solvers (float32 on Apple's GPUs, which lack it)."""
    return x.float() if x.device.type == "mps" else x.double()


def _transformable(x: Tensor) -> Tensor:
    """Return ``x`` in a dtype that Fourier transforms take on every device."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Return  ⟨a, b⟩  of each item of the batch, shaped to multiply the batch."""
    return (a * b).flatten(1).sum(1).reshape(-1, *(1,) * (a.ndim - 1))


def _ratio(numerator: Tensor, denominator: Tensor, active: Tensor) -> Tensor:
    """Return the quotient for active items and 0 for the others."""
    return torch.where(active, numerator / torch.where(active, denominator, 1.0), 0.0)


def _warn_unless_converged(
    squared: Tensor, goal: Tensor, max_iterations: int, tolerance: float
) -> None:
    if not bool((squared > goal).any()):
        return
    worst = tolerance * math.sqrt(float((squared / goal.clamp_min(1e-300)).max()))
    warnings.warn(
        f"{max_iterations} iterations reached a residual of {worst:.1e}; "
        f"expected {tolerance:.1e}; allow more iterations, a larger tolerance, or more damping",
        NotConvergedWarning,
        stacklevel=3,
    )


def _twiddles(n: int, like: Tensor) -> Tensor:
    """√(2/N) exp(−iπk/2N) for k = 0 .. N/2, the first over √2: Makhoul, made orthonormal."""
    k = torch.arange(n // 2 + 1, dtype=like.dtype, device=like.device)
    size = torch.full_like(k, math.sqrt(2 / n))
    size[0] = math.sqrt(1 / n)
    return torch.polar(size, -math.pi / (2 * n) * k)


def _dct_last(x: Tensor) -> Tensor:
    n = x.shape[-1]
    folded = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1)
    T = torch.fft.rfft(folded) * _twiddles(n, x)
    # The real spectrum's upper half is the conjugate of the lower: X[N - k] = -Im T[k].
    return torch.cat([T.real, -T.imag[..., 1 : (n + 1) // 2].flip(-1)], dim=-1)


def _idct_last(X: Tensor) -> Tensor:
    n = X.shape[-1]
    mirrored = torch.cat([torch.zeros_like(X[..., :1]), X[..., n - n // 2 :].flip(-1)], dim=-1)
    T = torch.complex(X[..., : n // 2 + 1], -mirrored) / _twiddles(n, X)
    folded = torch.fft.irfft(T, n=n)
    half = (n + 1) // 2
    x = torch.empty_like(X)
    x[..., ::2], x[..., 1::2] = folded[..., :half], folded[..., half:].flip(-1)
    return x
