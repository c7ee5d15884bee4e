"""The embedded prior's card names the settings that tasks have by default, as they are."""

from importlib.resources import files

import pytest

from sfumato.pipeline import presets
from sfumato.pipeline.presets import PRESETS, Preset

CARD = (files("sfumato.zoo") / "weights" / "prior.md").read_text()

ROWS = [
    *[(task, objective, preset) for (task, objective), preset in PRESETS.items()],
    ("denoise", "perception, one sample", presets.DENOISE_FLOW),
    ("noise beside the rest", "distortion", presets.NOISY_DISTORTION),
    ("upscale with noise", "perception", presets.NOISY_UPSCALE),
]


def row(task: str, objective: str, p: Preset) -> str:
    eta = f"{p.eta:g}" if p.sampler == "ddim" else "-"
    start = "known" if p.known_start or task == "denoise" else "noise"
    levels = f"{p.sigma_max:g} to {p.sigma_min:g}"
    if task == "denoise":
        levels = "the picture's" if p.steps == 1 else f"the picture's to {p.sigma_min:g}"
    return f"| {task} | {objective} | {p.sampler} | {p.steps} | {levels} | {eta} | {start} |"


@pytest.mark.parametrize(("task", "objective", "preset"), ROWS, ids=lambda v: str(v)[:30])
def test_the_card_has_the_settings(task, objective, preset):
    assert row(task, objective, preset) in CARD.splitlines()
