"""A denoiser that knows the image, and what becomes of the noise with it."""

from functools import cache

import torch

from sfumato.diffusion import NoiseField, karras
from sfumato.guidance import Measurement
from sfumato.operators import (
    AveragePool,
    Bicubic,
    Convolution,
    Grayscale,
    compose,
    gaussian_kernel,
    random_mask,
)
from sfumato.samplers import sample, walk

SIDE = 96
SHAPE = (3, SIDE, SIDE)

#: Operators with a cheap SVD.
OPERATORS = {
    "pool": AveragePool(SHAPE, 4),
    "mask": random_mask(SHAPE, 0.5),
    "grey": Grayscale(SHAPE),
    "bicubic": Bicubic(SHAPE, 4),
    "gaussian": Convolution(SHAPE, gaussian_kernel(1.0)),
    "composed": compose(
        random_mask(SHAPE, 0.6), Grayscale(SHAPE), AveragePool((1, SIDE, SIDE), 2)
    ),
}


@cache
def measure(A, sigma_y, seed=0):
    """Return an image and its measurement with noise, drawn properly."""
    g = torch.Generator().manual_seed(seed)
    x_0 = torch.randn((1, *A.in_shape), generator=g)
    y = A(x_0) + sigma_y * torch.randn((1, *A.out_shape), generator=g)
    return x_0, Measurement(A, y, sigma_y)


def noise_of(sampler, guidance, x_0, *, seed=0, n_steps=5, travel=(1, 1), sigma_max=10.0):
    """Yield each move of a walk with an oracle and ``(x_s − x_0) / σ_s`` after it."""
    sigmas = karras(n_steps, sigma_max)
    moves = walk(sampler, sigmas, travel_length=travel[0], travel_repeats=travel[1])
    field = NoiseField(seed)

    def noise(draw):
        return field(draw=draw, top=0, left=0, shape=tuple(x_0.shape[1:]))[None]

    x_T = x_0 + sigmas[0] * noise(0)
    for move, x in sample(
        lambda x_t, sigma: x_0, sampler, [guidance], moves, x_T=x_T, noise=noise
    ):
        if move.sigma_next:
            yield move, (x - x_0) / move.sigma_next
        else:
            assert float((x - x_0).abs().max()) < 1e-4
