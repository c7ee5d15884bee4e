"""Guidance: turns what is known about the image into a correction of the denoiser's estimate."""

from sfumato.guidance.constraints import Guide, Paste
from sfumato.guidance.ddnm import DDNM, project, rounds_spread
from sfumato.guidance.ddnm_plus import DDNMPlus
from sfumato.guidance.ddrm import DDRM
from sfumato.guidance.diffpir import DiffPIR
from sfumato.guidance.measurement import Measurement, to_model_units, to_unit_range
from sfumato.guidance.methods import METHODS, Chosen, Method, parse_method
from sfumato.guidance.posterior import DPS, MMPS, PiGDM
from sfumato.guidance.proximal import Proximal, posterior_variance
from sfumato.guidance.replacement import Replacement
from sfumato.guidance.start import start_image

__all__ = [
    "DDNM",
    "DDRM",
    "DPS",
    "METHODS",
    "MMPS",
    "Chosen",
    "DDNMPlus",
    "DiffPIR",
    "Guide",
    "Measurement",
    "Method",
    "Paste",
    "PiGDM",
    "Proximal",
    "Replacement",
    "parse_method",
    "posterior_variance",
    "project",
    "rounds_spread",
    "start_image",
    "to_model_units",
    "to_unit_range",
]
