"""Which measures are asked for, by words, and which of the user's networks they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

from sfumato.errors import SettingsError
from sfumato.evaluation import learned, set_measures
from sfumato.evaluation.extractors import Extractor, Resize, inception, pooled
from sfumato.evaluation.measure import Measure, SetMeasure
from sfumato.evaluation.measures import MEASURES, measures_of
from sfumato.evaluation.statistics import Statistics

#: What tables of super-resolution mean by these words.
_LUMA = {"psnr": "psnr-y", "ssim": "ssim-y"}


@final
@dataclass(frozen=True)
class Networks:
    """The user's files: weights of networks, and statistics of references.

    ``inception`` serves FID, KID and IS; ``lpips`` is a trunk and its heads; ``classifier`` a
    ResNet. None is read before a measure needs it.
    """

    inception: Path | None = None
    resize: Resize = "pytorch-fid"
    lpips: tuple[Path, Path] | None = None
    classifier: Path | None = None
    statistics: Path | None = None
    device: str = "cpu"

    @cached_property
    def extractor(self) -> Extractor:
        """Inception's features; raises SettingsError where there are no weights, ModelError."""
        if self.inception is None:
            raise SettingsError(
                "FID, KID or IS without a feature network",
                expected="--inception FILE, the published weights",
                do="or choose alexnet-kernel or alexnet-frechet, which need no download",
            )
        return inception(self.inception, resize=self.resize, device=self.device)

    @cached_property
    def alexnet(self) -> Extractor:
        """Pooled features of AlexNet."""
        return pooled("alex")

    @cached_property
    def vgg(self) -> Extractor:
        """Pooled features of VGG-16."""
        return pooled("vgg")

    @cached_property
    def known(self) -> Statistics | None:
        """The statistics of references, where they are given; raises ImageError."""
        return None if self.statistics is None else Statistics.load(self.statistics)

    @cached_property
    def _errors(self) -> tuple[Measure, Measure]:
        if self.classifier is None:
            raise SettingsError(
                "an error of classification without a classifier",
                expected="--classifier FILE, the weights of torchvision's ResNet-50",
            )
        return learned.classification(self.classifier, device=self.device)

    def lpips_measure(self) -> Measure:
        """Return LPIPS; raises SettingsError where there are no weights, ModelError."""
        if self.lpips is None:
            raise SettingsError(
                "LPIPS without its weights",
                expected="--lpips TRUNK and --lpips-heads HEADS",
                do="or choose stlpips, which needs no download",
            )
        return learned.lpips(*self.lpips)

    def of_set(self, word: str) -> Extractor:
        """Return the features that a measure of sets stands on."""
        own = {"alexnet": "alexnet", "vgg": "vgg"}.get(word.partition("-")[0], "extractor")
        extractor: Extractor = getattr(self, own)
        return extractor

    def top(self, k: int) -> Measure:
        """Return the top-1 or top-5 error; raises as `lpips_measure`."""
        return self._errors[0 if k == 1 else 1]


_LEARNED: dict[str, Callable[[Networks], Measure]] = {
    "lpips": Networks.lpips_measure,
    "top-1": lambda n: n.top(1),
    "top-5": lambda n: n.top(5),
}
_OF_SETS: dict[str, Callable[[Networks], SetMeasure]] = {
    "fid": lambda n: set_measures.frechet(n.extractor, n.known),
    "kid": lambda n: set_measures.kernel(n.extractor),
    "is": lambda n: set_measures.score(n.extractor),
    "alexnet-frechet": lambda n: set_measures.frechet(n.alexnet),
    "alexnet-kernel": lambda n: set_measures.kernel(n.alexnet),
    "vgg-frechet": lambda n: set_measures.frechet(n.vgg),
    "vgg-kernel": lambda n: set_measures.kernel(n.vgg),
}
#: All words of measures.
WORDS = (*MEASURES, *_LEARNED, *_OF_SETS)


@final
@dataclass(frozen=True)
class Chosen:
    """The measures of single results, and those of sets with the features that they stand on."""

    single: tuple[Measure, ...] = ()
    sets: tuple[SetMeasure, ...] = ()
    extractors: tuple[Extractor, ...] = ()

    @property
    def columns(self) -> tuple[Measure | SetMeasure, ...]:
        """All of them."""
        return (*self.single, *self.sets)


def choose(
    text: str, networks: Networks | None = None, *, border: int = 0, luma: bool = False
) -> Chosen:
    """Return the measures of words with commas or spaces between them.

    ``border`` pixels are cut off for PSNR and SSIM that name no other; with ``luma`` these two
    mean those of Y.

    Raises SettingsError for unknown words, and measures whose network is not given; ModelError for
    files that hold another one.

    >>> [m.name for m in choose("psnr, ssim, stlpips", luma=True).columns]
    ['PSNR-Y', 'SSIM-Y', 'ST-LPIPS']
    """
    networks = networks or Networks()
    words = [_word(w, luma=luma) for w in text.replace(",", " ").lower().split()]
    unknown = [w for w in words if w.partition(":")[0] not in WORDS]
    if unknown:
        raise SettingsError(f"the measure '{unknown[0]}'", expected=f"one of {', '.join(WORDS)}")
    plain = " ".join(w for w in words if w not in _LEARNED and w not in _OF_SETS)
    learned_ones = (_LEARNED[w](networks) for w in words if w in _LEARNED)
    return Chosen(
        (*measures_of(plain, border=border), *learned_ones),
        tuple(_OF_SETS[w](networks) for w in words if w in _OF_SETS),
        tuple(networks.of_set(w) for w in dict.fromkeys(words) if w in _OF_SETS),
    )


def _word(word: str, *, luma: bool) -> str:
    name, colon, rest = word.partition(":")
    return (_LUMA.get(name, name) if luma else name) + colon + rest
