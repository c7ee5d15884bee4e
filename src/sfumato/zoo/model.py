"""What a loaded model is to those who use it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from sfumato.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sfumato._typing import Images
    from sfumato.diffusion import Denoiser
    from sfumato.diffusion.classes import Labelled


@dataclass(frozen=True)
class Prior:
    """A denoiser, and what one must know to use it and to name it in a report.

    ``denoiser(x_t, sigma)`` estimates ``x_0`` from ``x_t = x_0 + sigma eps``, images in [-1, 1] of
    any size, ``sigma`` one number or (batch,), at most ``sigma_max``. ``tile`` is the recommended
    side of a tile in pixels, ``stride`` what sides are padded to multiples of inside. ``digest``
    is the SHA-256 of the file ``source`` and names the weights.

    A network of ``fixed_size`` sees images of ``tile`` x ``tile`` pixels only; smaller ones are
    mirrored up to it inside. ``kind`` and ``licence`` are words for those who choose a model.

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
    classes: tuple[str, ...] = ()
    fixed_size: bool = False
    kind: str = "sfumato"
    licence: str = ""

    @property
    def sizes(self) -> str:
        """Say which images the network sees."""
        return f"{self.tile} x {self.tile}, larger by tiles" if self.fixed_size else "any"

    def of_class(self, name: str, guidance: float = 1.0) -> Prior:
        """Return the model of one of its ``classes``, by name or by index.

        Raises SettingsError where it knows no such class.
        """
        from sfumato.diffusion.classes import ClassGuided

        index = self.classes.index(name) if name in self.classes else -1
        if index < 0 and name.isdecimal():
            index = int(name)
        if not 0 <= index < len(self.classes):
            known = ", ".join(self.classes[:20]) or "none: the model knows no classes"
            raise SettingsError(f"the class {name!r}", expected=known)
        # Another model to those who compare results by it.
        said = f"{self.digest} class {index} guidance {guidance}"
        # Only what takes labels has names of classes.
        denoiser = cast("Labelled", self.denoiser)
        return replace(
            self,
            name=f"{self.name}, {self.classes[index]}",
            denoiser=ClassGuided(denoiser, index, guidance),
            digest=hashlib.sha256(said.encode()).hexdigest(),
        )


@dataclass(frozen=True)
class SuperResolution:
    """What an SR3 model is for, and how it is best used.

    It undoes ``kernel`` downsampling by ``scale``. ``regression`` answers in one evaluation, if
    the model was trained to, and ``samples`` says whether it makes samples. ``sigmas`` are the
    noise levels it is sampled with, by ``sampler`` and, for ddim, with the share ``eta`` of fresh
    noise. ``relative`` says that it looks at what the interpolated input lacks: a walk may begin
    there, from little noise.
    """

    scale: int
    kernel: str
    regression: Callable[[Images], Images] | None
    sigmas: tuple[float, ...]
    sampler: Literal["sr3", "ddim", "ddpm"]
    eta: float | None
    relative: bool
    samples: bool = True
