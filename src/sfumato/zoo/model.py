"""What a loaded model is to those who use it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sfumato.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sfumato._typing import Images
    from sfumato.diffusion import Denoiser
    from sfumato.diffusion.arithmetic import Precision
    from sfumato.diffusion.classifier import NoisyClassifier


@dataclass(frozen=True)
class Classifier:
    """A classifier, the names of its classes, and the SHA-256 of its file."""

    network: NoisyClassifier
    classes: tuple[str, ...]
    digest: str
    source: Path


@dataclass(frozen=True)
class Prior:
    """A denoiser, and what one must know to use it and to name it in a report.

    ``denoiser(x_t, sigma)`` estimates ``x_0`` from ``x_t = x_0 + sigma eps``, images in [-1, 1] of
    any size, ``sigma`` one number or (batch,), at most ``sigma_max``. ``tile`` is the recommended
    side of a tile in pixels, ``stride`` what sides are padded to multiples of inside. ``digest``
    is the SHA-256 of the file ``source``, and names the weights.

    A network of ``fixed_size`` sees images of ``tile`` x ``tile`` pixels only; smaller ones are
    mirrored up to it inside. ``kind`` and ``licence`` are words for those who choose a model;
    ``device`` is where it was loaded to.

    With ``collaborative`` the least error of denoising gains by filtering alike patches after the
    network, as it does for small ones (``sfumato.diffusion.collaborative``).

    An SR3 model has a ``super_resolution``, and its denoiser is ``Conditional``: it answers when
    it is ``given`` the small picture, interpolated.
    """

    name: str
    denoiser: Denoiser
    digest: str
    tile: int
    stride: int
    sigma_max: float
    precision: Precision
    n_parameters: int
    card: str
    source: Path
    super_resolution: SuperResolution | None = None
    classes: tuple[str, ...] = ()
    fixed_size: bool = False
    kind: str = ""
    licence: str = ""
    device: str = "cpu"
    collaborative: bool = False

    @property
    def sizes(self) -> str:
        """Say which images the network sees."""
        return f"{self.tile} x {self.tile}, larger by tiles" if self.fixed_size else "any"

    @property
    def needs_class(self) -> bool:
        """Whether the denoiser answers for a class only, and none was chosen."""
        return getattr(self.denoiser, "n_classes", None) is not None

    def of_class(
        self, name: str, guidance: float = 1.0, *, classifier: Classifier | None = None
    ) -> Prior:
        """Return the model of one class, by name or by index.

        ``guidance`` makes images more typical than 1 does. With a ``classifier`` it is the scale
        of its gradient, and the class is one of the classifier's, which any prior can be led to.

        Raises SettingsError where the class is not known, or the model cannot be guided so.
        """
        from sfumato.diffusion.classes import ClassGuided
        from sfumato.diffusion.classifier import ClassifierGuided
        from sfumato.diffusion.precondition import EDMDenoiser
        from sfumato.diffusion.published import PublishedDenoiser

        if classifier is not None and self.super_resolution is not None:
            raise SettingsError("a classifier for an SR3 model", expected="a prior")
        index, label = self._index(name, classifier)
        denoiser: Denoiser = self.denoiser
        weight = guidance if classifier is None else 1.0
        if self.classes:
            if self.needs_class and weight != 1:
                raise SettingsError(
                    f"guidance {guidance:g} of a model that always has a class",
                    expected="1, or a classifier",
                )
            if not isinstance(denoiser, EDMDenoiser | PublishedDenoiser):
                raise SettingsError(f"the class {name!r}", expected="a model that has none yet")
            denoiser = ClassGuided(denoiser, index, weight)
        said = f"{self.digest} class {index} guidance {guidance}"
        if classifier is not None:
            denoiser = ClassifierGuided(denoiser, classifier.network, index, guidance)
            said += f" classifier {classifier.digest}"
        # Another model to those who compare results by it.
        return replace(
            self,
            name=f"{self.name}, {label}",
            denoiser=denoiser,
            digest=hashlib.sha256(said.encode()).hexdigest(),
        )

    def _index(self, name: str, classifier: Classifier | None) -> tuple[int, str]:
        """Return the index and the name of a class."""
        classes = self.classes or (classifier.classes if classifier else ())
        if classifier and len(classes) != len(classifier.classes):
            raise SettingsError(
                f"a classifier of {len(classifier.classes)} classes for a model of {len(classes)}",
                expected="as many",
            )
        named = classifier.classes if classifier else classes
        found = [known.index(name) for known in (classes, named) if name in known]
        index = found[0] if found else int(name) if name.isdecimal() else -1
        if not 0 <= index < len(classes):
            known = ", ".join(classes[:20]) + ", ..." * (len(classes) > 20)
            raise SettingsError(
                f"the class {name!r}", expected=known or "none: the model knows no classes"
            )
        label = classes[index]
        return index, named[index] if label.isdecimal() else label


@dataclass(frozen=True)
class SuperResolution:
    """What an SR3 model is for, and how it is best used.

    It undoes ``kernel`` downsampling by ``scale``. ``regression`` answers in one evaluation, if
    the model was trained to, and ``samples`` says whether it makes samples. ``sigmas`` are the
    noise levels it is sampled with, by ``sampler`` and, for ddim, with the share ``eta`` of fresh
    noise. ``relative`` says that it looks at what the interpolated input lacks: a walk may begin
    there, from little noise. ``pooled`` says that it undoes means of pixels too, which it is shown
    as blocks.
    """

    scale: int
    kernel: str
    regression: Callable[[Images], Images] | None
    sigmas: tuple[float, ...]
    sampler: Literal["sr3", "ddim", "ddpm"]
    eta: float | None
    relative: bool
    samples: bool = True
    pooled: bool = False
