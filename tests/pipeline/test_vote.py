"""The class of a picture: by all of it, from memory and from a file alike."""

import pytest
import torch
from torch import nn

from sfumato.diffusion.classifier import NoisyClassifier
from sfumato.diffusion.schedule import linear_alpha_bar
from sfumato.errors import SettingsError
from sfumato.io import Picture, open_windows, write_picture
from sfumato.operators import as_degradation
from sfumato.pipeline.problem import make_problem
from sfumato.pipeline.source import FileSource
from sfumato.pipeline.vote import elect
from sfumato.zoo import Classifier

SIDE = 16


class Brightness(nn.Module):
    """Dark, middling or bright, by the mean."""

    def forward(self, x, t):
        mean = x.mean((1, 2, 3))
        return torch.stack([-mean, 0.2 - mean.abs(), mean], dim=1) * 20


@pytest.fixture
def classifier(tmp_path):
    network = NoisyClassifier(Brightness(), linear_alpha_bar(), side=SIDE)
    return Classifier(network, ("dark", "middling", "bright"), "0", tmp_path)


def picture(*levels):
    """A picture of vertical bands."""
    return torch.cat([torch.full((3, 20, 12), v) for v in levels], dim=2)


@pytest.mark.parametrize(
    ("levels", "label"),
    [
        ((0.9, 0.9, 0.9, 0.1), 2),
        ((0.9, 0.1, 0.1, 0.1), 0),
        ((0.5, 0.5, 0.5, 0.5), 1),
    ],
)
@pytest.mark.parametrize("words", ["average_pool:2", "bicubic:2", "identity", "grayscale"])
def test_the_whole_picture_decides(tmp_path, classifier, levels, label, words):
    y = picture(*levels)
    y = y[:1] if words == "grayscale" else y
    degradation = as_degradation(words)
    assert elect(make_problem(y, degradation), classifier) == label
    path = tmp_path / "y.png"
    write_picture(Picture(y), path)
    assert elect(FileSource(open_windows(path), degradation), classifier) == label


def test_nothing_has_no_class(classifier):
    problem = make_problem(torch.zeros(3, 8, 8), as_degradation("nothing"))
    with pytest.raises(SettingsError, match="give --class NAME"):
        elect(problem, classifier)
