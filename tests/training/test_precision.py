"""Networks are trained in bfloat16 where the device computes in it, never where it emulates it."""

import pytest
import torch

from sfumato.diffusion import arithmetic
from sfumato.training import PriorSettings, SR3Settings
from sfumato.training.generator import GeneratorLesson, GeneratorSettings
from sfumato.training.prior import PriorLesson
from sfumato.training.sr3 import SR3Lesson, new_denoiser

UNET = {"channels": (4, 8), "blocks": 1, "embedding": 8}
SMALL = {"crop_cycle": (16,), "batch_pixels": 256, "halvings": 0}


@pytest.fixture(params=[True, False], ids=["native", "emulated"])
def native(request, monkeypatch):
    monkeypatch.setattr(arithmetic, "is_native", lambda device, precision: request.param)
    return request.param


def lessons(photographs, **changes):
    changes |= SMALL
    yield PriorLesson(PriorSettings.of(UNET | changes), photographs, None, "cpu")
    form = {"network": {"form": "unet", **UNET}}
    yield SR3Lesson(SR3Settings.of(form | changes), photographs, None, "cpu")
    settings = GeneratorSettings.of(
        {"channels": (32,), "head_width": 32, "attention": (), "prepare": 16} | changes
    )
    yield GeneratorLesson(settings, photographs, None, "cpu")


def test_every_lesson_takes_what_the_device_computes_in(native, photographs):
    expected = "bf16" if native else "fp32"
    assert [one.model().precision for one in lessons(photographs)] == [expected] * 3


def test_what_is_asked_for_is_taken(native, photographs):
    for asked in ("fp32", "bf16"):
        models = [one.model() for one in lessons(photographs, precision=asked)]
        assert {model.precision for model in models} == {asked}


def test_a_network_to_go_on_from_too(native):
    settings = SR3Settings.of({"init": "embedded"})
    expected = "bf16" if native else "fp32"
    assert new_denoiser(settings, torch.device("cpu")).precision == expected
