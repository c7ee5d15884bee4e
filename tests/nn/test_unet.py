"""The U-Net: its form, its first weights, and that it agrees over tiles of any size."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import SettingsError
from sfumato.nn import UNet, UNetConfig, seeded_unet

TINY = UNetConfig(channels=(4, 8), blocks=1, embedding=8)


def excited(config, seed=0):
    """A network none of whose weights is 0."""
    net = seeded_unet(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return net


@settings(max_examples=15, deadline=None)
@given(
    channels=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    blocks=st.integers(1, 2),
    unshuffle=st.integers(1, 3),
    rows=st.integers(1, 2),
    cols=st.integers(1, 3),
)
def test_any_form_keeps_the_shape(channels, blocks, unshuffle, rows, cols):
    config = UNetConfig(channels, blocks, unshuffle, embedding=4)
    x = torch.zeros(2, 3, rows * config.stride, cols * config.stride)
    assert seeded_unet(config, 0)(x, torch.zeros(2)).shape == x.shape


def test_names_of_the_weights_are_those_of_published_checkpoints():
    tops = {name.split(".")[0] for name in UNet(TINY).state_dict()}
    assert tops == {"freq", "emb", "head", "down", "mid", "up", "tail"}
    block = {n.removeprefix("down.0.") for n in UNet(TINY).state_dict() if n.startswith("down.0.")}
    assert {"norm1.weight", "conv1.bias", "emb.weight", "norm2.weight", "conv2.bias"} <= block


def test_weights_are_a_function_of_the_seed_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a, b, c = (seeded_unet(TINY, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])
    assert torch.equal(a["freq"], UNet(TINY).freq)


def test_a_new_network_answers_zero():
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not seeded_unet(TINY, 0)(x, torch.zeros(1)).any()


def test_a_pixel_does_not_depend_on_the_tile_it_came_in():
    net = excited(TINY)
    x = torch.randn(1, 3, 160, 176, generator=torch.Generator().manual_seed(1))
    level = torch.tensor([0.3])
    whole, tile = net(x, level), net(x[..., 4:156, 8:164], level)
    # The convolutions see 60 pixels to each side: 10 of 2 pixels, 10 of 4.
    inner = (..., slice(64, 88), slice(64, 92))
    torch.testing.assert_close(whole[..., 4:156, 8:164][inner], tile[inner], atol=1e-5, rtol=1e-5)


def test_the_noise_level_matters():
    net, x = excited(TINY), torch.ones(1, 3, 8, 8)
    assert not torch.allclose(net(x, torch.tensor([0.1])), net(x, torch.tensor([0.2])))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "values",
    [
        {"channels": ()},
        {"channels": [4, 8]},
        {"channels": (0,)},
        {"channels": (10**9,)},
        {"channels": ("8",)},
        {"channels": (4.0,)},
        {"blocks": True},
        {"blocks": 0},
        {"unshuffle": -1},
        {"embedding": None},
    ],
)
def test_impossible_forms_are_refused(values):
    with pytest.raises(SettingsError, match="expected"):
        UNetConfig(**values)


def test_the_linear_path_is_linear_in_the_input_at_each_noise_level():
    net = seeded_unet(UNetConfig((4, 8), 1, 2, 8, linear=5), 0)
    assert not net(torch.rand(1, 3, 8, 12), torch.zeros(1)).any()
    torch.nn.init.normal_(net.linear.out.weight, generator=torch.Generator().manual_seed(1))
    a, b = torch.randn(2, 1, 3, 8, 12, generator=torch.Generator().manual_seed(2))
    answers = {}
    for level in (0.0, 1.0):
        F = partial(net, level=torch.full((1,), level))
        torch.testing.assert_close(F(2 * a - b), 2 * F(a) - F(b), atol=1e-4, rtol=1e-4)
        answers[level] = F(a)
    assert not torch.allclose(answers[0.0], answers[1.0])


@pytest.mark.parametrize("linear", [-1, True, 5000])
def test_an_impossible_linear_path_is_refused(linear):
    with pytest.raises(SettingsError, match="linear = "):
        UNetConfig(linear=linear)
