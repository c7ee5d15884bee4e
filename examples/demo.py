"""Restore a photograph three ways and lay the results beside their inputs, in demo/."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

PHOTOS = Path(__file__).parent / "photos"
STROKES = PHOTOS / "strokes.png"
TASKS = (
    ("superresolution", "4x super-resolution", "average_pool:4", "a quarter of the size"),
    ("inpainting", "scratch inpainting", f"mask:{PHOTOS / 'scratches.png'}", "scratched"),
    (
        "colourisation",
        "colour from strokes",
        f"grayscale_hints:{STROKES}",
        "grey, strokes painted",
    ),
)


def label(pixels, text):
    """Return an image (channels, height, width) as a Pillow picture with a caption above it."""
    from PIL import Image, ImageDraw, ImageFont

    rgb = (pixels.expand(3, -1, -1).permute(1, 2, 0) * 255).round().byte().numpy()
    picture = Image.new("RGB", (rgb.shape[1], rgb.shape[0] + 28), "white")
    picture.paste(Image.fromarray(rgb), (0, 28))
    font = ImageFont.load_default(16)
    ImageDraw.Draw(picture).text((6, 5), text, fill="black", font=font)
    return picture


def side_by_side(pictures, path):
    """Save pictures in a row."""
    from PIL import Image

    gap = 8
    width = sum(p.width for p in pictures) + gap * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(p.height for p in pictures)), "white")
    left = 0
    for p in pictures:
        row.paste(p, (left, 0))
        left += p.width + gap
    row.save(path)


def restore_with_bar(measurement, degradation, title):
    """Restore, drawing a progress bar; return the result."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    import sfumato
    from sfumato.pipeline import Advanced

    columns = (
        TextColumn(f"{title:22}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} evaluations"),
        TimeRemainingColumn(),
    )
    events = sfumato.stream(measurement, degradation)
    with Progress(*columns) as bar:
        task = bar.add_task(title, total=None)
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                return stop.value
            if isinstance(event, Advanced):
                bar.update(task, completed=event.done, total=event.total)


def measure(photo, degradation):
    """Return the measurement that a scanner would give, in 8 bits, and a picture of it."""
    import torch
    import torch.nn.functional as F

    import sfumato
    from sfumato.operators import read_strokes

    if degradation.strokes() is not None:
        grey = sfumato.parse("grayscale").operator(tuple(photo.shape))(photo[None])[0]
        painted, colours = read_strokes(STROKES)
        return grey, torch.where(painted > 0, colours, grey)
    y = degradation.operator(tuple(photo.shape))(photo[None])[0]
    return y, F.interpolate(y[None], size=tuple(photo.shape[1:]), mode="nearest")[0]


def main():
    """Run the three restorations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    arguments = parser.parse_args()

    import sfumato
    from sfumato.metrics import psnr

    started = time.perf_counter()
    photo = sfumato.read_picture(PHOTOS / "chelsea.png").pixels
    arguments.out.mkdir(exist_ok=True)
    for name, title, text, damage in TASKS:
        degradation = sfumato.parse(text)
        y, before = measure(photo, degradation)
        result = restore_with_bar((y * 255).round() / 255, degradation, title)
        report = result.report
        figures = (
            f"PSNR {float(psnr(result.image, photo)):.2f} dB, "
            f"consistency {report.consistency_rmse_255:.3f}/255, "
            f"{report.network_evaluations} evaluations in {report.seconds:.0f} s"
        )
        path = arguments.out / f"{name}.png"
        side_by_side(
            [
                label(before, f"input: {damage}"),
                label(result.image, f"sfumato: {title}"),
                label(photo, "the photograph"),
            ],
            path,
        )
        sys.stdout.write(f"  {figures}\n  {path.resolve()}\n")
    sys.stdout.write(f"Done in {time.perf_counter() - started:.0f} s.\n")


if __name__ == "__main__":
    main()
