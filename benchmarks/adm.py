"""How fast a guided-diffusion model is here, beside the published computation in float32.

    python benchmarks/adm.py --width 256

A checkpoint in the layout of 256x256_diffusion_uncond.pt is made up (width 256 is that one: 553
million parameters, 2.2 GB in a temporary folder), and one tile of 256 x 256 is evaluated. The
published computation is restated by torch's own functions: contiguous, attention as two products.
Each row gives the least seconds of the processor and on the clock.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from published import FORM, STRIDE, published

from sfumato.diffusion.precondition import evaluate
from sfumato.testing import adm_state_dict
from sfumato.zoo import load_prior


def least(run: Callable[[], object], n: int) -> tuple[float, float]:
    processor, clock = math.inf, math.inf
    for _ in range(n):
        p, c = time.process_time(), time.perf_counter()
        run()
        processor = min(processor, time.process_time() - p)
        clock = min(clock, time.perf_counter() - c)
    return processor, clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    x, t = torch.randn(1, 3, arguments.side, arguments.side), torch.tensor([500.0])
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "made-up.pt"
        torch.save(adm_state_dict(width=arguments.width, **FORM), path)
        state = torch.load(path, weights_only=True, mmap=True)
        theirs = published(state)
        n_parameters = sum(w.numel() for w in state.values())
        print(f"{n_parameters / 1e6:.0f} M parameters, {arguments.threads} threads\n")
        print("| | processor, s | clock, s | times as fast |\n|---|---|---|---|")
        base = least(lambda: theirs.unet(x, t), arguments.repeats)
        print(f"| published, float32 | {base[0]:.2f} | {base[1]:.2f} | 1 |", flush=True)
        for precision in ("fp32", "bf16"):
            net = load_prior(path, precision=precision).denoiser.net
            ours = partial(evaluate, net, x, t, stride=STRIDE, precision=precision)
            p, c = least(ours, arguments.repeats)
            print(f"| sfumato, {precision} | {p:.2f} | {c:.2f} | {base[0] / p:.2f} |", flush=True)


if __name__ == "__main__":
    main()
