"""Gaussian images: where the posterior is known, and methods can be held against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sfumato._typing import Images, Shape
from sfumato.diffusion import karras
from sfumato.diffusion.guidance import Guidance, Step
from sfumato.diffusion.jacobian import linearised
from sfumato.guidance import Measurement
from sfumato.operators import Operator
from sfumato.samplers import Sampler, walk
from sfumato.samplers.loop import advance


@final
@dataclass(frozen=True)
class GaussianImages:
    """``x_0 ~ N(μ, C)``, small images in float64; ``shape`` is (channels, height, width).

    >>> images = GaussianImages.random((1, 2, 3))
    >>> images(torch.zeros(5, 1, 2, 3, dtype=torch.float64), 0.5).shape
    torch.Size([5, 1, 2, 3])
    """

    shape: Shape
    mean: Tensor
    covariance: Tensor

    @classmethod
    def random(cls, shape: Shape, seed: int = 0) -> GaussianImages:
        """Draw mean and covariance; pixels correlate, with a deviation of about 0.5."""
        g = torch.Generator().manual_seed(seed)
        d = shape[0] * shape[1] * shape[2]
        root = torch.randn((d, d), generator=g, dtype=torch.float64)
        mean = 0.3 * torch.randn(d, generator=g, dtype=torch.float64)
        return cls(shape, mean, 0.25 * root @ root.T / d)

    def draw(self, n: int, g: torch.Generator) -> Images:
        """Draw ``n`` images."""
        root = torch.linalg.cholesky(self.covariance)
        z = torch.randn((n, len(self.mean)), generator=g, dtype=torch.float64)
        x: Images = (self.mean + z @ root.T).unflatten(1, self.shape)
        return x

    def __call__(self, x_t: Images, sigma: float) -> Images:
        """Return the exact estimate  ``μ + C (C + σ² I)⁻¹ (x_t − μ)``."""
        d = len(self.mean)
        gain = torch.linalg.solve(
            self.covariance + sigma**2 * torch.eye(d, dtype=torch.float64), self.covariance
        )
        flat: Tensor = self.mean + (x_t.flatten(1) - self.mean) @ gain
        x_0: Images = flat.unflatten(1, self.shape)
        return x_0

    def posterior(self, m: Measurement) -> tuple[Tensor, Tensor]:
        """Return mean and covariance of ``x_0`` given ``y``, of flattened images."""
        A, C = matrix(m.A), self.covariance
        noise = m.sigma_y**2 * torch.eye(len(A), dtype=torch.float64)
        gain = torch.linalg.solve(A @ C @ A.T + noise, A @ C).T
        mean = self.mean + gain @ (m.y.flatten() - A @ self.mean)
        return mean, C - gain @ A @ C


def matrix(A: Operator) -> Tensor:
    """Return a small operator as a matrix, (values, pixels), float64."""
    d = A.in_shape[0] * A.in_shape[1] * A.in_shape[2]
    units = torch.eye(d, dtype=torch.float64).unflatten(1, A.in_shape)
    return A(units).flatten(1).T


def restorations(
    images: GaussianImages,
    guidance: Guidance,
    sampler: Sampler,
    *,
    n_steps: int,
    n: int = 4000,
    sigma_max: float = 10.0,
    seed: int = 0,
) -> Tensor:
    """Restore one measurement ``n`` times with fresh noise; return flattened images, (n, pixels).

    The guidance must act on a batch as on one image, and draw no noise of its own.
    """
    g = torch.Generator().manual_seed(seed)
    x = sigma_max * torch.randn((n, *images.shape), generator=g, dtype=torch.float64)
    for step in walk(sampler, karras(n_steps, sigma_max)):
        assert isinstance(step, Step), "there is no time travel here"
        z = torch.randn(x.shape, generator=g, dtype=torch.float64)
        raw, pull = linearised(images, x, step.sigma)
        x_0 = _correct(guidance, raw, step, pull)
        x = advance(sampler, guidance, step, x_t=x, raw=raw, x_0=x_0, z=z, past=())
    return x.flatten(1)


def _correct(
    guidance: Guidance, raw: Images, step: Step, pull: Callable[[Images], Images]
) -> Images:
    correction = guidance.correcting(raw, step)
    answer: Images | None = None
    while True:
        try:
            v = next(correction) if answer is None else correction.send(answer)
        except StopIteration as stop:
            x_0: Images = stop.value
            return x_0
        answer = pull(v)
