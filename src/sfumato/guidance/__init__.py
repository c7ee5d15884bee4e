"""Guidance: turns what is known about the image into a correction of the denoiser's estimate."""

from sfumato.guidance.constraints import Guide, Paste
from sfumato.guidance.ddnm import DDNM, project, rounds_spread
from sfumato.guidance.ddnm_plus import DDNMPlus
from sfumato.guidance.ddrm import DDRM
from sfumato.guidance.diffpir import DiffPIR
from sfumato.guidance.measurement import Measurement, to_model_units, to_unit_range
from sfumato.guidance.posterior import DPS, MMPS, PiGDM
from sfumato.guidance.proximal import Proximal, posterior_variance
from sfumato.guidance.replacement import Replacement
from sfumato.guidance.start import start_image

__all__ = [
    "DDNM",
    "DDRM",
    "DPS",
    "MMPS",
    "DDNMPlus",
    "DiffPIR",
    "Guide",
    "Measurement",
    "Paste",
    "PiGDM",
    "Proximal",
    "Replacement",
    "posterior_variance",
    "project",
    "rounds_spread",
    "start_image",
    "to_model_units",
    "to_unit_range",
]
