"""SR3's network: its size, its first weights, what it listens to, and that its options agree."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sfumato.errors import SettingsError, ShapeError
from sfumato.nn import PRESETS, SR3, SR3Config, seeded_sr3
from sfumato.nn.sr3_blocks import ResBlock, SelfAttention, group_norm, resample

TINY = PRESETS["tiny"]
CLASSES = replace(TINY, n_classes=3)
FILM = replace(TINY, entrance="film")


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def excited(config, seed=0, **options):
    """A network none of whose weights is 0."""
    net = seeded_sr3(config, seed, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return net


def n_parameters(config):
    with torch.device("meta"):
        return sum(p.numel() for p in SR3(config).parameters())


# --- form


@pytest.mark.parametrize(
    ("name", "published"),
    [("16-128", 550e6), ("64-256", 625e6), ("64-512", 625e6), ("256-1024", 150e6)],
)
def test_the_papers_networks_have_the_papers_size(name, published):
    assert n_parameters(PRESETS[name]) == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize("name", ["16-128", "64-256", "64-512", "256-1024"])
def test_the_papers_networks_attend_at_16_and_end_at_8(name):
    large = int(name.split("-")[1])
    assert large // PRESETS[name].stride == 8
    assert [large // factor for factor in PRESETS[name].attention] == [16]


def test_the_small_preset_fits_a_modest_gpu():
    assert 30e6 < n_parameters(PRESETS["gpu-small"]) < 60e6


@settings(max_examples=12, deadline=None)
@given(
    channels=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    blocks=st.integers(1, 2),
    entrance=st.sampled_from(["concatenation", "film"]),
    condition=st.integers(0, 2),
    rows=st.integers(1, 2),
    cols=st.integers(1, 3),
    data=st.data(),
)
def test_any_form_keeps_the_shape(channels, blocks, entrance, condition, rows, cols, data):
    factors = [1 << level for level in range(len(channels))]
    config = SR3Config(
        channels,
        blocks,
        channels_in=3 + condition,
        attention=tuple(data.draw(st.lists(st.sampled_from(factors), unique=True))),
        embedding=4,
        entrance=entrance,
        head_width=2,
    )
    x = torch.zeros(2, 3, rows * config.stride, cols * config.stride)
    c = torch.zeros(2, condition, *x.shape[2:]) if condition else None
    assert seeded_sr3(config, 0)(x, torch.zeros(2), c).shape == x.shape


def test_attention_stands_where_it_was_asked_for():
    net = SR3(SR3Config((8, 8, 16), 2, attention=(2,), embedding=4, head_width=8))
    down, mid, up = (
        [(s.factor, s.attention is not None) for s in stages if s.res.resampling == "keep"]
        for stages in (net.down, net.mid, net.up)
    )
    assert down == [(1, False)] * 2 + [(2, True)] * 2 + [(4, False)] * 2
    assert mid == [(4, True), (4, False)]
    assert up == [(4, False)] * 3 + [(2, True)] * 3 + [(1, False)] * 3


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "values",
    [
        {"channels": ()},
        {"channels": [8, 16]},
        {"channels": (0, 8)},
        {"channels": (8.0,)},
        {"blocks": 0},
        {"blocks": True},
        {"channels_in": 2},
        {"channels_out": 0},
        {"attention": (3,)},
        {"attention": (4,)},
        {"attention": 2},
        {"embedding": None},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"dropout": "much"},
        {"n_classes": 0},
        {"entrance": "sideways"},
        {"head_width": 0},
    ],
)
def test_impossible_forms_are_refused(values):
    with pytest.raises(SettingsError, match="expected"):
        replace(TINY, **values)


# --- first weights


@pytest.mark.parametrize("config", [TINY, FILM, CLASSES])
def test_weights_are_a_function_of_the_seed_alone(config):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a, b, c = (seeded_sr3(config, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])
    assert torch.equal(a["emb.freq"], SR3(config).emb.freq)


@pytest.mark.parametrize("config", [TINY, FILM])
@pytest.mark.parametrize("make", [SR3, lambda config: seeded_sr3(config, 0)])
def test_a_new_network_answers_zero(config, make):
    x = draws(1, 3, 8, 12)
    assert not make(config)(x, torch.zeros(1), x).any()


def test_every_weight_of_an_excited_network_learns():
    net = excited(replace(CLASSES, entrance="film"))
    x = draws(2, 3, 8, 8)
    net(x, torch.tensor([0.1, 0.3]), x.flip(3), torch.tensor([0, 2])).square().sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


# --- pieces


def test_a_new_block_is_its_skip_divided_by_the_root_of_two():
    block = seeded_sr3(TINY, 0).down[0].res
    x = draws(1, 8, 4, 4)
    torch.testing.assert_close(block(x, draws(1, 16)), x / 2**0.5)


@pytest.mark.parametrize("c_out", [32, 48])
def test_a_block_keeps_the_variance_of_what_it_adds(c_out):
    class Noise(nn.Module):
        def forward(self, h):
            return draws(*h.shape, seed=1)

    block = ResBlock(32, c_out, 4)
    block.conv2 = Noise()
    if c_out != 32:
        nn.init.uniform_(
            block.skip.weight,
            -((3 / 32) ** 0.5),
            (3 / 32) ** 0.5,
            generator=torch.Generator().manual_seed(2),
        )
        nn.init.zeros_(block.skip.bias)
    out = block(draws(4, 32, 32, 32), draws(4, 4))
    assert out.var().item() == pytest.approx(1, abs=0.05)


def test_halving_averages_and_doubling_repeats():
    x = draws(1, 2, 4, 6)
    expected = x.unflatten(3, (3, 2)).unflatten(2, (2, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(resample(x, "halve"), expected)
    torch.testing.assert_close(resample(resample(x, "double"), "halve"), x)
    assert resample(x, "keep") is x


@pytest.mark.parametrize("resampling", ["halve", "double"])
def test_a_block_changes_size_on_both_ways(resampling):
    block = ResBlock(8, 8, 4, resampling=resampling)
    x, e = draws(1, 8, 4, 4), draws(1, 4)
    h = block.conv1(resample(nn.functional.silu(block.norm1(x)), resampling))
    h = block.norm2(h + block.emb(e)[:, :, None, None])
    expected = (resample(x, resampling) + block.conv2(nn.functional.silu(h))) / 2**0.5
    torch.testing.assert_close(block(x, e), expected)


@pytest.mark.parametrize(("channels", "heads"), [(16, 2), (12, 1)])
def test_attention_is_the_formula(channels, heads):
    layer = SelfAttention(channels, head_width=8)
    x = draws(2, channels, 3, 5)
    pixels = layer.norm(x).flatten(2).mT
    q, k, v = layer.qkv(pixels).chunk(3, dim=2)
    seen = []
    for q_i, k_i, v_i in zip(*(t.chunk(heads, dim=2) for t in (q, k, v)), strict=True):
        weights = (q_i @ k_i.mT / (channels // heads) ** 0.5).softmax(dim=2)
        seen.append(weights @ v_i)
    h = layer.proj(torch.cat(seen, dim=2)).mT.unflatten(2, (3, 5))
    torch.testing.assert_close(layer(x), (x + h) / 2**0.5)


@given(channels=st.integers(1, 2048))
def test_groups_divide_the_channels(channels):
    groups = group_norm(channels).num_groups
    assert channels % groups == 0
    assert groups == 1 or (groups <= 32 and channels // groups >= 4)


# --- what it listens to


@pytest.mark.parametrize("config", [TINY, FILM])
def test_noise_level_and_condition_matter(config):
    net, x, level = excited(config), draws(1, 3, 8, 8), torch.tensor([0.1])
    out = net(x, level, x)
    assert not torch.allclose(out, net(x, torch.tensor([0.2]), x))
    assert not torch.allclose(out, net(x, level, -x))


def test_the_condition_comes_before_the_image():
    net, x, condition = excited(TINY), draws(1, 3, 8, 8), draws(1, 3, 8, 8, seed=1)
    seen = []
    net.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(x, torch.zeros(1), condition)
    assert torch.equal(seen[0], torch.cat([condition, x], dim=1))


def test_film_leaves_the_image_alone_and_reaches_every_block():
    net, x = excited(FILM), draws(1, 3, 8, 8)
    assert net.head.in_channels == 3
    assert all(s.res.film is not None for s in (*net.down, *net.mid, *net.up))
    guides = net.guide(x)
    assert {factor: tuple(g.shape[2:]) for factor, g in guides.items()} == {1: (8, 8), 2: (4, 4)}


def test_no_label_is_the_class_after_the_last():
    net, x, level = excited(CLASSES), draws(2, 3, 8, 8), torch.tensor([0.1, 0.1])
    none = net(x, level, x)
    torch.testing.assert_close(net(x, level, x, torch.tensor([3, 3])), none)
    some = net(x, level, x, torch.tensor([3, 0]))
    torch.testing.assert_close(some[0], none[0])
    assert not torch.allclose(some[1], none[1])


def test_images_of_a_batch_do_not_mix():
    net, x = excited(CLASSES), draws(3, 3, 8, 12)
    level, label = torch.tensor([0.1, -0.4, 0.9]), torch.tensor([2, 3, 0])
    whole = net(x, level, x.flip(3), label)
    for i in range(3):
        one = slice(i, i + 1)
        alone = net(x[one], level[one], x[one].flip(3), label[one])
        torch.testing.assert_close(whole[one], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "condition", "label", "config"),
    [
        ((1, 3, 7, 8), (1, 3, 7, 8), None, TINY),
        ((1, 1, 8, 8), (1, 3, 8, 8), None, TINY),
        ((3, 8, 8), None, None, TINY),
        ((1, 3, 8, 8), None, None, TINY),
        ((1, 3, 8, 8), (1, 3, 4, 4), None, FILM),
        ((1, 3, 8, 8), (2, 3, 8, 8), None, FILM),
        ((1, 3, 8, 8), (1, 3, 8, 8), None, replace(TINY, channels_in=3)),
        ((1, 3, 8, 8), (1, 3, 8, 8), (1,), TINY),
        ((1, 3, 8, 8), (1, 3, 8, 8), (2,), CLASSES),
    ],
)
def test_what_does_not_fit_is_refused(shape, condition, label, config):
    net = SR3(config)
    c = None if condition is None else torch.zeros(condition)
    chosen = None if label is None else torch.zeros(label, dtype=torch.long)
    with pytest.raises(ShapeError, match="expected"):
        net(torch.zeros(shape), torch.zeros(1), c, chosen)


# --- how it is computed


@pytest.mark.parametrize("config", [replace(TINY, dropout=0.3), FILM])
def test_checkpointing_gives_the_same_gradients(config):
    gradients = []
    for checkpointing in (False, True):
        net = excited(config, checkpointing=checkpointing).train()
        x = draws(2, 3, 8, 8).requires_grad_()
        torch.manual_seed(5)  # Dropout has torch's own seed.
        net(x, torch.tensor([0.1, 0.2]), x.flip(2)).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in net.parameters())])
    for kept, computed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, computed)


def test_dropout_is_for_training_only():
    net, x = excited(replace(TINY, dropout=0.5)), draws(1, 3, 8, 8)
    torch.manual_seed(0)
    a, b = (net.train()(x, torch.zeros(1), x) for _ in range(2))
    assert not torch.allclose(a, b)
    a, b = (net.eval()(x, torch.zeros(1), x) for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize("config", [TINY, FILM])
def test_channels_last_changes_nothing(config):
    net, x = excited(config), draws(2, 3, 8, 12)
    plain = net(x, torch.zeros(2), x)
    last = net.to(memory_format=torch.channels_last)
    y = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last(y, torch.zeros(2), y), plain, atol=1e-5, rtol=1e-4)


def test_bfloat16_stays_near():
    net, x = excited(TINY).eval(), draws(1, 3, 8, 8)
    with torch.no_grad():
        exact = net(x, torch.tensor([0.7]), x)
        with torch.autocast("cpu", torch.bfloat16):
            near = net(x, torch.tensor([0.7]), x)
    assert (near.float() - exact).abs().max() < 0.05 * exact.abs().max()
