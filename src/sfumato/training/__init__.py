"""Training from a folder of photographs: settings, recipes, and runs that resume exactly."""

from sfumato.training.data import Photographs, Skipped, load_photographs
from sfumato.training.events import (
    Event,
    Finished,
    Saved,
    Started,
    Stepped,
    Stopped,
    Validated,
)
from sfumato.training.loop import Schedule, stage_runs
from sfumato.training.prior import train_prior
from sfumato.training.settings import PriorSettings, load_recipe
from sfumato.training.sr3 import train_sr3
from sfumato.training.sr3_presets import sr3_preset, sr3_preset_names
from sfumato.training.sr3_settings import SR3Settings
from sfumato.training.validation import denoising_psnr, load_holdout

__all__ = [
    "Event",
    "Finished",
    "Photographs",
    "PriorSettings",
    "SR3Settings",
    "Saved",
    "Schedule",
    "Skipped",
    "Started",
    "Stepped",
    "Stopped",
    "Validated",
    "denoising_psnr",
    "load_holdout",
    "load_photographs",
    "load_recipe",
    "sr3_preset",
    "sr3_preset_names",
    "stage_runs",
    "train_prior",
    "train_sr3",
]
