"""Every tile is taken once, and none before its neighbours are finished."""

import random

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


@given(st.sampled_from(PLANS), st.integers(1, 7), st.integers(0, 10**6))
@settings(max_examples=60)
def test_any_schedule_respects_the_neighbours(plan, most, seed):
    chance = random.Random(seed)
    order = [t.number for t in plan.tiles]
    done = {k for k in order if chance.random() < 0.6}
    # What an earlier run finished is closed under what it needed.
    needs = {t.number: set(t.needs) for t in plan.tiles}
    while any(not needs[k] <= done for k in done):
        done = {k for k in done if needs[k] <= done}
    frontier = Frontier(plan.tiles, done=done)
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


def test_unbound_tiles_wait_for_none():
    plan = PLANS[0]
    assert len(Frontier(plan.tiles, bound=False).take(10**6)) > len(plan.waves[0])
