"""A run folder that is made up, for tests."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch.nn.functional import interpolate

from sfumato.evaluation.record import Record, append_record
from sfumato.io import Picture, write_picture

METHODS = {"bicubic": None, "ddnm-10": 10, "ddnm-20": 20}
TASKS = ("sr-x4", "denoise")
PICTURES = ("a", "b", "c")


def write_run(folder: Path, *, size: tuple[int, int] = (48, 64), title: str = "Made up") -> Path:
    """Write pictures, records and run.json; ddnm-10 refuses picture b of sr-x4."""
    g = torch.Generator().manual_seed(0)
    for k, name in enumerate(PICTURES):
        x = photograph(size, g)
        write_picture(Picture(x), folder / f"references/{name}.png")
        for task in TASKS:
            y = x[:, ::4, ::4] if task == "sr-x4" else (x + 0.1).clamp(0, 1)
            write_picture(Picture(y), folder / f"inputs/{task}/{name}.png")
            for j, (method, evaluations) in enumerate(METHODS.items()):
                if (task, method, name) == ("sr-x4", "ddnm-10", "b"):
                    append_record(folder, Record(task, method, name, "k", refused="too <small>"))
                    continue
                path = f"results/{task}/{method}/{name}.png"
                write_picture(Picture((0.7 + 0.1 * j) * x), folder / path)
                values = {"PSNR": 20.0 + 2 * j + 0.5 * k, "LPIPS": 0.3 - 0.1 * j, "odd": math.nan}
                seconds = 0.1 if evaluations is None else 0.5 * evaluations
                record = Record(task, method, name, "k", values, seconds, evaluations, path)
                append_record(folder, record)
    (folder / "run.json").write_text(json.dumps(facts(title)), encoding="utf-8")
    return folder


def photograph(size: tuple[int, int], g: torch.Generator) -> torch.Tensor:
    """Return something as smooth as photographs are, with some grain."""
    coarse = torch.rand(1, 3, size[0] // 8, size[1] // 8, generator=g)
    smooth = interpolate(coarse, size=size, mode="bicubic")[0]
    return (smooth + 0.02 * torch.randn(3, *size, generator=g)).clamp(0, 1)


def facts(title: str = "Made up") -> dict:
    """Return what run.json holds."""
    return {
        "title": title,
        "version": "0.1.0",
        "notes": ["Nothing here was measured."],
        "tasks": [
            {"name": "sr-x4", "caption": "4x & more", "degradation": "average_pool:4"},
            {"name": "denoise"},
        ],
        "methods": [
            {"name": "bicubic", "caption": "bicubic <interpolation>"},
            {"name": "ddnm-10"},
            {"name": "ddnm-20"},
        ],
        "measures": [
            {"name": "PSNR", "unit": "dB", "protocol": "10 log10 of 1/MSE"},
            {"name": "LPIPS", "better": "lower", "digits": 3, "protocol": "AlexNet"},
            {"name": "FID", "better": "lower", "digits": 1, "protocol": "of the set"},
            {"name": "odd", "protocol": "never there"},
        ],
        "published": [
            {"task": "sr-x4", "method": "PULSE", "values": {"PSNR": 16.88}, "source": "arXiv 1"}
        ],
    }
