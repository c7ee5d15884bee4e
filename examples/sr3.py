"""SR3 beside interpolation, its regression and the photograph: the picture of docs/sr3.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from demo import PHOTOS, label
from stitching import in_two_rows

#: Of the photograph, as (top, left, height, width): what is shown twice as large.
DETAIL = (60, 110, 160, 220)


def main():
    """Make it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/images"))
    parser.add_argument("-n", "--model", default="sr3")
    arguments = parser.parse_args()

    import sfumato
    from sfumato.diffusion import upsampled

    photo = sfumato.read_picture(PHOTOS / "chelsea.png").pixels
    photo = photo[:, : photo.shape[1] // 4 * 4, : photo.shape[2] // 4 * 4].contiguous()
    degradation = sfumato.parse("bicubic:4")
    y = (degradation.operator(tuple(photo.shape))(photo[None])[0] * 255).round() / 255
    model = sfumato.load_prior(arguments.model)
    pictures = {"bicubic interpolation": (upsampled(2 * y[None] - 1, 4)[0] + 1) / 2}
    for name, objective in (("regression", "distortion"), ("SR3", "perception")):
        settings = sfumato.Settings(objective=objective, seed=1)
        result = sfumato.restore(y, degradation, prior=model, settings=settings)
        rmse = result.report.consistency_rmse_255
        pictures[f"{name}: agrees within {rmse:.2f}/255"] = result.image
    pictures["the photograph"] = photo
    top, left, height, width = DETAIL
    sheet = []
    for name, image in pictures.items():
        detail = image[:, top : top + height, left : left + width]
        sheet.append(label(detail.repeat_interleave(2, 1).repeat_interleave(2, 2), name))
    arguments.out.mkdir(parents=True, exist_ok=True)
    in_two_rows(sheet, arguments.out / "sr3.jpg")


if __name__ == "__main__":
    main()
