"""What does overlap buy? Error, seams and cost of 4x super-resolution for overlaps of 1/8 to 1/2.

    python benchmarks/overlap.py ../shared/data/holdout --most 2

The cost is that of the network: pixels of all tiles over pixels of the picture. Seam scores are
given with the band that holds 95 % of the scores of shifted grids on the same picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sfumato
from sfumato.io import find_pictures
from sfumato.metrics import psnr, ssim
from sfumato.tiling import TilePlan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=2, help="pictures to use, the largest first")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--eighths", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--stitch", nargs="+", default=["mask-shift", "joint"])
    parser.add_argument("--objective", default="perception")
    arguments = parser.parse_args()
    prior = sfumato.load_prior()
    pictures = [(p, sfumato.read_picture(p).pixels) for p in find_pictures(arguments.folder)]
    pictures.sort(key=lambda item: -item[1][0].numel())
    degradation = sfumato.parse("average_pool:4")
    print("| picture | stitch | overlap | tiles | cost | PSNR, dB | SSIM | seam score | band |")
    print("|---|---|---|---|---|---|---|---|---|")
    for path, picture in pictures[: arguments.most]:
        h, w = (n - n % 4 for n in picture.shape[1:])
        x = picture[:, :h, :w].contiguous()
        y = (degradation.operator(tuple(x.shape))(x[None])[0] * 255).round() / 255
        for eighths in arguments.eighths:
            overlap = arguments.tile * eighths // 8
            tiles = TilePlan(h, w, arguments.tile, overlap, 4).windows
            cost = sum(t.height * t.width for t in tiles) / (h * w)
            for stitch in arguments.stitch:
                settings = sfumato.Settings(
                    stitch=stitch,
                    objective=arguments.objective,
                    tile=arguments.tile,
                    overlap=overlap,
                )
                result = sfumato.restore(y, degradation, prior=prior, settings=settings)
                r = result.report
                low, high = r.seam_band or (0.0, 0.0)
                print(
                    f"| {path.stem[:24]} | {stitch} | {eighths}/8 | {r.tiles} | {cost:.2f} "
                    f"| {float(psnr(result.image, x)):.2f} | {float(ssim(result.image, x)):.4f} "
                    f"| {r.seam_score:.3f} | {low:.3f} to {high:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
