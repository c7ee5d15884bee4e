"""A run on shards that is interrupted in the middle of one ends with the same bits."""

import itertools

import pytest
import torch
from made_up_photographs import draw
from test_sources import png, write_shard

from sfumato.io import load_checkpoint
from sfumato.training import LeftOut, PriorSettings, Schedule, Started, train_prior

TINY = PriorSettings(
    channels=(4, 8),
    blocks=1,
    embedding=8,
    steps=12,
    warmup_steps=3,
    crop_cycle=(16, 8),
    batch_pixels=512,
    halvings=0,
    learning_rate=0.01,
    seed=5,
    rounds_share=0.5,
    rounds_counts=(2, 3),
    rounds_degradations=("average_pool:2",),
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder, sizes = tmp_path_factory.mktemp("shards"), (5, 3, 4)
    for n, size in enumerate(sizes):
        pictures = [(f"{n}-{k}", png(draw(20, 24, 10 * n + k))) for k in range(size)]
        write_shard(folder / f"{n}.tar", [*pictures, (f"{n}-x", b"no picture")])
    return folder


@pytest.fixture(scope="module")
def finished(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, list(train_prior(TINY, shards, out))


def weights(path):
    return load_checkpoint(path)[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("stops", [[1], [2, 3, 4], [7]])
def test_an_interrupted_run_on_shards_ends_with_the_same_bits(finished, shards, tmp_path, stops):
    for n in stops:
        asked = itertools.count(1)
        schedule = Schedule(stop=lambda n=n, asked=asked: next(asked) >= n)
        list(train_prior(TINY, shards, tmp_path, schedule=schedule))
    list(train_prior(TINY, shards, tmp_path))
    for name in ("state.safetensors", "prior.safetensors"):
        assert same(weights(tmp_path / name), weights(finished[0] / name)), name


def test_pictures_left_out_are_told_when_their_shard_is_decoded(finished):
    _, events = finished
    assert next(e for e in events if isinstance(e, Started)).skipped == ()
    told = [s.path.name for e in events if isinstance(e, LeftOut) for s in e.skipped]
    assert sorted(told) == ["0-x.png", "1-x.png", "2-x.png"]
