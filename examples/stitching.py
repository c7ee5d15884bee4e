"""How tiles become one image, and what coarser levels see: the pictures of docs/any-size.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from demo import PHOTOS, label

STITCHES = ("independent", "mask-shift", "joint", "whole")
#: Of the photograph, each as (top, left, height, width): what is shown twice as large, and a hole.
DETAIL, HOLE = (140, 214, 150, 234), (135, 15, 150, 200)


def in_two_rows(pictures, path):
    """Save four pictures of one size, two beside two."""
    from PIL import Image

    width, height = pictures[0].size
    sheet = Image.new("RGB", (2 * width + 8, 2 * height + 8), "white")
    for i, p in enumerate(pictures):
        sheet.paste(p, (i % 2 * (width + 8), i // 2 * (height + 8)))
    sheet.save(path, quality=90)


def four_ways(photo, prior, out):
    """Restore 4x super-resolution in tiles of 96 pixels, stitched in each way."""
    import sfumato

    degradation = sfumato.parse("average_pool:4")
    photo = photo[:, :296, :448].contiguous()
    y = degradation.operator(tuple(photo.shape))(photo[None])[0]
    pictures = []
    top, left, height, width = DETAIL
    for stitch in STITCHES:
        settings = sfumato.Settings(
            stitch=stitch, tile=96, overlap=24, objective="perception", seed=1
        )
        r = sfumato.restore((y * 255).round() / 255, degradation, prior=prior, settings=settings)
        score = r.report.seam_score
        caption = stitch if score is None else f"{stitch}: seam score {score:.2f}"
        detail = r.image[:, top : top + height, left : left + width]
        larger = detail.repeat_interleave(2, 1).repeat_interleave(2, 2)
        pictures.append(label(larger, caption))
    in_two_rows(pictures, out / "stitching.jpg")


def levels(photo, prior, out):
    """Fill a large hole in tiles of 128 pixels, with 1, 2 and 3 levels."""
    import torch

    import sfumato

    top, left, height, width = HOLE
    mask = torch.zeros(1, *photo.shape[1:])
    mask[:, top : top + height, left : left + width] = 1.0
    path = out / "hole.png"
    sfumato.write_picture(sfumato.Picture(mask), path)
    degradation = sfumato.parse(f"mask:{path}")
    pictures = [label(photo * (1 - mask), "the measurement")]
    for n in (1, 2, 3):
        settings = sfumato.Settings(levels=n, tile=128, overlap=32, stitch="mask-shift", seed=2)
        r = sfumato.restore(photo * (1 - mask), degradation, prior=prior, settings=settings)
        pictures.append(label(r.image, f"{n} level{'s' * (n > 1)}"))
    path.unlink()
    in_two_rows(pictures, out / "levels.jpg")


def main():
    """Make both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/images"))
    arguments = parser.parse_args()

    import sfumato

    arguments.out.mkdir(parents=True, exist_ok=True)
    photo = sfumato.read_picture(PHOTOS / "chelsea.png").pixels
    prior = sfumato.load_prior()
    four_ways(photo, prior, arguments.out)
    levels(photo, prior, arguments.out)


if __name__ == "__main__":
    main()
