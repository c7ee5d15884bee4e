"""The last step: into the gamut and onto the measurement, as far as both can be had."""

import pytest
import torch

from sfumato.linalg import NotConvergedWarning
from sfumato.operators import parse
from sfumato.pipeline.finish import quantise, settle
from sfumato.pipeline.problem import make_problem

SHAPE = (3, 20, 24)


def noise(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def problem_of(words, u, *, bits=8):
    """Return the problem that a picture poses, its measurement rounded."""
    degradation = parse(words)
    y = degradation.operator(tuple(u.shape))(u[None])[0]
    exact = any(name in words for name in ("walsh", "block"))
    return make_problem(y if exact else quantise(y, bits), degradation, bits=bits)


def black_and_white(seed=0):
    """A picture with large parts at both borders of the gamut."""
    return (0.5 + 0.8 * noise(SHAPE, seed)).clamp(0, 1)


@pytest.mark.parametrize(
    "words",
    [
        "identity", "grayscale", "average_pool:2", "average_pool:4", "grayscale | average_pool:2",
        "random_mask:0.5", "random_mask:0.5 | grayscale | average_pool:2", "bicubic:2",
        "grayscale | bicubic:2", "walsh_hadamard:0.5", "block_sensing:0.3",
        "grayscale | walsh_hadamard:0.5:4",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_agreement_is_reached_inside_the_gamut(words):
    problem = problem_of(words, black_and_white())
    x = settle(noise((1, *SHAPE), 1), problem)
    assert float(x.abs().max()) <= 1
    assert 255 * problem.residual_rmse((x + 1) / 2) < 0.2


@pytest.mark.parametrize("words", ["gaussian_blur:1.5", "uniform_blur:5", "motion_blur:9:30"])
def test_blurs_agree_as_well_as_rounding_lets_them(words):
    problem = problem_of(words, black_and_white())
    x = settle(noise((1, *SHAPE), 1), problem)
    assert 255 * problem.residual_rmse((x + 1) / 2) < 0.6


@pytest.mark.parametrize("words", ["grayscale", "average_pool:2", "bicubic:2"])
def test_what_agrees_is_left_alone(words):
    u = black_and_white()
    degradation = parse(words)
    problem = make_problem(degradation.operator(SHAPE)(u[None])[0], degradation)
    x = 2 * u[None] - 1
    assert float((settle(x, problem) - x).abs().max()) < 1e-5


def test_a_measurement_with_noise_is_not_enforced():
    problem = make_problem(torch.rand(SHAPE), parse("noise:0.1"))
    x = noise((1, *SHAPE))
    assert torch.equal(settle(x, problem), x.clamp(-1, 1))


def test_what_no_picture_has_is_met_as_nearly_as_one_can():
    """Ringing beyond black and white: near the least squares within the gamut, and no NaN."""
    y = (noise((3, 6, 6)) > 0).float()
    problem = make_problem(y, parse("bicubic:2"))
    A, target = problem.measurement.A, problem.measurement.y
    best = torch.zeros(1, *A.in_shape)
    for _ in range(800):
        best = (best + 4 * A.adjoint(target - A(best))).clamp(-1, 1)
    x = settle(noise((1, *A.in_shape)), problem)
    least = problem.residual_rmse((best + 1) / 2)
    assert problem.residual_rmse((x + 1) / 2) < 1.15 * least


def test_quantise_rounds_and_clips():
    u = torch.tensor([-0.1, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 1.2])
    assert (255 * quantise(u, 8)).tolist() == pytest.approx([0, 0, 0, 1, 255, 255])
    assert torch.equal(quantise(quantise(u, 16), 16), quantise(u, 16))


def test_the_warning_of_the_solver_exists():
    """It is silenced by name."""
    assert issubclass(NotConvergedWarning, Warning)
