"""ILVR and RePaint: what is measured is replaced, at the noise of every step."""

from __future__ import annotations

from typing import final

from torch import Tensor
from typing_extensions import override

from sfumato._typing import Images
from sfumato.diffusion.guidance import Guidance, Step
from sfumato.guidance.ddnm import project
from sfumato.guidance.measurement import Measurement


@final
class Replacement(Guidance):
    """``x_s ← (I − P) x_s + A⁺ y + σ_s P z``  with  ``P = A⁺ A``  and fresh noise ``z``.

    For a mask that is RePaint (arXiv 2201.09865, eq. 8), which goes with time travel; for
    downsampling, where ``P`` is a low-pass filter, ILVR (arXiv 2108.02938, eq. 8). Beside DDNM,
    which corrects the estimate alike, no noise that the network saw stays in what is measured.

    The reference lets go below the noise level ``until``, as ILVR's does after some steps: what
    follows is free of the measurement. Noise of the measurement is kept as if it were image.
    """

    needs_noise = True
    shapes_noise = True

    def __init__(self, measurement: Measurement, *, until: float = 0.0) -> None:
        self.m = measurement
        self.until = until

    @override
    def correct(self, x_0: Images, step: Step) -> Images:
        if step.sigma < self.until:
            return x_0
        m = self.m
        return project(x_0, m.y, m.A, AF=m.AF)

    @override
    def mix(self, noise: Tensor, z: Tensor, step: Step) -> Tensor:
        if step.sigma < self.until:
            return noise
        m = self.m
        return noise + m.AF.pinv(m.A(z - noise))
