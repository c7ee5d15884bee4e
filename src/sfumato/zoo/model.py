"""What a loaded model is to those who use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sfumato._typing import Images
    from sfumato.diffusion import Denoiser


@dataclass(frozen=True)
class Prior:
    """A denoiser, and what one must know to use it and to name it in a report.

    ``denoiser(x_t, sigma)`` estimates ``x_0`` from ``x_t = x_0 + sigma eps``, images in [-1, 1] of
    any size, ``sigma`` one number or (batch,), at most ``sigma_max``. ``tile`` is the recommended
    side of a tile in pixels, ``stride`` what sides are padded to multiples of inside. ``digest``
    is the SHA-256 of the file ``source`` and names the weights.

    An SR3 model has a ``super_resolution``, and its denoiser is ``Conditional``: it answers when
    it is ``given`` the small picture, interpolated.
    """

    name: str
    denoiser: Denoiser
    digest: str
    tile: int
    stride: int
    sigma_max: float
    precision: Literal["fp32", "bf16"]
    n_parameters: int
    card: str
    source: Path
    super_resolution: SuperResolution | None = None


@dataclass(frozen=True)
class SuperResolution:
    """What an SR3 model is for, and how it is best used.

    It undoes ``kernel`` downsampling by ``scale``. ``regression`` answers in one evaluation, if
    the model was trained to. ``sigmas`` are the noise levels it is sampled with, by ``sampler``
    ("sr3", "ddim" or "ddpm") and, for ddim, with the share ``eta`` of fresh noise. ``relative``
    says that it looks at what the interpolated input lacks: a walk may begin there, from little
    noise.
    """

    scale: int
    kernel: str
    regression: Callable[[Images], Images] | None
    sigmas: tuple[float, ...]
    sampler: str
    eta: float | None
    relative: bool
