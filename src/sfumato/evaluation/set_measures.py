"""Measures of sets of pictures: FID, KID, the Inception score, and what bears names of its own."""

from __future__ import annotations

from collections.abc import Sequence

from sfumato.errors import SettingsError
from sfumato.evaluation.extractors import Extractor
from sfumato.evaluation.measure import Picture, SetMeasure
from sfumato.evaluation.statistics import Statistics
from sfumato.metrics import (
    frechet_distance,
    inception_score,
    kernel_distance,
    moments,
    within_span,
)
from sfumato.metrics.frechet import check_vectors

#: Parts of a set that an Inception score is the mean over.
SPLITS = 10


def frechet(extractor: Extractor, statistics: Statistics | None = None) -> SetMeasure:
    """Return the Fréchet distance by an extractor's features; with Inception's it is the FID.

    With ``statistics`` the references are those, whatever pictures there are. Sets of few pictures
    are measured too, and the protocol says what such numbers are worth.

    Raises SettingsError for fewer than two pictures, and for statistics of another network.
    """
    name = "FID" if extractor.name == "Inception" else f"{extractor.name}-Fréchet"

    def of(results: Sequence[Picture], references: Sequence[Picture]) -> float:
        ours = extractor.vectors(results)
        if statistics is None:
            theirs = extractor.vectors(references)
            check_vectors(ours, theirs, least=2, why="or there is no covariance")
            a, b = within_span(ours, theirs)
            return frechet_distance(*moments(a), *moments(b))
        statistics.check(extractor.digest, extractor.protocol, ours.shape[1])
        return frechet_distance(*moments(ours), statistics.mean, statistics.covariance)

    given = "" if statistics is None else f"; references: {_told(statistics)}"
    return SetMeasure(
        name=name,
        of=of,
        protocol=f"Fréchet distance of two Gaussians (covariances by n − 1) by "
        f"{extractor.protocol}; it is biased upward, and the more so the fewer pictures: compare "
        f"sets of one size only{given}",
        digits=2 if name == "FID" else 4,
        compares=statistics is None,
    )


def _told(statistics: Statistics) -> str:
    n = f"{statistics.n} pictures" if statistics.n else "pictures whose number is not told"
    return f"statistics of {n}" + (
        f" (list {statistics.pictures[:12]})" if statistics.pictures else ""
    )


def kernel(extractor: Extractor) -> SetMeasure:
    """Return the kernel distance by an extractor's features; with Inception's it is the KID.

    The kernel has a scale, that of Inception's features: others are divided by the root mean
    square of the references'.

    Raises SettingsError for fewer than two pictures.
    """
    name = "KID" if extractor.name == "Inception" else f"{extractor.name}-kernel"
    scaled = "" if name == "KID" else ", divided by the root mean square of the references'"

    def of(results: Sequence[Picture], references: Sequence[Picture]) -> float:
        ours, theirs = extractor.vectors(results), extractor.vectors(references)
        scale = 1.0 if name == "KID" else float(theirs.double().square().mean().sqrt())
        return kernel_distance(ours / scale, theirs / scale)

    return SetMeasure(
        name=name,
        of=of,
        protocol=f"unbiased MMD² with the kernel (x·y/d + 1)³ over all pairs, not over random "
        f"subsets, by {extractor.protocol}{scaled}; not multiplied by 1000",
        digits=5,
    )


def score(extractor: Extractor, *, splits: int = SPLITS) -> SetMeasure:
    """Return the Inception score, of results alone.

    Of fewer than ``20 splits`` pictures it is taken in one part.

    Raises SettingsError for a network that is no classifier, and for fewer than two pictures.
    """
    if extractor.logits is None:
        raise SettingsError(
            f"an Inception score by {extractor.name}", expected="the weights of Inception"
        )
    logits = extractor.logits

    def of(results: Sequence[Picture], references: Sequence[Picture]) -> float:
        features = extractor.vectors(results)
        parts = splits if len(features) >= 20 * splits else 1
        return inception_score(logits(features), splits=parts)[0]

    return SetMeasure(
        name="IS",
        of=of,
        protocol=f"exp(mean KL(p(y|x), p(y))) over the 1008 classes, logits without bias, mean "
        f"over {splits} parts in the order of names (one part below {20 * splits} pictures), by "
        f"{extractor.protocol}",
        better="higher",
        compares=False,
    )
