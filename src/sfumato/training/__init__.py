"""Training on photographs: settings, recipes, and runs that resume exactly."""

from sfumato.training._draws import Draws
from sfumato.training.data import Photographs
from sfumato.training.events import (
    Event,
    Finished,
    LeftOut,
    Saved,
    Started,
    Stepped,
    Stopped,
    Validated,
)
from sfumato.training.generator import GeneratorSettings, train_generator
from sfumato.training.log import Log
from sfumato.training.loop import Schedule, stage_runs
from sfumato.training.pictures import Skipped
from sfumato.training.prior import train_prior
from sfumato.training.processes import Alone, Processes, Together
from sfumato.training.settings import PriorSettings, load_recipe
from sfumato.training.source import Source, load_photographs, open_source
from sfumato.training.sr3 import train_sr3
from sfumato.training.sr3_presets import sr3_preset, sr3_preset_names
from sfumato.training.sr3_settings import SR3Settings
from sfumato.training.validation import denoising_psnr, load_holdout

__all__ = [
    "Alone",
    "Draws",
    "Event",
    "Finished",
    "GeneratorSettings",
    "LeftOut",
    "Log",
    "Photographs",
    "PriorSettings",
    "Processes",
    "SR3Settings",
    "Saved",
    "Schedule",
    "Skipped",
    "Source",
    "Started",
    "Stepped",
    "Stopped",
    "Together",
    "Validated",
    "denoising_psnr",
    "load_holdout",
    "load_photographs",
    "load_recipe",
    "open_source",
    "sr3_preset",
    "sr3_preset_names",
    "stage_runs",
    "train_generator",
    "train_prior",
    "train_sr3",
]
