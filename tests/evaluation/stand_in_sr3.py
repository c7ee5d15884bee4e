"""SR3 models that cost nothing: the exact one for white residuals, and a network's file."""

import torch

from sfumato.diffusion.sr3 import SR3Denoiser
from sfumato.io import save_checkpoint
from sfumato.nn import UNetConfig, seeded_unet
from sfumato.zoo import Prior, SuperResolution

CONFIG = {
    "kind": "sr3", "prediction": "edm", "sigma_data": 0.1, "scale": 4, "tile": 32,
    "network": {"form": "unet", "channels": [4, 8], "blocks": 1, "unshuffle": 2, "embedding": 8},
    "training": {"steps": 3},
}  # fmt: skip


class White:
    """``E[x_0 | x_t] = c + s² / (s² + σ²) (x_t − c)``: exact where ``x_0 − c`` is white."""

    def __init__(self, s=0.1, broken_above=float("inf")):
        self.s = s
        self.broken_above = broken_above

    def given(self, c):
        def denoiser(x, sigma):
            gain = self.s**2 / (self.s**2 + sigma**2)
            return c + (gain if sigma <= self.broken_above else float("nan")) * (x - c)

        return denoiser

    def __call__(self, x, sigma):
        raise AssertionError


def a_prior(denoiser=None, **changes):
    task = {
        "scale": 4, "kernel": "bicubic", "regression": None, "sigmas": (1.0, 0.3, 0.1),
        "sampler": "sr3", "eta": None, "relative": True,
    }  # fmt: skip
    model = SuperResolution(**(task | changes))
    D = denoiser or a_network()
    return Prior("a", D, "0", 64, 4, 80.0, "fp32", 1, "", None, super_resolution=model)


def a_network():
    net = seeded_unet(UNetConfig((4, 8), 1, 2, 8, inputs=6), 0)
    g = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(net.tail[-1].weight, std=0.5, generator=g)
    return SR3Denoiser(net, "edm", stride=4, sigma_data=0.1).eval().requires_grad_(False)


def write_model(path, **changes):
    save_checkpoint(path, a_network().state_dict(), CONFIG | changes)
    return path


def textures(n, s=0.1, side=16, seed=0):
    """Smooth pictures with white noise of ``s``: what ``White`` knows."""
    g = torch.Generator().manual_seed(seed)
    coarse = 0.5 * torch.rand(n, 3, 2, 2, generator=g) - 0.25
    smooth = torch.nn.functional.interpolate(coarse, size=side, mode="bilinear")
    return smooth + s * torch.randn(n, 3, side, side, generator=g)


def looks(x):
    """Features: the mean, the roughness, and the roughness of rows."""
    rows = x.diff(dim=-1).abs().mean((1, 2, 3))
    return torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3)), rows], 1)
