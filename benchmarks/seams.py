"""Can the tiles be seen? Seam scores of 4x super-resolution, for every way of stitching.

    python benchmarks/seams.py ../shared/data/holdout --most 3

The seam score is the mean jump across tile borders over that of the lines beside them; its band
holds 95 % of the scores of shifted grids on the same picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sfumato
from sfumato.io import find_pictures
from sfumato.metrics import psnr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=3, help="pictures to use, the largest first")
    parser.add_argument("--stitch", nargs="+", default=["mask-shift", "joint", "independent"])
    parser.add_argument("--objective", default="perception")
    arguments = parser.parse_args()
    prior = sfumato.load_prior()
    pictures = [(p, sfumato.read_picture(p).pixels) for p in find_pictures(arguments.folder)]
    pictures.sort(key=lambda item: -item[1][0].numel())
    degradation = sfumato.parse("average_pool:4")
    print("| picture | size | stitch | tiles | seam score | band | inside | PSNR, dB | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for path, picture in pictures[: arguments.most]:
        h, w = (n - n % 4 for n in picture.shape[1:])
        x = picture[:, :h, :w].contiguous()
        y = (degradation.operator(tuple(x.shape))(x[None])[0] * 255).round() / 255
        for stitch in arguments.stitch:
            settings = sfumato.Settings(stitch=stitch, objective=arguments.objective)
            result = sfumato.restore(y, degradation, prior=prior, settings=settings)
            r = result.report
            low, high = r.seam_band or (0.0, 0.0)
            inside = "yes" if low <= (r.seam_score or 1.0) <= high else "NO"
            print(
                f"| {path.stem[:24]} | {w} x {h} | {stitch} | {r.tiles} | {r.seam_score:.3f} "
                f"| {low:.3f} to {high:.3f} | {inside} | {float(psnr(result.image, x)):.2f} "
                f"| {r.seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
