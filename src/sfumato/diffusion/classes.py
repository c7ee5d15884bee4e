"""Class-conditional denoisers, and guidance without a classifier."""

from __future__ import annotations

from typing import final

import torch

from sfumato._typing import Images
from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.diffusion.published import PublishedDenoiser


@final
class ClassGuided:
    """``D(x, σ) = D_∅(x, σ) + w (D_c(x, σ) − D_∅(x, σ))``: the images of class ``c``.

    ``w`` = ``guidance`` above 1 makes them more typical and less various; at 1 one evaluation is
    enough, else there are two. Reference: classifier-free guidance, arXiv 2207.12598.
    """

    def __init__(
        self,
        denoiser: EDMDenoiser | PublishedDenoiser,
        label: int,
        guidance: float = 1.0,
    ) -> None:
        self.denoiser = denoiser
        self.label = label
        self.guidance = guidance
        #: Evaluations of the network for one estimate.
        self.evaluations = 1 if guidance == 1 else 2

    def __call__(self, x_t: Images, sigma: float) -> Images:
        """Estimate ``x_0``."""
        label = torch.full((len(x_t),), self.label, device=x_t.device)
        of_class: Images = self.denoiser(x_t, sigma, label)
        if self.guidance == 1:
            return of_class
        free: Images = self.denoiser(x_t, sigma)
        return free + self.guidance * (of_class - free)
