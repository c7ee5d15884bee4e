"""Settings of each task, one knob after the other, on parts of held-out photographs.

    python benchmarks/presets.py ../shared/data/holdout

What is not named in a row is as the task's preset has it (`src/sfumato/pipeline/presets.py`); the
first row of a task is the preset itself. PSNR in dB and shift-tolerant LPIPS are means over the
parts; evaluations are those of the network, and a pass back counts as two. Rows that were measured
before, with this model, are taken from ``--out``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import sfumato
from sfumato.evaluation import load_crops
from sfumato.evaluation.posed import pose
from sfumato.metrics import ShiftTolerantLPIPS, psnr

TASKS = {
    "4x box": "average_pool:4",
    "4x bicubic": "bicubic:4",
    "2x box": "average_pool:2",
    "noisy 4x box": "average_pool:4 | noise:0.05",
    "noise 25/255": f"identity | noise:{25 / 255}",
    "half of the pixels": "random_mask:0.5",
    "colour": "grayscale",
    "blur, σ 1.6": "gaussian_blur:1.6",
    "a quarter of Walsh-Hadamard": "walsh_hadamard:0.25",
}
KNOBS: dict[str, list[dict[str, object]]] = {
    "perception": [
        *({"steps": n} for n in (8, 12, 24, 40)),
        *({"eta": eta} for eta in (0.3, 0.5, 0.75, 0.85, 1.0)),
        *({"start_noise": s} for s in (0.25, 0.5, 1.0)),
        *({"method": m} for m in ("mmps:iterations=1", "mmps", "pigdm", "diffpir", "ddrm")),
        {"method": "mmps:iterations=1", "steps": 8},
        {"method": "mmps", "steps": 8},
        {"method": "pigdm", "steps": 8},
        {"time_travel": (4, 2)},
    ],
    "distortion": [
        *({"steps": n} for n in (4, 10, 30, 50)),
        *({"start_noise": s} for s in (0.15, 0.25, 0.5)),
    ],
}


def rows(
    task: str, objective: str, crops: list[Tensor], prior: sfumato.Prior, done: dict[str, dict]
) -> Iterator[tuple[str, dict]]:
    """Yield a name and the figures of each setting."""
    lpips = ShiftTolerantLPIPS()
    for change in [{}, *KNOBS[objective]]:
        key = json.dumps([prior.digest, task, objective, change, len(crops), crops[0].shape[-1]])
        if key not in done:
            scores, far, began = [], [], time.process_time()
            try:
                for k, x in enumerate(crops):
                    y = pose(TASKS[task], f"{k}", x, k).y
                    settings = sfumato.Settings(objective=objective, **change)
                    result = sfumato.restore(y, TASKS[task], prior=prior, settings=settings)
                    scores.append(float(psnr(result.image, x)))
                    far.append(float(lpips(result.image, x)))
            except sfumato.SfumatoError as error:
                done[key] = {"refused": str(error)}
            else:
                done[key] = {
                    "psnr": sum(scores) / len(scores),
                    "lpips": sum(far) / len(far),
                    "evaluations": result.report.evaluations_per_tile,
                    "seconds": (time.process_time() - began) / len(crops),
                }
        yield key, {"name": ", ".join(f"{k} {v}" for k, v in change.items()), **done[key]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("-n", "--model", default="embedded")
    parser.add_argument("--crops", type=int, default=8)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--objectives", default="perception,distortion")
    parser.add_argument("--out", type=Path, default=Path("runs/presets.json"))
    a = parser.parse_args()
    prior = sfumato.load_prior(a.model)
    done = json.loads(a.out.read_text()) if a.out.exists() else {}
    found = load_crops(a.photographs, a.crops, side=a.side).x_0
    crops = [(x + 1) / 2 for x in torch.as_tensor(found)]
    for task in a.tasks.split(","):
        for objective in a.objectives.split(","):
            print(f"\n{task}, {objective}:\n\n| | PSNR | LPIPS | evaluations | seconds |")
            print("|---|---|---|---|---|")
            for _, row in rows(task, objective, crops, prior, done):
                a.out.parent.mkdir(parents=True, exist_ok=True)
                a.out.write_text(json.dumps(done))
                if "refused" in row:
                    continue
                print(
                    "| {name} | {psnr:.2f} | {lpips:.3f} | {evaluations} | {seconds:.1f} |".format(
                        **{**row, "name": row["name"] or "the preset"}
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
