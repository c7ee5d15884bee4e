"""What a sampler asks of guidance: between walking down the noise and knowing a measurement."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images

#: Yields each ``v`` whose ``Jᵀ v`` it wants, is sent that, and returns the corrected estimate.
Correction: TypeAlias = Generator[Images, Images, Images]


@dataclass(frozen=True)
class Step:
    """One step of a sampler, from noise ``sigma`` down to ``sigma_next``.

    ``eta`` is the share of fresh noise:  ``x_s = x̂_0 + σ_s (sqrt(1 − η²) ε_θ + η κ z)``, and
    ``excess`` is ``κ``. ``posterior`` says that the sampler takes ``(x_t − x̂_0)/σ_t`` for
    ``ε_θ``. ``draw`` numbers the draws of noise along the whole walk, time travel included.
    """

    draw: int
    sigma: float
    sigma_next: float
    eta: float
    excess: float = 1.0
    posterior: bool = False


class Guidance:
    """Knows something about the image, and corrects each estimate by it.

    The base class knows nothing: it is the neutral guidance. Implementations act on a batch of one
    image (a tile has a guidance of its own). They override ``correct``, or, where they need the
    network's Jacobian  ``J = ∂x_0/∂x_t``, ``correcting``.
    """

    #: Whether ``mix`` needs fresh noise even where the sampler is deterministic.
    needs_noise: bool = False
    #: Whether ``mix`` shapes the noise, which needs a sampler of first order.
    shapes_noise: bool = False
    #: Whether ``correcting`` asks for ``Jᵀ v``.
    needs_gradient: bool = False
    #: Whether ``ε`` is what the corrected estimate leaves of ``x_t``, with any sampler.
    posterior: bool = False

    def correct(self, x_0: Images, step: Step) -> Images:
        """Return the corrected estimate ``x̂_0``."""
        del step
        return x_0

    def correcting(self, x_0: Images, step: Step) -> Correction:
        """Return the corrected estimate, having yielded each ``v`` whose ``Jᵀ v`` it needs.

        ``v`` and ``Jᵀ v`` have the shape of ``x_0``.
        """
        yield from ()
        return self.correct(x_0, step)

    def drawn(self, difference: Images, step: Step) -> Images | None:
        """Return the ``v`` that asks for a ``difference`` of the estimate as for a measured one.

        That is what an overlap or a guide have changed in the estimate before this guidance
        corrects it: where it goes back through the network, they may too. None: they do not.
        """
        del difference, step
        return None

    def mix(self, noise: Tensor, z: Tensor, step: Step) -> Tensor:
        """Return the noise (of unit size) to put on ``x̂_0``.

        ``noise`` is what the sampler would take, ``sqrt(1 − η²) ε_θ + η z``, and ``z`` this step's
        fresh noise.
        """
        del z, step
        return noise


class Combined(Guidance):
    """Made of others: ``correcting`` says how, whether they need the Jacobian or not."""

    def __init__(self, parts: Sequence[Guidance]) -> None:
        self.needs_noise = any(g.needs_noise for g in parts)
        self.shapes_noise = any(g.shapes_noise for g in parts)
        self.needs_gradient = any(g.needs_gradient for g in parts)
        self.posterior = any(g.posterior for g in parts)

    @staticmethod
    def _after(g: Guidance, x_0: Images, raw: Images, step: Step) -> Correction:
        """Correct ``x_0`` by ``g``, which may ask for what was changed in ``raw`` before, too."""
        correction = g.correcting(x_0, step)
        if not g.needs_gradient or x_0 is raw:
            return (yield from correction)
        v = next(correction)
        more = g.drawn(x_0 - raw, step)
        while True:
            pulled = yield v if more is None else v + more
            more = None
            try:
                v = correction.send(pulled)
            except StopIteration as stop:
                corrected: Images = stop.value
                return corrected

    @override
    def correct(self, x_0: Images, step: Step) -> Images:
        assert not self.needs_gradient, "then it is correcting() that is called"
        return _finish(self.correcting(x_0, step))


def _finish(correction: Correction) -> Images:
    """Return what a correction ends with that asks for nothing."""
    try:
        next(correction)
    except StopIteration as stop:
        corrected: Images = stop.value
        return corrected
    raise AssertionError("a guidance without needs_gradient asked for Jᵀ v")


@final
class Chain(Combined):
    """Several constraints, the last one having the last word.

    The order is: guide, then measurement, then overlap.
    """

    def __init__(self, links: Sequence[Guidance]) -> None:
        super().__init__(links)
        self.links = tuple(links)

    @override
    def correcting(self, x_0: Images, step: Step) -> Correction:
        raw = x_0
        for g in self.links:
            x_0 = yield from self._after(g, x_0, raw, step)
        return x_0

    @override
    def drawn(self, difference: Images, step: Step) -> Images | None:
        asked = (g.drawn(difference, step) for g in self.links)
        return next((v for v in asked if v is not None), None)

    @override
    def mix(self, noise: Tensor, z: Tensor, step: Step) -> Tensor:
        for g in self.links:
            noise = g.mix(noise, z, step)
        return noise
