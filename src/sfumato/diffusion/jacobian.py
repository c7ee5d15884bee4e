"""The estimate of a denoiser together with its Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch

from sfumato._typing import Images
from sfumato.diffusion.denoiser import Denoiser


class Linearised(NamedTuple):
    """A denoiser at one ``x_t``: the estimate ``x_0``, and ``pull(v) = Jᵀ v``.

    ``J = ∂x_0/∂x_t``. ``pull`` may be called any number of times.
    """

    x_0: Images
    pull: Callable[[Images], Images]


@runtime_checkable
class Linearisable(Protocol):
    """A denoiser that has a way of its own to its Jacobian."""

    def linearised(self, x_t: Images, sigma: float) -> Linearised:
        """Return the estimate at ``x_t``, and how to pull back through it."""
        ...


def linearised(denoiser: Denoiser, x_t: Images, sigma: float) -> Linearised:
    """Evaluate any denoiser that torch can differentiate, and keep what ``Jᵀ v`` needs.

    That is the memory of one evaluation with all of its layers. A denoiser of many tiles brings a
    way that keeps nothing (``Linearisable``).

    >>> x_0, pull = linearised(lambda x, sigma: 3 * x, torch.ones(1, 1, 1, 2), 0.5)
    >>> pull(torch.tensor([[[[1.0, 2.0]]]])).tolist()
    [[[[3.0, 6.0]]]]
    """
    if isinstance(denoiser, Linearisable):
        return denoiser.linearised(x_t, sigma)
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        x_0 = denoiser(x, sigma)

    def pull(v: Images) -> Images:
        if not x_0.requires_grad:
            return torch.zeros_like(x_t)
        (pulled,) = torch.autograd.grad(x_0, x, v, retain_graph=True)
        return pulled

    return Linearised(x_0.detach(), pull)
