"""What a sampler asks of guidance: between walking down the noise and knowing a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images


@dataclass(frozen=True)
class Step:
    """One step of a sampler, from noise ``sigma`` down to ``sigma_next``.

    ``eta`` is the share of fresh noise:  ``x_s = x̂_0 + σ_s (sqrt(1 − η²) ε_θ + η κ z)``, and
    ``excess`` is ``κ``. ``draw`` numbers the draws of noise along the whole walk, time travel
    included.
    """

    draw: int
    sigma: float
    sigma_next: float
    eta: float
    excess: float = 1.0


class Guidance:
    """Knows something about the image, and corrects each estimate by it.

    The base class knows nothing: it is the neutral guidance. Implementations act on a batch of one
    image (a tile has a guidance of its own).
    """

    #: Whether ``mix`` needs fresh noise even where the sampler is deterministic.
    needs_noise: bool = False
    #: Whether ``mix`` shapes the noise, which needs a sampler of first order.
    shapes_noise: bool = False

    def correct(self, x_0: Images, step: Step) -> Images:
        """Return the corrected estimate ``x̂_0``."""
        del step
        return x_0

    def mix(self, noise: Tensor, z: Tensor, step: Step) -> Tensor:
        """Return the noise (of unit size) to put on ``x̂_0``.

        ``noise`` is what the sampler would take, ``sqrt(1 − η²) ε_θ + η z``, and ``z`` this step's
        fresh noise.
        """
        del z, step
        return noise


@final
class Chain(Guidance):
    """Several constraints, the last one having the last word.

    The order is: guide, then measurement, then overlap.
    """

    def __init__(self, links: Sequence[Guidance]) -> None:
        self.links = tuple(links)
        self.needs_noise = any(g.needs_noise for g in self.links)
        self.shapes_noise = any(g.shapes_noise for g in self.links)

    @override
    def correct(self, x_0: Images, step: Step) -> Images:
        for g in self.links:
            x_0 = g.correct(x_0, step)
        return x_0

    @override
    def mix(self, noise: Tensor, z: Tensor, step: Step) -> Tensor:
        for g in self.links:
            noise = g.mix(noise, z, step)
        return noise
