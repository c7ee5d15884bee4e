"""The walk: what time travel costs, what it draws, and what it forgets."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion import Guidance, Step, karras
from sfumato.errors import SettingsError
from sfumato.samplers import DDIM, DDPM, DPMSolverPP2M, Jump, Rounds, check_pair, sample, walk
from sfumato.samplers.base import Sampler


@pytest.mark.parametrize(("T", "evaluations"), [(100, 280), (250, 730)])
def test_time_travel_costs_what_the_paper_says(T, evaluations):
    moves = walk(DDPM(), [float(s) for s in range(T, -1, -1)], travel_length=10, travel_repeats=3)
    assert sum(isinstance(m, Step) for m in moves) == evaluations


@given(st.integers(1, 60), st.integers(1, 25), st.integers(1, 4))
@settings(deadline=None)
def test_a_walk_is_connected_and_numbers_its_draws(n, length, repeats):
    sigmas = karras(n, 10.0)
    moves = walk(DDIM(0.5), sigmas, travel_length=length, travel_repeats=repeats)
    assert [m.draw for m in moves] == [*range(1, len(moves) + 1)]
    assert moves[0].sigma == sigmas[0]
    assert moves[-1].sigma_next == 0
    assert all(a.sigma_next == b.sigma for a, b in pairwise(moves))
    for m in moves:
        if isinstance(m, Jump):
            assert m.sigma_next > m.sigma > 0
            assert sigmas.index(m.sigma) - sigmas.index(m.sigma_next) == length
        else:
            assert sigmas.index(m.sigma_next) == sigmas.index(m.sigma) + 1
            assert m.eta == 0.5
    # Every step is made as often as asked, save those of the last stretch.
    made = [m.sigma for m in moves if isinstance(m, Step)]
    last_stretch = (n - 1) // length * length
    for i, s in enumerate(sigmas[:-1]):
        assert made.count(s) == (1 if i >= last_stretch else repeats)


def test_without_time_travel_the_walk_is_the_schedule():
    sigmas = karras(5, 10.0)
    moves = walk(DDPM(), sigmas)
    assert [(m.sigma, m.sigma_next) for m in moves] == [*pairwise(sigmas)]


@pytest.mark.parametrize(("length", "repeats"), [(0, 1), (1, 0), (-3, 2)])
def test_impossible_time_travel_is_refused(length, repeats):
    with pytest.raises(SettingsError, match="time travel"):
        walk(DDPM(), karras(5, 10.0), travel_length=length, travel_repeats=repeats)


class Recorder(Sampler):
    """Writes down how much past each step was given."""

    order = 2

    def __init__(self):
        self.seen = []

    def eta(self, sigma, sigma_next):
        return 0.0

    def estimate(self, x_0, sigma, sigma_next, past):
        self.seen.append([p.sigma for p in past])
        return x_0


def test_history_is_forgotten_after_a_jump():
    sampler, sigmas = Recorder(), karras(6, 10.0)
    moves = walk(sampler, sigmas, travel_length=3, travel_repeats=2)
    x = torch.ones(2, 1, 2, 2)
    for _ in sample(lambda x, s: x, sampler, [Guidance()] * 2, moves, x_T=x, noise=lambda d: x):
        pass
    expected = []
    for i, m in enumerate(moves):
        if isinstance(m, Step):
            before = moves[i - 1] if i else None
            expected += 2 * [[before.sigma] if isinstance(before, Step) else []]
    assert sampler.seen == expected
    assert expected.count([]) == 4  # the first step and the one after the jump, of two images


def test_after_a_jump_a_multistep_sampler_goes_on_as_if_it_began_there():
    sigmas, x_T = karras(6, 10.0), torch.full((1, 1, 1, 1), 4.0, dtype=torch.float64)

    def D(x, sigma):
        return x / (1 + 4 * sigma**2)

    def noise(draw):
        return torch.full((1, 1, 1, 1), 0.3 * draw, dtype=torch.float64)

    def run(moves, x_T):
        return [
            x.item()
            for _, x in sample(D, DPMSolverPP2M(), [Guidance()], moves, x_T=x_T, noise=noise)
        ]

    moves = walk(DPMSolverPP2M(), sigmas, travel_length=3, travel_repeats=2)
    states = run(moves, x_T)
    jump = next(i for i, m in enumerate(moves) if isinstance(m, Jump))
    m = moves[jump]
    travelled = states[jump - 1] + (m.sigma_next**2 - m.sigma**2) ** 0.5 * 0.3 * m.draw
    assert states[jump] == pytest.approx(travelled)
    again = run(moves[jump + 1 :], torch.full_like(x_T, states[jump]))
    assert again == pytest.approx(states[jump + 1 :], rel=1e-12)


def test_each_image_of_a_batch_goes_its_own_way():
    """Neither the batch's size nor its neighbours change an image."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(40, 3, 2, 5, 5, generator=g)
    x_T = 10 * torch.randn(3, 2, 5, 5, generator=g)
    for sampler in (DDPM(), DDIM(0.4), DPMSolverPP2M(), Rounds()):
        moves = walk(sampler, karras(6, 10.0), travel_length=2, travel_repeats=2)

        def run(i, sampler=sampler, moves=moves):
            *_, (_, x) = sample(
                lambda x, s: torch.tanh(x) / (1 + s),
                sampler,
                [Guidance()] * len(x_T[i]),
                moves,
                x_T=x_T[i],
                noise=lambda draw: z[draw][i],
            )
            return x

        together = run(slice(None))
        assert torch.equal(together, torch.cat([run(slice(k, k + 1)) for k in range(3)]))


@pytest.mark.parametrize("needs", [False, True])
def test_noise_is_drawn_only_where_it_is_used(needs):
    class Asks(Guidance):
        needs_noise = needs

    drawn = []

    def noise(draw):
        drawn.append(draw)
        return torch.zeros(1, 1, 2, 2)

    moves = walk(DDIM(0.0), karras(4, 10.0))
    list(sample(lambda x, s: x, DDIM(0.0), [Asks()], moves, x_T=noise(0), noise=noise))
    assert drawn == ([0, 1, 2, 3] if needs else [0])


def test_shaped_noise_and_second_order_are_refused():
    class Shapes(Guidance):
        shapes_noise = True

    check_pair(DDPM(), Shapes())
    check_pair(DPMSolverPP2M(), Guidance())
    with pytest.raises(SettingsError, match="DPMSolverPP2M with Shapes"):
        check_pair(DPMSolverPP2M(), Shapes())
    x = torch.zeros(1, 1, 1, 1)
    moves = walk(DPMSolverPP2M(), karras(3, 1.0))
    with pytest.raises(SettingsError):
        next(sample(lambda x, s: x, DPMSolverPP2M(), [Shapes()], moves, x_T=x, noise=lambda d: x))
