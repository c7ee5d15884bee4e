"""Presets of SR3: the paper's four, and smaller ones for one GPU and for a CPU."""

from __future__ import annotations

from collections.abc import Mapping

from sfumato.errors import SettingsError
from sfumato.nn import PRESETS as NETWORKS
from sfumato.zoo.sr3 import PaperForm

#: Low-resolution and high-resolution side of the paper's four tasks.
_SIDES = {"16-128": (16, 128), "64-256": (64, 256), "64-512": (64, 512), "256-1024": (256, 1024)}


def sr3_preset_names() -> tuple[str, ...]:
    """Return the names of the presets, the smallest first."""
    return ("cpu", "gpu-small", "public", *_SIDES)


def sr3_preset(name: str) -> dict[str, object]:
    """Return the settings of a preset that differ from the defaults.

    "cpu" is what the embedded model has (these are the defaults). "gpu-small" is the paper's way
    with a network of 44 million parameters, on crops. "public" has the network of the best-known
    public implementation in its 16 -> 128 form, to go on from its converted weights. The paper's
    four have its networks, batches of 256 images, Adam after 10,000 steps of warm-up at 1e-4, L1,
    and γ drawn anew for each image.

    Raises SettingsError for an unknown name.

    >>> sr3_preset("16-128")["scale"]
    8
    """
    if name == "cpu":
        return {}
    if name == "gpu-small":
        return _paper(4, 128, 32, name) | {"steps": 300_000, "warmup_steps": 5_000}
    if name == "public":
        return _paper(8, 128, 4, "16-128") | {"network": {"form": "public"}}
    if name in _SIDES:
        low, high = _SIDES[name]
        return _paper(high // low, high, 256, name)
    raise SettingsError(f"the preset {name!r}", expected="one of " + ", ".join(sr3_preset_names()))


def _paper(scale: int, side: int, batch: int, name: str) -> dict[str, object]:
    return {
        "scale": scale,
        "network": form_of(name),
        "prediction": "eps",
        "noise": "gamma",
        "loss": "l1",
        "crop_cycle": (side,),
        "batch_pixels": batch * side * side,
        "halvings": 0,
        "steps": 1_000_000,
        "learning_rate": 1e-4,
        "decay": "none",
        "warmup_steps": 10_000,
        "betas": (0.9, 0.999),
        "weight_decay": 0.0,
        "ema_rate": 0.0001,
    }


def form_of(name: str) -> Mapping[str, object]:
    """Return the form of a named network of ``sfumato.nn``, as settings have it."""
    config = NETWORKS[name]
    fields = (f for f in PaperForm.model_fields if f != "form")
    return {"form": "sr3"} | {f: getattr(config, f) for f in fields}
