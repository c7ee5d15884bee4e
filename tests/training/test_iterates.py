"""Training on iterates of rounds: the network meets what it will meet, and a resume goes on."""

import itertools

import pytest
import torch

from sfumato.errors import SettingsError
from sfumato.guidance import Measurement, project, rounds_spread, start_image
from sfumato.io import load_checkpoint
from sfumato.operators import parse
from sfumato.training import PriorSettings, Schedule, Stopped, load_photographs, train_prior
from sfumato.training.iterates import Iterates

SETTINGS = PriorSettings(
    channels=(4, 8),
    blocks=1,
    embedding=8,
    steps=24,
    warmup_steps=3,
    crop_cycle=(16, 8),
    batch_pixels=512,
    halvings=1,
    learning_rate=0.01,
    seed=5,
    rounds_share=0.5,
    rounds_counts=(2, 3),
)


def variant(**changes):
    return PriorSettings.of(SETTINGS.model_dump() | changes)


@pytest.fixture
def loaded(photographs):
    return load_photographs(photographs, min_side=16, halvings=1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 1.0])
def test_rounds_have_their_share_of_the_steps(loaded, share):
    rounds = Iterates(variant(rounds_share=share), loaded)
    assert sum(rounds.theirs(k) for k in range(1000)) == 1000 * share


@pytest.mark.parametrize("word", [*SETTINGS.rounds_degradations, "average_pool:2 | grayscale"])
def test_iterates_are_the_walk_of_rounds(loaded, word):
    """Start, denoise, project: the same as rounds of the restoration, and ``A x = y`` holds."""
    rounds = Iterates(variant(rounds_degradations=(word,), rounds_counts=(3,)), loaded)
    seen = []

    def shrink(x, sigma):
        seen.append((x, sigma))
        return 0.9 * x

    for _ in range(3):
        n = rounds.begin(7)
        rounds.loss(shrink, 0, n)
        rounds.advance()
    (first, sigma), *others = seen
    y, A = rounds._problem.y, rounds._problem.A
    assert str(A) == str(parse(word).operator(A.in_shape))
    torch.testing.assert_close(first[:1], start_image(Measurement(A, y[:1])))
    for (x, _), (x_next, _) in itertools.pairwise(seen):
        torch.testing.assert_close(x_next, project(0.9 * x, y, A, spread=rounds_spread(A)))
    assert all(float((A(x) - y).abs().max()) < 1e-4 for x, _ in others)
    levels = [float(s[0]) for _, s in seen]
    assert 0.4 <= float(sigma[0]) <= 1
    assert 0.03 <= levels[-1] <= 0.09
    assert levels == sorted(levels, reverse=True)


def test_the_loss_is_the_error_left_of_the_error_there_was(loaded):
    rounds = Iterates(variant(rounds_degradations=("average_pool:4",)), loaded)
    n = rounds.begin(0)
    x, x_0, sigma = rounds._x, rounds._problem.x_0, rounds._problem.sigmas[0]
    before = (x - x_0).square().mean((1, 2, 3))
    share = float((before / (before + 0.03 * sigma**2)).mean())
    assert 0 < share < 1
    assert float(rounds.loss(lambda x, sigma: x, 0, n)) == pytest.approx(share)
    assert float(rounds.loss(lambda x, sigma: rounds._problem.x_0, 0, n)) == 0
    half = rounds.loss(lambda x, sigma: (x + rounds._problem.x_0) / 2, 0, n)
    assert float(half) == pytest.approx(share / 4)


def test_a_picture_that_the_measurement_tells_all_of_does_not_drown_the_others(loaded):
    rounds = Iterates(variant(rounds_degradations=("average_pool:4",)), loaded)
    n = rounds.begin(0)
    rounds._problem.x_0[0] = rounds._x[0]  # as of a sky
    error = rounds.loss(lambda x, sigma: x + 0.1 * sigma.view(-1, 1, 1, 1), 0, n)
    assert float(error) < 1


def weights(path):
    return load_checkpoint(path)[0]


@pytest.mark.parametrize("stops", [[1], [7, 4], [3, 1, 1, 10]])
def test_an_interrupted_run_ends_with_the_same_bits(photographs, tmp_path, stops):
    list(train_prior(SETTINGS, photographs, tmp_path / "whole"))
    for n in stops:
        asked = itertools.count(1)
        schedule = Schedule(stop=lambda n=n, asked=asked: next(asked) >= n)
        last = list(train_prior(SETTINGS, photographs, tmp_path / "parts", schedule=schedule))[-1]
        assert isinstance(last, Stopped)
    list(train_prior(SETTINGS, photographs, tmp_path / "parts"))
    for name in ("state.safetensors", "prior.safetensors"):
        a, b = weights(tmp_path / "whole" / name), weights(tmp_path / "parts" / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a), name


def test_parts_of_a_batch_add_up(photographs, tmp_path):
    for n in (1, 3):
        settings = variant(accumulate=n, precision="fp32", steps=3, rounds_share=1.0)
        list(train_prior(settings, photographs, tmp_path / str(n)))
    a, b = (weights(tmp_path / n / "state.safetensors") for n in "13")
    for name in a:
        if name.startswith(("exp_avg.", "lesson.")):
            torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=1e-3)


def test_rounds_must_end_below_where_they_begin():
    with pytest.raises(SettingsError, match=r"rounds_sigma.*not below"):
        variant(rounds_sigma=((0.1, 0.2), (0.15, 0.3)))
