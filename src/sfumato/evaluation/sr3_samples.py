"""Samples of an SR3 model for crops of photographs, made as a restoration makes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato._typing import CoarseImages, Images
from sfumato.diffusion import Conditional, Guidance, NoiseField, upsampled
from sfumato.errors import SettingsError
from sfumato.evaluation.candidates import Candidate
from sfumato.guidance import DDNM, Measurement
from sfumato.operators import Operator, parse
from sfumato.samplers import DDIM, SR3, sample, walk
from sfumato.zoo import Prior, SuperResolution


@dataclass(frozen=True, eq=False)
class Task:
    """What a model undoes, at the size of the crops."""

    model: SuperResolution
    denoiser: Conditional
    A: Operator

    @classmethod
    def of(cls, prior: Prior, side: int) -> Task:
        """Return the task of ``prior`` for crops of ``side`` pixels.

        Raises SettingsError for a model that is no SR3 model, and a side that does not divide.
        """
        model, denoiser = prior.super_resolution, prior.denoiser
        if model is None or not isinstance(denoiser, Conditional):
            raise SettingsError(f"the model {prior.name}", expected="an SR3 model")
        if side % model.scale:
            raise SettingsError(
                f"crops of {side} pixels", expected=f"a multiple of the scale, {model.scale}"
            )
        return cls(
            model, denoiser, parse(f"{model.kernel}:{model.scale}").operator((3, side, side))
        )


def measure(prior: Prior, x_0: Images) -> CoarseImages:
    """Return ``y = A x_0`` (n, 3, side/scale, side/scale), of 8 bits, for crops in [-1, 1]."""
    return _on_grid(Task.of(prior, x_0.shape[-1]).A(x_0))


def sample_crops(
    prior: Prior,
    y: CoarseImages,
    candidate: Candidate,
    *,
    first: int = 0,
    seed: int = 0,
    consistent: bool = False,
) -> Images:
    """Sample ``x_0`` given ``y`` (n, 3, height, width) in [-1, 1], one evaluation a step and crop.

    The walk begins at ``c + σ_T z`` for a model of what ``c``, the interpolated ``y``, lacks, and
    else at ``σ_T z``. The noise of crop ``k`` is a function of (seed, ``first + k``): that of
    sample ``first + k`` in a restoration with this seed. With ``consistent`` each estimate goes
    through DDNM's projection. The result is clipped, and of 8 bits.

    Raises SettingsError for a model that is no SR3 model.

    References: SR3, arXiv 2104.07636, algorithm 2; DDNM, arXiv 2212.00490, eq. 9.
    """
    side = y.shape[-1] * (prior.super_resolution.scale if prior.super_resolution else 1)
    task = Task.of(prior, side)
    sampler = SR3() if candidate.eta is None else DDIM(candidate.eta)
    c = upsampled(y, task.model.scale)

    def noise(draw: int) -> Tensor:
        fields = (NoiseField(seed, sample=first + k) for k in range(len(y)))
        shape = (3, side, side)
        return torch.stack(
            [f(draw=draw, top=0, left=0, shape=shape, device=y.device) for f in fields]
        )

    x_T = candidate.sigmas[0] * noise(0)
    guidances = [
        DDNM(Measurement(task.A, y[k : k + 1])) if consistent else Guidance()
        for k in range(len(y))
    ]
    x = x_T + c if task.model.relative else x_T
    moves = walk(sampler, [*candidate.sigmas, 0.0])
    with torch.no_grad():
        for _, after in sample(
            task.denoiser.given(c), sampler, guidances, moves, x_T=x, noise=noise
        ):
            x = after
    return _on_grid(x)


def _on_grid(x: Tensor) -> Tensor:
    """Clip, and round to 8 bits."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
