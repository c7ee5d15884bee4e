"""Samplers: the way from noise to an image."""

from sfumato.samplers.base import Past, Sampler
from sfumato.samplers.ddim import DDIM
from sfumato.samplers.ddpm import DDPM
from sfumato.samplers.dpm_solver import DPMSolverPP2M
from sfumato.samplers.loop import Jump, Position, advance, check_pair, go_on, sample, walk
from sfumato.samplers.rounds import Rounds
from sfumato.samplers.sr3 import SR3

__all__ = [
    "DDIM",
    "DDPM",
    "SR3",
    "DPMSolverPP2M",
    "Jump",
    "Past",
    "Position",
    "Rounds",
    "Sampler",
    "advance",
    "check_pair",
    "go_on",
    "sample",
    "walk",
]
