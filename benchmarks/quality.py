"""Quality of the embedded models on folders of photographs, as one table.

    python benchmarks/quality.py ../shared/data/benchmark/Set5 ../shared/data/benchmark/Set14

Each folder gives a row for each task: mean RGB PSNR, SSIM, shift-tolerant LPIPS (AlexNet),
consistency (mean square error of ``A x`` on [0, 1], times 1e5), and the bias of colours (mean
absolute difference of a channel's mean, of 255). Tasks of the SR3 model begin with "sr3".
Measurements are rounded and clipped to 8 bits; sides are cropped to a multiple of the scale;
grey pictures are used as they are. ``--save`` appends the figures to benchmarks/figures.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import sfumato
from sfumato.io import find_pictures
from sfumato.metrics import ShiftTolerantLPIPS, psnr, ssim

FIGURES = Path(__file__).parent / "figures.json"


@dataclass(frozen=True)
class Case:
    """One task: what happens to the photograph, and how it is restored."""

    name: str
    degradation: str
    objective: str | None
    multiple: int = 1
    model: str = ""
    method: str | None = None


CASES = (
    Case("noise 25/255, distortion", f"identity | noise:{25 / 255}", "distortion"),
    Case("noise 25/255, perception", f"identity | noise:{25 / 255}", "perception"),
    Case("half of the pixels lost, perception", "random_mask:0.5", "perception"),
    Case("blur 2, noise 2.55/255, perception", "gaussian_blur:2 | noise:0.01", "perception"),
    Case("4x bicubic, noise 13/255, perception", "bicubic:4 | noise:0.05", "perception", 4),
    Case("4x box, bicubic interpolation", "average_pool:4", None, 4),
    Case("4x box, distortion", "average_pool:4", "distortion", 4),
    Case("4x box, perception", "average_pool:4", "perception", 4),
    Case("4x bicubic, bicubic interpolation", "bicubic:4", None, 4),
    Case("4x bicubic, distortion", "bicubic:4", "distortion", 4),
    Case("4x bicubic, perception", "bicubic:4", "perception", 4),
    Case("sr3: 4x bicubic, regression, distortion", "bicubic:4", "distortion", 4, "sr3"),
    Case("sr3: same, free, distortion", "bicubic:4", "distortion", 4, "sr3", "none"),
    Case("sr3: 4x bicubic, samples, perception", "bicubic:4", "perception", 4, "sr3"),
    Case("sr3: same, free, perception", "bicubic:4", "perception", 4, "sr3", "none"),
    Case("sr3: 2x bicubic, regression, distortion", "bicubic:2", "distortion", 2, "sr3"),
    Case("sr3: 2x bicubic, samples, perception", "bicubic:2", "perception", 2, "sr3"),
    Case("sr3: 2x box, regression, distortion", "average_pool:2", "distortion", 2, "sr3"),
    Case("sr3: 2x box, samples, perception", "average_pool:2", "perception", 2, "sr3"),
    Case("sr3: 4x box, regression, distortion", "average_pool:4", "distortion", 4, "sr3"),
    Case("sr3: 4x box, samples, perception", "average_pool:4", "perception", 4, "sr3"),
)


def eight_bits(u: Tensor) -> Tensor:
    return (u.clamp(0, 1) * 255).round() / 255


def measure(x: Tensor, case: Case, index: int) -> tuple[Tensor, Tensor]:
    """Return the cropped photograph and its 8-bit measurement."""
    h, w = (n - n % case.multiple for n in x.shape[1:])
    x = x[:, :h, :w].contiguous()
    degradation = sfumato.parse(case.degradation)
    y = degradation.operator(tuple(x.shape))(x[None])[0]
    if degradation.noise:
        g = torch.Generator().manual_seed(index)
        y = y + degradation.noise * torch.randn(y.shape, generator=g)
    return x, eight_bits(y)


@cache
def load(name: str) -> sfumato.Prior:
    return sfumato.load_prior(name)


def answer(y: Tensor, x: Tensor, case: Case, prior: sfumato.Prior) -> tuple[Tensor, int]:
    if case.objective is None:
        size = tuple(x.shape[1:])
        return eight_bits(F.interpolate(y[None], size=size, mode="bicubic")[0]), 0
    prior = load(case.model) if case.model else prior
    settings = sfumato.Settings(objective=case.objective, method=case.method)
    result = sfumato.restore(y, case.degradation, prior=prior, settings=settings)
    return result.image, result.report.evaluations_per_tile


def rows(
    folder: Path, prior: sfumato.Prior, lpips: Callable[[Tensor, Tensor], Tensor], only: str
) -> Iterator[dict[str, object]]:
    pictures = [sfumato.read_picture(p).pixels for p in find_pictures(folder)]
    for case in CASES:
        if not any(word in case.name for word in only.split("|")):
            continue
        started, scores, distances, evaluations = time.perf_counter(), [], [], 0
        likeness, faithful, bias = [], [], []
        for index, picture in enumerate(pictures):
            x, y = measure(picture, case, index)
            u, evaluations = answer(y, x, case, prior)
            scores.append(float(psnr(u, x)))
            distances.append(float(lpips(u.expand(3, -1, -1), x.expand(3, -1, -1))))
            likeness.append(float(ssim(u, x)))
            A = sfumato.parse(case.degradation).operator(tuple(x.shape))
            faithful.append(float((A(u[None])[0] - y).square().mean()) * 1e5)
            bias.append(float((u - x).mean((1, 2)).abs().mean()) * 255)
        yield {
            "set": folder.name,
            "task": case.name,
            "psnr": round(sum(scores) / len(scores), 2),
            "lpips": round(sum(distances) / len(distances), 3),
            "ssim": round(sum(likeness) / len(likeness), 3),
            "consistency": round(sum(faithful) / len(faithful), 2),
            "colour_bias": round(sum(bias) / len(bias), 2),
            "evaluations": evaluations,
            "seconds": round(time.perf_counter() - started),
        }


def kept(history: list[dict], models: dict[str, str], table: list[dict]) -> list[dict]:
    """Return the last rows of what was not measured again, where their model is the same."""
    if not history:
        return []
    last, new = history[-1], {(row["set"], row["task"]) for row in table}
    used = {case.name: case.model or "model" for case in CASES}

    def same(row: dict) -> bool:
        name = used.get(row["task"], "")
        return name in models and last.get(name) == models[name]

    rows = last["figures"]
    return [row for row in rows if (row["set"], row["task"]) not in new and same(row)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("-n", "--model", default="embedded")
    parser.add_argument("--only", default="", help="run the tasks whose name holds this, or a|b")
    parser.add_argument("--save", action="store_true", help=f"append to {FIGURES}")
    arguments = parser.parse_args()
    prior = sfumato.load_prior(arguments.model)
    lpips = ShiftTolerantLPIPS()
    print("| set | task | PSNR, dB | SSIM | LPIPS | consistency | colour bias | evaluations |")
    print("|---|---|---|---|---|---|---|---|")
    table = []
    for folder in arguments.folders:
        for row in rows(folder, prior, lpips, arguments.only):
            table.append(row)
            print(
                "| {set} | {task} | {psnr} | {ssim} | {lpips} | {consistency} | {colour_bias} "
                "| {evaluations} |".format(**row),
                flush=True,
            )
    if arguments.save:
        history = json.loads(FIGURES.read_text()) if FIGURES.exists() else []
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        models = {"model": prior.digest}
        models["sr3"] = load("sr3").digest
        history.append({"date": today, **models, "figures": kept(history, models, table) + table})
        FIGURES.write_text(json.dumps(history, indent=1) + "\n")


if __name__ == "__main__":
    main()
