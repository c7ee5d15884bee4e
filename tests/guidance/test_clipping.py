"""Values that were clipped are completed as they should be, by every method that weighs noise."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.diffusion import Step
from sfumato.guidance import DDNMPlus, Measurement, Proximal
from sfumato.guidance.clipping import clipped, completion
from sfumato.operators import AveragePool, Identity, parse
from sfumato.pipeline.problem import make_problem


@given(st.floats(-1, 1), st.floats(0.02, 1))
def test_the_completion_is_the_mean_of_what_was_cut_off(x, sigma):
    """E[x + n | x + n >= 1] by a fine sum over n; mirrored at -1."""
    a = (1 - x) / sigma
    n = torch.linspace(a, a + 12, 200_001, dtype=torch.float64)
    weight = torch.exp(-0.5 * (n**2 - a**2))
    expected = x + sigma * float((n * weight).sum() / weight.sum())
    y, x_0 = torch.tensor([1.0, -1.0]), torch.tensor([x, -x])
    if a <= 8:
        found = completion(y, x_0, sigma)
        torch.testing.assert_close(found, torch.tensor([expected, -expected]), rtol=2e-4, atol=0)


def test_only_values_at_the_bounds_are_completed():
    y = torch.tensor([-1.0, -0.999, 0.0, 0.5, 1.0, 1.4])
    assert clipped(y).tolist() == [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    kept = completion(y, torch.zeros(6), 0.3)[1:4]
    assert torch.equal(kept, y[1:4])


WHITE = torch.ones(1, 3, 64, 64)


def noisy_white(A, sigma_y, *, grey=False):
    g = torch.Generator().manual_seed(0)
    z = torch.randn((1, 1 if grey else 3, *A.out_shape[1:]), generator=g)
    return (A(WHITE) + sigma_y * z).clamp(-1, 1)


@pytest.mark.parametrize("method", [DDNMPlus, Proximal])
@pytest.mark.parametrize("A", [Identity((3, 64, 64)), AveragePool((3, 64, 64), 2)], ids=str)
def test_a_correct_estimate_of_white_stays_white(method, A):
    """E[y | clipped] makes up for what was cut off: the mean of the corrections is nothing."""
    y, step = noisy_white(A, 0.2), Step(1, 2.0, 1.0, 0.0)

    def drift(m):
        return float((method(m).correct(WHITE, step) - WHITE).mean())

    assert drift(Measurement(A, y, 0.2)) < -0.05
    assert abs(drift(Measurement(A, y, 0.2, clips=True))) < 0.006


def test_copies_share_their_noise():
    A, root = Identity((3, 64, 64)), 3**0.5
    y = noisy_white(A, 0.2, grey=True).expand(-1, 3, -1, -1)
    m = Measurement(A, y, 0.2 * root, clips=True, copies=3)
    assert abs(float(m.residual(WHITE).mean())) < 0.01


def test_unclipped_values_are_taken_as_they_are():
    """A researcher's floats go beyond the range, and nothing of them was lost."""
    y = 1 + 0.2 * torch.randn((1, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    m = Measurement(Identity((3, 8, 8)), y, 0.2, clips=True)
    assert torch.equal(m.completed(torch.ones(1, 3, 8, 8)), y)


@pytest.mark.parametrize(
    ("words", "clips"),
    [
        ("noise:0.1", True),
        ("average_pool:2 | noise:0.1", True),
        ("average_pool:2", False),
        ("gaussian_blur:1.5", False),
        ("walsh_hadamard:0.5 | noise:0.1", False),
    ],
)
def test_pictures_with_stated_noise_are_taken_as_clipped(words, clips):
    y = parse(words).operator((3, 32, 32))(torch.rand(1, 3, 32, 32))[0]
    assert make_problem(y, parse(words)).measurement.clips is clips
