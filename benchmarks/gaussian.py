"""How far each method is from the posterior of Gaussian images, where that is known.

    python benchmarks/gaussian.py

``x_0 ~ N(μ, C)`` of 16 pixels, ``y = A x + n``; the denoiser is exact, so that what is wrong is
the method's. Each row gives, for 25, 100 and 400 steps, the error of the mean (its root mean
square over the posterior's mean standard deviation) and the ratio of the total variance to the
posterior's. The last row draws from the posterior itself: the error of 4000 samples.
"""

from __future__ import annotations

import torch

from sfumato.guidance import Measurement, parse_method
from sfumato.operators import AveragePool
from sfumato.samplers import DDIM, DDPM
from sfumato.testing import GaussianImages, restorations

STEPS = (25, 100, 400)
#: Methods, and whether they take a measurement with noise, without, or both.
CASES = {
    "mmps:iterations=8": (0.1, 0.0),
    "mmps:iterations=1": (0.1, 0.0),
    "pigdm": (0.1, 0.0),
    "pigdm:adaptive=0": (0.1, 0.0),
    "diffpir:lambda=1": (0.1, 0.0),
    "dps:zeta=0.1": (0.1, 0.0),
    "dps:zeta=1": (0.1, 0.0),
    "ddrm": (0.1, 0.0),
    "ddnm": (0.0,),
    "ilvr": (0.0,),
}


def scores(samples: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor) -> str:
    scale = covariance.diagonal().mean().sqrt()
    error = (samples.mean(0) - mean).square().mean().sqrt() / scale
    ratio = samples.var(0).sum() / covariance.diagonal().sum()
    return f"{error:.3f}, {ratio:.2f}"


def main() -> None:
    images = GaussianImages.random((1, 4, 4))
    g = torch.Generator().manual_seed(1)
    x_0 = images.draw(1, g)
    A = AveragePool((1, 4, 4), 2)
    for sigma_y in (0.1, 0.0):
        y = A(x_0) + sigma_y * torch.randn((1, *A.out_shape), generator=g, dtype=torch.float64)
        m = Measurement(A, y, sigma_y)
        mean, covariance = images.posterior(m)
        print(f"\nnoise {sigma_y}\n")
        print("| method | sampler | " + " | ".join(f"{n} steps" for n in STEPS) + " |")
        print("|---|---|" + "---|" * len(STEPS))
        for name, noises in CASES.items():
            if sigma_y not in noises:
                continue
            for sampler in (DDPM(), DDIM(0.85)):
                guidance = parse_method(name).guidance(m)
                row = [
                    scores(restorations(images, guidance, sampler, n_steps=n), mean, covariance)
                    for n in STEPS
                ]
                print(f"| {name} | {type(sampler).__name__.lower()} | {' | '.join(row)} |")
        root = torch.linalg.cholesky(covariance + 1e-12 * torch.eye(len(mean)))
        drawn = mean + torch.randn((4000, len(mean)), generator=g, dtype=torch.float64) @ root.T
        print(f"| drawn from the posterior | | {scores(drawn, mean, covariance)} | | |")


if __name__ == "__main__":
    main()
