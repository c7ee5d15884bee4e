"""The network's batches have one size; a device that is short of memory gets fewer tiles."""

import pytest
import torch
from stand_ins import engine, level_of, result, shrink

from sfumato.operators import AveragePool
from sfumato.tiling import Restorer, Room, ShortOfMemoryWarning, TilePlan, room
from sfumato.tiling.room import InMicroBatches


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8])
def test_the_network_sees_one_size_only(n):
    seen = []

    def network(x, sigma):
        seen.append(len(x))
        return x * sigma

    x = torch.arange(n * 12.0).reshape(n, 3, 2, 2)
    torch.testing.assert_close(InMicroBatches(network, 4)(x, 0.5), x * 0.5, rtol=0, atol=0)
    assert seen == [4] * -(-n // 4)


@pytest.mark.parametrize("stitch", ["mask-shift", "joint", "independent"])
def test_bits_depend_on_no_batch_even_if_the_network_looks_at_its_batch(stitch):
    """As kernels do on a GPU, whose sums are in another order for other sizes."""

    def fickle(x, sigma):
        return shrink(x, sigma) + 1e-3 * len(x)

    A = AveragePool((3, 48, 40), 2)
    level, plan = level_of(A), TilePlan(48, 40, 16, 4, 2)
    answers = [
        result(engine(denoiser=fickle, batch=b, micro_batch=3).restore(level, plan, stitch))[0]
        for b in (1, 2, 7)
    ]
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


@pytest.fixture
def small_device(monkeypatch):
    """Let the device hold few starting images at once; return a setter, and what it refused."""
    held, refused = [0, 99], []
    start, at_once = Restorer.start, Restorer._at_once

    def counted(restorer, of, window, local):
        held[0] += 1
        if held[0] > held[1]:
            refused.append(held[0])
            raise torch.OutOfMemoryError("no room")
        return start(restorer, of, window, local)

    def begun(restorer, tasks):
        held[0] = 0
        return at_once(restorer, tasks)

    monkeypatch.setattr(Restorer, "start", counted)
    monkeypatch.setattr(Restorer, "_at_once", begun)

    def hold(most):
        held[1] = most
        return refused

    return hold


@pytest.mark.parametrize("most", [1, 2, 3])
def test_short_of_memory_tiles_run_fewer_at_once_to_the_same_bits(small_device, most):
    A = AveragePool((3, 64, 64), 2)
    level, plan = level_of(A), TilePlan(64, 64, 16, 4, 2)
    expected, _ = result(engine(batch=1).restore(level, plan, "independent"))
    refused = small_device(most)
    e = engine(batch=8)
    with pytest.warns(ShortOfMemoryWarning) as told:
        x, progress = result(e.restore(level, plan, "independent"))
    assert "8 tiles at once: 4 at once" in str(told[0].message)
    assert torch.equal(x, expected)
    assert refused
    assert e.restorer.room.most <= most
    done = [p.done for p in progress]
    assert done == sorted(done)
    assert done[-1] == e.n_steps * len(plan.tiles)


def test_evaluations_lost_in_the_middle_are_not_counted_twice():
    calls = []

    def network(x, sigma):
        calls.append(len(x))
        if len(calls) == 6:
            raise torch.OutOfMemoryError("in the second step")
        return shrink(x, sigma)

    level, plan = level_of(AveragePool((3, 32, 32), 2)), TilePlan(32, 32, 16, 0, 2)
    e = engine(denoiser=network, batch=4)
    with pytest.warns(ShortOfMemoryWarning):
        x, progress = result(e.restore(level, plan, "independent"))
    expected, _ = result(engine().restore(level, plan, "independent"))
    assert torch.equal(x, expected)
    done = [p.done for p in progress]
    assert done == sorted(done)
    assert done[-1] == e.n_steps * len(plan.tiles)


def test_no_room_for_one_tile_is_an_error():
    def network(x, sigma):
        raise torch.OutOfMemoryError("no room at all")

    level, plan = level_of(AveragePool((3, 32, 32), 2)), TilePlan(32, 32, 16, 0, 2)
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(ShortOfMemoryWarning):
        result(engine(denoiser=network, batch=2).restore(level, plan, "independent"))


@pytest.mark.parametrize(
    ("used", "asked", "expected"),
    [(0.1, None, 64), (0.9, None, 4), (0.1, 5, 5), (0.9, 5, 5)],
)
def test_a_gpu_with_free_memory_gets_more_tiles_at_once(monkeypatch, used, asked, expected):
    monkeypatch.setattr(room, "_memory_used", lambda device: used)
    space = Room("cuda:0", asked)
    for _ in range(9):
        space.fitted()
    assert space.most == expected
    space.halve(space.most)
    for _ in range(9):
        space.fitted()
    assert space.most == expected // 2
