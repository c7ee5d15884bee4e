"""The class of a picture, by the vote of a classifier on what its measurement shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from sfumato._typing import Images
from sfumato.diffusion.classifier import places
from sfumato.errors import SettingsError
from sfumato.guidance import start_image
from sfumato.io.windows import open_windows
from sfumato.operators import Degradation, Window
from sfumato.pipeline.places import check_limit, read_source
from sfumato.pipeline.problem import Problem, Source, make_problem
from sfumato.pipeline.source import FileSource, streams
from sfumato.zoo import Classifier, Prior

#: Crops along an axis: of larger pictures as many, spread evenly, take part in the vote.
_MOST = 16


@final
@dataclass(frozen=True)
class Elected:
    """A prior, led by a classifier to the class that it sees in each picture.

    ``guidance`` is the scale of its gradient; ``device`` is where both are.
    """

    prior: Prior
    classifier: Classifier
    guidance: float = 1.0
    device: str = "cpu"
    _known: dict[Path, Prior] = field(default_factory=dict, compare=False)

    def stand_in(self) -> Prior:
        """Return the prior led to some class, to plan with: all take as long."""
        return self.prior.of_class("0", self.guidance, classifier=self.classifier)

    def of(
        self, path: Path, degradation: Degradation, *, limit_pixels: int | None = None
    ) -> Prior:
        """Return the prior for a picture; the one at hand is looked at once.

        Raises SettingsError where nothing was measured, and ImageError.
        """
        if path not in self._known:
            check_limit(path, limit_pixels)
            if streams(path, degradation, "auto"):
                source: Source = FileSource(open_windows(path), degradation, self.device)
            else:
                read = read_source(path, limit_pixels=limit_pixels)
                y = read.y.to(self.device)
                source = make_problem(y, degradation, bits=read.picture.bits)
            label = str(elect(source, self.classifier))
            self._known.clear()  # of all but the picture at hand
            self._known[path] = self.prior.of_class(
                label, self.guidance, classifier=self.classifier
            )
        return self._known[path]


def elect(source: Source, classifier: Classifier) -> int:
    """Return ``argmax_c`` of the mean of ``log p(c | crop)`` over crops of the whole image.

    The image is the one that a restoration would begin with: ``A⁺ y``, smoothed by the width of
    a measured pixel. Crops have the classifier's side and cover it, up to 16 along an axis.

    Raises SettingsError where nothing was measured.
    """
    if source.task == "generate":
        raise SettingsError("a class by vote for an image from nothing", do="give --class NAME")
    network = classifier.network
    return int(network.vote(_crops(source, network.side)).argmax())


def _crops(source: Source, side: int) -> Iterator[Images]:
    channels, height, width = source.A.in_shape
    whole = start_image(source.measurement) if isinstance(source, Problem) else None
    for top in places(height, side, _MOST):
        for left in places(width, side, _MOST):
            crop = Window(top, left, min(side, height - top), min(side, width - left))
            x = _seen(source, crop) if whole is None else crop.of(whole)
            yield x if channels == 3 else x.expand(-1, 3, -1, -1)


def _seen(source: Source, crop: Window) -> Images:
    """Return what is seen of a crop, by way of the cells that it touches."""
    _, height, width = source.A.in_shape
    cell = source.A.locality.stride
    top, left = crop.top // cell * cell, crop.left // cell * cell
    bottom = min(height, -(-(crop.top + crop.height) // cell) * cell)
    right = min(width, -(-(crop.left + crop.width) // cell) * cell)
    x = start_image(source.alone(Window(top, left, bottom - top, right - left)).measurement)
    return Window(crop.top - top, crop.left - left, crop.height, crop.width).of(x)
