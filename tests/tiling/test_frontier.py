"""Every tile is taken once, and none before its neighbours are finished."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.tiling import Frontier, TilePlan

PLANS = [
    TilePlan(70, 90, 32, 12, 2, margin=6),
    TilePlan(70, 90, 32, 12, 4, margin=4, corners=True),
    TilePlan(70, 90, 32, 12, order="centre"),
    TilePlan(96, 64, 32, 0),
    TilePlan(9, 9, 16, 4),
]


@given(st.sampled_from(PLANS), st.integers(1, 7), st.integers(1, 5), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_any_schedule_respects_the_neighbours(plan, most, at_once, seed):
    chance = random.Random(seed)
    order = [t.number for t in plan.tiles]
    done = {k for k in order if chance.random() < 0.6}
    # What an earlier run finished is closed under what it needed.
    needs = {t.number: set(t.needs) for t in plan.tiles}
    while any(not needs[k] <= done for k in done):
        done = {k for k in done if needs[k] <= done}
    frontier = Frontier(plan.tiles, done=done, at_once=at_once)
    finished, working = set(done), []
    while frontier.left:
        taken = frontier.take(most)
        assert len(taken) <= most
        assert len({t.size for t in taken}) <= 1
        for t in taken:
            assert t.number not in finished
            assert needs[t.number] <= finished
        working += taken
        assert working, "there is always something to do"
        tile = working.pop(chance.randrange(len(working)))
        if chance.random() < 0.6:
            frontier.finish(tile)
            finished.add(tile.number)
        else:
            frontier.give_back([tile])
    assert finished == set(order)
    assert frontier.take(1) == []


def schedule(plan, n):
    """Return how many rounds n workers need, and how far ahead they get."""
    frontier, working, time, ahead = Frontier(plan.tiles, at_once=n), [], 0, 0
    finished = set()
    while frontier.left:
        working += frontier.take(n - len(working))
        lowest = min({t.number for t in plan.tiles} - finished)
        ahead = max([ahead, *(t.number - lowest for t in working)])
        time += 1
        for tile in working:
            frontier.finish(tile)
            finished.add(tile.number)
        working = []
    return time, ahead


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("n_rows", [7, 8, 9, 12])
def test_two_workers_are_busy_to_the_end(n_rows, corners):
    side = 32 + 26 * (n_rows - 1)
    plan = TilePlan(side, side, 32, 6, 1, margin=2, corners=corners)
    time, ahead = schedule(plan, 2)
    assert len(plan.tiles) / (2 * time) >= 0.9
    assert ahead <= 2 * (n_rows + 1)


def test_one_worker_goes_from_row_to_row():
    plan = PLANS[0]
    frontier, order = Frontier(plan.tiles), []
    while frontier.left:
        (tile,) = frontier.take(1)
        order.append(tile.number)
        frontier.finish(tile)
    assert order == sorted(order)


def test_unbound_tiles_wait_for_none():
    plan = PLANS[0]
    assert len(Frontier(plan.tiles, bound=False).take(10**6)) > len(plan.waves[0])
