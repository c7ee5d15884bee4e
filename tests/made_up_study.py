"""Studies and subjects that are made up, for tests."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch

from sfumato.io import Picture, write_picture

METHODS = ("ddnm", "bicubic")


def write_pictures(folder: Path, n: int = 6, *, size: tuple[int, int] = (48, 40)) -> None:
    """Write photographs, inputs of a fourth of their size, and results of two methods."""
    g = torch.Generator().manual_seed(0)
    for k in range(n):
        x = torch.rand(3, *size, generator=g)
        name = f"img_{k:03d}.png"
        write_picture(Picture(x), folder / "references" / name)
        write_picture(Picture(x[:, ::4, ::4]), folder / "inputs" / name)
        for j, method in enumerate(METHODS):
            u = (0.9 - 0.1 * j) * x
            write_picture(Picture(u), folder / "results" / method / name)


def answers_of(subject: str, rates: dict[str, float], *, pairs: int = 20, seed: int = 0) -> dict:
    """Return the file of a subject who is fooled by each method with a known probability."""
    draw = random.Random(f"{subject} {seed}")
    trials = []
    for k in range(pairs):
        method = list(rates)[k % len(rates)]
        generated = draw.choice(["left", "right"])
        other = "right" if generated == "left" else "left"
        choice = generated if draw.random() < rates[method] else other
        trials.append(trial(k + 1, f"img_{k % 10:03d}", method, generated, choice))
    trials += [
        trial(pairs + k + 1, f"img_{k:03d}", None, "left", "right", kind="check") for k in range(5)
    ]
    return {
        "format": "sfumato-study-1",
        "study": "0123456789ab",
        "title": "t",
        "subject": subject,
        "language": "en",
        "started": f"2026-01-01T00:{seed:02d}:00.000Z",
        "finished": "2026-01-01T01:00:00.000Z",
        "planned": pairs + 5,
        "screen": {"width": 1400, "height": 1000, "ratio": 1},
        "user_agent": "none",
        "trials": trials,
    }


def trial(number, picture, method, generated, choice, *, kind="pair", task=2):
    """Return a trial as the page saves it."""
    return {
        "number": number, "task": task, "kind": kind, "picture": picture, "method": method,
        "generated": generated, "choice": choice, "shown_ms": 3000.1, "response_ms": 700,
        "interrupted": False,
    }  # fmt: skip


def write_answers(folder: Path, facts: dict, name: str = "") -> Path:
    """Write a subject's file."""
    path = folder / (name or f"{facts['subject']}.json")
    path.write_text(json.dumps(facts), encoding="utf-8")
    return path
