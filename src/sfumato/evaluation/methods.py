"""Every method, over tiles stitched in every way, for every task: one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.posed import pose
from sfumato.guidance import METHODS, parse_method
from sfumato.metrics import psnr
from sfumato.pipeline import Settings, restore
from sfumato.pipeline.settings import Objective, SamplerName, StitchChoice
from sfumato.zoo import Prior

#: What happens to the photographs, by the name of the task.
TASKS = {
    "super-resolution": "average_pool:4",
    "inpainting": "random_mask:0.5",
    "colourisation": "grayscale",
    "deblurring": "gaussian_blur:1.0",
    "noisy super-resolution": "average_pool:4 | noise:0.05",
}
STITCHES: tuple[StitchChoice, ...] = ("whole", "joint", "mask-shift", "independent")


@dataclass(frozen=True)
class Row:
    """How well a method did: means over the pictures.

    ``distance`` is that of a perceptual metric, if one was given; ``consistency`` the RMSE of
    ``A x − y`` of 255, ``seam`` the score of the borders (None: there is none). ``refused`` says
    why it was not done.
    """

    method: str
    stitch: str
    task: str
    psnr: float = 0.0
    distance: float | None = None
    consistency: float = 0.0
    seam: float | None = None
    seconds: float = 0.0
    refused: str = ""


@dataclass(frozen=True)
class Comparison:
    """What is compared: ``methods`` by their text form, and on which tiles.

    ``steps``, ``eta`` and ``sampler`` are the task's own where they are None.
    """

    methods: Sequence[str] = tuple(METHODS)
    stitches: Sequence[StitchChoice] = STITCHES
    tasks: Sequence[str] = tuple(TASKS)
    tile: int = 64
    overlap: int = 32
    steps: int | None = None
    sampler: SamplerName | None = None
    objective: Objective | None = "perception"
    seed: int = 0

    def __post_init__(self) -> None:
        for text in self.methods:
            parse_method(text)
        for kind, asked, known in (
            ("stitch", self.stitches, STITCHES),
            ("task", self.tasks, tuple(TASKS)),
        ):
            for name in asked:
                if name not in known:
                    raise SettingsError(f"{kind} {name}", expected=f"one of {', '.join(known)}")


#: A perceptual distance of two pictures.
Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def compare_methods(
    pictures: Sequence[Tensor],
    prior: Prior,
    comparison: Comparison,
    *,
    distance: Distance | None = None,
) -> Iterator[Row]:
    """Degrade and restore ``pictures``, each (3, height, width) in [0, 1]; yield a row at a time.

    Measurements are rounded to 8 bits. Combinations that make no sense are rows too.
    """
    for task in comparison.tasks:
        for stitch in comparison.stitches:
            for method in comparison.methods:
                yield _row(pictures, prior, comparison, task, stitch, method, distance)


def _row(
    pictures: Sequence[Tensor],
    prior: Prior,
    c: Comparison,
    task: str,
    stitch: StitchChoice,
    method: str,
    distance: Distance | None,
) -> Row:
    words, n = TASKS[task], len(pictures)
    total = torch.zeros(4, dtype=torch.float64)
    seams: list[float] = []
    for k, x in enumerate(pictures):
        y = pose(words, f"{k}", x, k).y
        began = time.perf_counter()
        try:
            settings = Settings(
                method=method,
                stitch=stitch,
                tile=c.tile,
                overlap=c.overlap,
                steps=c.steps,
                sampler=c.sampler,
                objective=c.objective,
                seed=c.seed,
            )
            result = restore(y, words, prior=prior, settings=settings)
        except SettingsError as error:
            return Row(method, stitch, task, refused=str(error))
        u, report = result.image, result.report
        far = float(distance(u, x)) if distance else 0.0
        numbers = (float(psnr(u, x)), far, report.consistency_rmse_255)
        total += torch.tensor([*numbers, time.perf_counter() - began], dtype=torch.float64)
        if report.seam_score is not None:
            seams.append(report.seam_score)
    db, far, consistency, seconds = (total / n).tolist()
    return Row(
        method,
        stitch,
        task,
        psnr=db,
        distance=far if distance else None,
        consistency=consistency,
        seam=sum(seams) / len(seams) if seams else None,
        seconds=seconds,
    )


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the table of one task, a row for each method and a cell for each stitch.

    A cell is  PSNR in dB / perceptual distance;  the last columns are the consistency and the
    time of the first stitch.
    """
    stitches = list(dict.fromkeys(row.stitch for row in rows))
    head = ["method", *stitches, "RMSE of A x", "seconds"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for method in dict.fromkeys(row.method for row in rows):
        own = {row.stitch: row for row in rows if row.method == method}
        first = own[stitches[0]]
        worst = max(row.consistency for row in own.values())
        cells = [_cell(own[stitch]) for stitch in stitches]
        last = ["", ""] if first.refused else [f"{worst:.2f}", f"{first.seconds:.1f}"]
        lines.append(f"| {' | '.join([method, *cells, *last])} |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    if row.refused:
        return "-"
    return f"{row.psnr:.2f}" + ("" if row.distance is None else f" / {row.distance:.3f}")
