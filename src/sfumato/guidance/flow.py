"""Denoising by the probability flow: down from the noisy picture itself, with no noise drawn."""

from __future__ import annotations

from typing import final

from torch import Tensor
from typing_extensions import override

from sfumato.diffusion.guidance import Guidance, Step
from sfumato.guidance.clipping import completion
from sfumato.guidance.measurement import Measurement


@final
class Flow(Guidance):
    """Leave a deterministic walk alone that began at the measurement:  ``x_T = y``, ``σ_T = σ_y``.

    For ``y = x + n`` the measurement is itself an image with noise as the network knows it, and
    ends where the probability flow (arXiv 2011.13456, section 4.3) takes it. But clipped values
    had another noise than they show: a first step, from ``σ_y`` to ``σ_y``, changes nothing but
    these, and puts their expectation  ``E[y | x̂_0]``  in their place.
    """

    def __init__(self, measurement: Measurement) -> None:
        self.m = measurement

    @override
    def mix(self, noise: Tensor, z: Tensor, step: Step) -> Tensor:
        m = self.m
        if not m.clips or step.sigma_next < step.sigma:
            return noise
        x_0 = m.y - step.sigma * noise
        completed = completion(m.y, x_0, m.sigma_y, copies=m.copies)
        return noise + (completed - m.y) / step.sigma
