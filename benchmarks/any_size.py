"""A whole restoration by mask-shift: the paper's procedure step by step, and sfumato.

    python benchmarks/any_size.py --width 128 --steps 3

Both restore one picture 4x with one made-up checkpoint in the published layout, over the same
tiles of 256 with strides of 128, in as many evaluations, on as many threads. The procedure is that
of Unlimited-Size Diffusion Restoration (arXiv 2303.00354): tile by tile, left to right and top to
bottom, the last ones shifted inwards; at each step the range-null projection, then the overlap
with what is finished, then the DDPM posterior; in float32, with its network computed as its code
does. It stands in for the authors' demo, which is not part of this project.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from published import FORM, published
from torch import Tensor

import sfumato
from sfumato.diffusion import linear_alpha_bar, sigma_of
from sfumato.testing import adm_state_dict

TILE, SHIFT = 256, 128


def starts(n: int) -> list[int]:
    """Return where the tiles begin along a side, the last one shifted inwards."""
    return [*range(0, n - TILE, SHIFT), n - TILE]


def procedure(
    net: Callable[[Tensor, Tensor], Tensor], y: Tensor, scale: int, times: list[int], alpha: Tensor
) -> Tensor:
    """Restore ``y`` (1, 3, h, w) in [-1, 1], 4x or so, over tiles; return it in [-1, 1]."""
    up = F.interpolate(y, scale_factor=scale, mode="nearest")
    out, done = torch.zeros_like(up), torch.zeros_like(up[:1, :1])
    for top in starts(up.shape[2]):
        for left in starts(up.shape[3]):
            window = (..., slice(top, top + TILE), slice(left, left + TILE))
            out[window] = tile(net, up[window], scale, times, alpha, out[window], done[window])
            done[window] = 1
    return out


def tile(
    net: Callable[[Tensor, Tensor], Tensor],
    A_pinv_y: Tensor,
    scale: int,
    times: list[int],
    alpha: Tensor,
    finished: Tensor,
    mask: Tensor,
) -> Tensor:
    """Walk one tile from noise to image."""
    x = torch.randn_like(A_pinv_y)
    for t, s in zip(times, [*times[1:], -1], strict=True):
        a_t, a_s = alpha[t], alpha[s] if s >= 0 else torch.ones(())
        eps = net(x, torch.tensor([float(t)]))[:, :3]
        x_0 = ((x - (1 - a_t).sqrt() * eps) / a_t.sqrt()).clamp(-1, 1)
        pooled = F.interpolate(F.avg_pool2d(x_0, scale), scale_factor=scale, mode="nearest")
        x_0 = A_pinv_y + x_0 - pooled
        x_0 = mask * finished + (1 - mask) * x_0
        b = a_t / a_s
        mean = (a_s.sqrt() * (1 - b) * x_0 + b.sqrt() * (1 - a_s) * x) / (1 - a_t)
        x = mean + ((1 - a_s) / (1 - a_t) * (1 - b)).sqrt() * torch.randn_like(x) * (s >= 0)
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    scale, side, steps = arguments.scale, arguments.side, arguments.steps
    small = side // scale
    g = torch.Generator().manual_seed(0)
    y = F.interpolate(torch.rand(1, 3, 8, 8, generator=g), size=(small, small), mode="bicubic")
    y = (y.clamp(0, 1) * 255).round() / 255
    alpha = linear_alpha_bar(1000).float()
    times = torch.linspace(999, 0, steps + 1)[:-1].round().long().tolist()
    sigmas = tuple(float(s) for s in sigma_of(alpha[times]))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "made-up.pt"
        torch.save(adm_state_dict(width=arguments.width, **FORM), path)
        net = published(torch.load(path, weights_only=True, mmap=True))
        prior = sfumato.load_prior(path, precision=arguments.precision)
        began = time.perf_counter()
        procedure(net.unet, 2 * y - 1, scale, times, alpha)
        first = time.perf_counter() - began
        settings = sfumato.Settings(
            schedule=sigmas, sampler="ddpm", method="ddnm", stitch="mask-shift", tile=TILE,
            overlap=TILE - SHIFT, objective="perception", levels=1,
        )  # fmt: skip
        began = time.perf_counter()
        result = sfumato.restore(y[0], f"average_pool:{scale}", prior=prior, settings=settings)
        second = time.perf_counter() - began
    n = len(starts(side)) ** 2
    print(f"{side} x {side}, {n} tiles of {TILE} (sfumato: {result.report.tiles}), {steps} steps,")
    print(f"{arguments.threads} threads, {prior.n_parameters / 1e6:.0f} M parameters\n")
    print("| | clock, s | times as fast |\n|---|---|---|")
    print(f"| the procedure, fp32 | {first:.1f} | 1 |")
    print(f"| sfumato, {prior.precision} | {second:.1f} | {first / second:.2f} |")
    print(f"\nsfumato: RMSE of A x {result.report.consistency_rmse_255:.3f} of 255")


if __name__ == "__main__":
    main()
