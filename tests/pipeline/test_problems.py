"""From a picture and words to a problem; settings; the report."""

import json
import math

import pytest
import torch

from sfumato.errors import DegradationError, SettingsError, ShapeError
from sfumato.io import Picture, write_picture
from sfumato.operators import parse
from sfumato.pipeline import Report, make_settings
from sfumato.pipeline.presets import DEFAULT_OBJECTIVE, PRESETS, task_of
from sfumato.pipeline.problem import make_problem


def measured(problem):
    """Return ``y`` for images in [0, 1]:  ``(y + A 1) / 2``."""
    m = problem.measurement
    return (m.y + m.A(torch.ones(1, *m.A.in_shape)))[0] / 2


@pytest.mark.parametrize(
    "words",
    ["identity", "average_pool:2", "bicubic:2", "grayscale", "gaussian_blur:1", "random_mask:0.7"],
)
def test_the_measurement_survives_the_units_of_the_model(words):
    y = torch.rand(1 if words == "grayscale" else 3, 8, 10)
    problem = make_problem(y, parse(words))
    kept = measured(problem) * problem.weight
    assert torch.allclose(kept, y * problem.weight, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "task"),
    [
        ("identity", "denoise"), ("noise:0.1", "denoise"), ("average_pool:2", "upscale"),
        ("bicubic:3", "upscale"), ("random_mask:0.5", "inpaint"), ("grayscale", "colorize"),
        ("gaussian_blur:2", "deblur"), ("walsh_hadamard:0.5", "sense"),
        ("gaussian_blur:1 | average_pool:2", "upscale"),
        ("random_mask:0.5 | grayscale | average_pool:2", "inpaint"),
    ],
)  # fmt: skip
def test_tasks(words, task):
    assert task_of(parse(words).operator((3, 12, 12))) == task


def test_every_task_has_its_presets():
    for task, objective in DEFAULT_OBJECTIVE.items():
        assert {(task, "distortion"), (task, "perception")} <= set(PRESETS)
        assert objective in ("distortion", "perception")


@pytest.mark.parametrize("words", ["walsh_hadamard:0.25:4", "grayscale | walsh_hadamard:0.25:4"])
def test_what_was_not_measured_does_not_dilute_the_consistency(words):
    """Three of four coefficients are zero whatever the picture: they agree with anything."""
    degradation = parse(words)
    A = degradation.operator((3, 8, 8))
    u = torch.rand(1, 3, 8, 8)
    y = A(u)
    problem = make_problem(y[0], degradation)
    other = torch.rand(1, 3, 8, 8)
    difference = (A(other) - y)[y != 0]
    assert problem.residual_rmse(other) == pytest.approx(
        float(difference.square().mean().sqrt()), rel=1e-4
    )


def test_grey_is_repeated_and_colour_made_grey():
    grey, colour = torch.rand(1, 6, 6), torch.rand(3, 6, 6)
    repeated = make_problem(grey, parse("average_pool:2"))
    assert repeated.grey
    assert repeated.measurement.y.shape == (1, 3, 6, 6)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    made = measured(make_problem(colour, parse("grayscale")))
    assert torch.allclose(made, (colour * weights).sum(0, keepdim=True), atol=1e-6)


def test_noise_counts_double_in_the_units_of_the_model():
    problem = make_problem(torch.rand(3, 4, 4), parse("noise:0.1"))
    assert problem.measurement.sigma_y == pytest.approx(0.2)
    assert not problem.exact


@pytest.mark.parametrize("bits", [8, 16])
def test_blurs_carry_the_noise_of_rounding(bits):
    problem = make_problem(torch.rand(3, 9, 9), parse("gaussian_blur:2"), bits=bits)
    assert problem.exact
    assert problem.measurement.sigma_y == pytest.approx(2 / (2**bits - 1) / math.sqrt(12))


def test_a_mask_must_leave_something(tmp_path):
    write_picture(Picture(torch.ones(1, 5, 5)), tmp_path / "all.png")
    with pytest.raises(DegradationError, match="every pixel is missing"):
        make_problem(torch.rand(3, 5, 5), parse(f"mask:{tmp_path / 'all.png'}"))


def test_a_measurement_of_other_channels():
    with pytest.raises(ShapeError, match="expected"):
        make_problem(torch.rand(4, 5, 5), parse("identity"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps = 0; expected input greater than"),
        ({"eta": 1.5}, "eta = 1.5; expected input less than"),
        ({"sampler": "euler"}, "sampler = 'euler'; expected input 'ddim'"),
        ({"time_travel": (0, 3)}, r"time_travel = \(0, 3\); expected a length"),
        ({"colour": "blue"}, "colour"),
        ({"tile": 8}, "tile = 8; expected input greater"),
        ({"levels": 13}, "levels = 13; expected input less"),
    ],
)
def test_settings_say_what_is_wrong_in_a_line(values, message):
    with pytest.raises(SettingsError, match=message) as caught:
        make_settings(**values)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 120


def report(**changes):
    values = {
        "task": "upscale", "degradation": "average_pool:2", "consistency_rmse_255": 0.3,
        "seam_score": 1.0, "seam_band": (0.9, 1.1), "tiles": 4, "waves": 3,
        "network_evaluations": 8, "evaluations_per_tile": 2, "levels": [], "seconds": 0.1,
        "width": 8, "height": 8, "settings": {}, "model": "own", "model_digest": "0",
    }  # fmt: skip
    return Report(**(values | changes))


def test_a_report_is_json_that_all_readers_take(tmp_path):
    """Infinity, the score of a seam in a picture that is flat elsewhere, is no JSON."""

    def refuse(constant):
        pytest.fail(f"{constant} is no JSON")

    path = tmp_path / "new" / "report.json"
    report(seam_score=math.inf).with_notes("one", "two").write(path)
    read = json.loads(path.read_text(), parse_constant=refuse)
    assert read["seam_score"] is None
    assert read["seam_band"] == [0.9, 1.1]
    assert read["notes"] == ["one", "two"]
