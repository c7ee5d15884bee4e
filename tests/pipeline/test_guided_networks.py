"""Guided denoisers in the pipeline: what they weigh; the classifier sees images upright."""

import torch
from torch import nn

from sfumato.diffusion.classifier import ClassifierGuided, NoisyClassifier
from sfumato.diffusion.schedule import linear_alpha_bar
from sfumato.operators import as_degradation
from sfumato.pipeline import make_settings
from sfumato.pipeline.problem import make_problem
from sfumato.pipeline.resolve import resolve
from sfumato.pipeline.restore import Run
from sfumato.pipeline.trial import networks_of
from sfumato.zoo import Classifier, load_prior

SIDE = 16


class Top(nn.Module):
    """Classes 0 and 1: the upper half is brighter, or darker, than the lower one."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x, t):
        rise = x[:, :, : SIDE // 2].mean((1, 2, 3)) - x[:, :, SIDE // 2 :].mean((1, 2, 3))
        return torch.stack([rise, -rise], dim=1)


def led(tmp_path):
    network = NoisyClassifier(Top(), linear_alpha_bar(), side=SIDE).requires_grad_(False)
    classifier = Classifier(network, ("0", "1"), "digest", tmp_path)
    return load_prior(precision="fp32").of_class("0", 1.0, classifier=classifier)


def test_both_networks_count(tmp_path):
    prior = led(tmp_path)
    assert len(networks_of(prior.denoiser)) == 2
    assert networks_of(load_prior().denoiser) != []
    assert networks_of(lambda x, sigma: x) == []


def test_where_images_are_turned_the_classifier_sees_them_upright(tmp_path):
    prior = led(tmp_path)
    settings = make_settings(objective="distortion", steps=8)
    problem = make_problem(torch.rand(3, SIDE, SIDE), as_degradation("average_pool:2"))
    run = Run(problem, resolve(settings, problem, prior), prior, bits=8)
    denoiser = run._denoiser()
    assert isinstance(denoiser, ClassifierGuided)
    x_t = torch.zeros(1, 3, 2 * SIDE, 2 * SIDE)
    for sigma in run.r.sigmas()[:8]:
        with torch.no_grad():
            step = denoiser(x_t, sigma) - denoiser.denoiser(x_t, sigma)
        assert step[:, :, : SIDE // 2].mean() > 0 > step[:, :, SIDE // 2 : SIDE].mean()
