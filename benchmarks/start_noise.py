"""What does it save to start where the prior begins to matter? 4x super-resolution from noise σ.

    python benchmarks/start_noise.py ../shared/data/benchmark/Set5

The walk starts on the smoothed pseudo-inverse with noise of standard deviation σ (of images in
[-1, 1]); above 20 that is pure noise. Mean RGB PSNR and shift-tolerant LPIPS (AlexNet).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sfumato
from sfumato.io import find_pictures
from sfumato.metrics import ShiftTolerantLPIPS, psnr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.5, 1.0, 2.0, 5.0, 40.0])
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--objective", default="perception")
    arguments = parser.parse_args()
    prior, lpips = sfumato.load_prior(), ShiftTolerantLPIPS()
    degradation = sfumato.parse("average_pool:4")
    pictures = []
    for path in find_pictures(arguments.folder):
        x = sfumato.read_picture(path).pixels.expand(3, -1, -1)
        h, w = (n - n % 4 for n in x.shape[1:])
        pictures.append(x[:, :h, :w].contiguous())
    print("| start σ | evaluations per tile | PSNR, dB | LPIPS |")
    print("|---|---|---|---|")
    for sigma in arguments.sigma:
        for steps in arguments.steps:
            settings = sfumato.Settings(
                objective=arguments.objective, steps=steps, start_noise=sigma / 2
            )
            errors, distances = [], []
            for x in pictures:
                y = (degradation.operator(tuple(x.shape))(x[None])[0] * 255).round() / 255
                u = sfumato.restore(y, degradation, prior=prior, settings=settings).image
                errors.append(float(psnr(u, x)))
                distances.append(float(lpips(u, x)))
            n = len(pictures)
            print(
                f"| {sigma:g} | {steps} | {sum(errors) / n:.2f} | {sum(distances) / n:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
