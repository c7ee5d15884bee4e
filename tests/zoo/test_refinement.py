"""Foreign SR3 checkpoints: the same numbers as theirs, and no other file passes for one."""

import json
import math
import os
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from refinement_layout import (
    LINEAR,
    TINY,
    options_text,
    random_network,
    state_of,
    write_checkpoint,
)
from sfumato.diffusion import Chain
from sfumato.errors import ModelError, SettingsError, ShapeError
from sfumato.io import load_checkpoint, save_checkpoint
from sfumato.nn.refinement import RefinementConfig, RefinementUNet
from sfumato.samplers import DDPM, sample, walk
from sfumato.zoo.refinement import (
    BetaSchedule,
    build_network,
    convert,
    parse_options,
    read_options,
    their_denoiser,
    their_sigmas,
)
from sfumato.zoo.refinement_options import strip_comments

FACES = RefinementConfig(dropout=0.2)
LARGE = RefinementConfig(64, (1, 2, 4, 8, 16), 1, (), groups=16, image_size=512)


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- the network


@pytest.mark.parametrize(("config", "n"), [(FACES, 97_807_491), (LARGE, 155_334_339)])
def test_their_networks_have_their_size(config, n):
    with torch.device("meta"):
        network = RefinementUNet(config)
    assert sum(p.numel() for p in network.parameters()) == n


def test_their_checkpoint_of_faces_holds_374_tensors():
    with torch.device("meta"):
        network = RefinementUNet(FACES)
    state = state_of(network)
    assert len(state) == 374
    assert len(state) - len(network.state_dict()) == 12
    assert "denoise_fn.downs.0.weight" in state
    assert state["denoise_fn.downs.0.weight"].shape == (64, 6, 3, 3)
    block = "denoise_fn.ups.0.res_block."
    assert {n.removeprefix(block).rpartition(".")[0] for n in state if n.startswith(block)} == {
        "noise_func.noise_func.0",
        "block1.block.0",
        "block1.block.3",
        "block2.block.0",
        "block2.block.3",
        "res_conv",
    }


class Restated:
    """Their network once more, as formulas of the tensors by name."""

    def __init__(self, config, state):
        self.config, self.state = config, state

    def conv(self, name, x, stride=1):
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        return functional.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2)

    def linear(self, name, x):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, name, x):
        grouped = x.unflatten(1, (self.config.groups, -1))
        mean = grouped.mean(dim=(2, 3, 4), keepdim=True)
        variance = (grouped - mean).square().mean(dim=(2, 3, 4), keepdim=True)
        normal = ((grouped - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return normal * weight[:, None, None] + bias[:, None, None]

    def half(self, name, x):
        x = self.norm(f"{name}.block.0", x)
        return self.conv(f"{name}.block.3", x / (1 + torch.exp(-x)))

    def stage(self, name, x, e):
        res = f"{name}.res_block"
        noise = self.linear(f"{res}.noise_func.noise_func.0", e)
        h = self.half(f"{res}.block2", self.half(f"{res}.block1", x) + noise[:, :, None, None])
        straight = f"{res}.res_conv.weight" not in self.state
        h = h + (x if straight else self.conv(f"{res}.res_conv", x))
        return self.attention(f"{name}.attn", h) if f"{name}.attn.qkv.weight" in self.state else h

    def attention(self, name, x):
        b, c, height, width = x.shape
        qkv = self.conv(f"{name}.qkv", self.norm(f"{name}.norm", x)).reshape(b, 3, c, -1)
        q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]
        seen = torch.zeros_like(v)
        for i in range(height * width):
            likeness = (q[:, :, i, None] * k).sum(dim=1) / math.sqrt(c)
            share = likeness.exp() / likeness.exp().sum(dim=1, keepdim=True)
            seen[:, :, i] = (share[:, None] * v).sum(dim=2)
        return x + self.conv(f"{name}.out", seen.reshape(b, c, height, width))

    def encoding(self, level):
        n = self.config.width // 2
        phases = [[t * 10 ** (-4 * k / n) for k in range(n)] for t in level.tolist()]
        return torch.tensor([[*map(math.sin, row), *map(math.cos, row)] for row in phases])

    def __call__(self, x, level):
        h = self.linear("noise_level_mlp.1", self.encoding(level))
        e = self.linear("noise_level_mlp.3", h / (1 + torch.exp(-h)))
        kept, levels = [self.conv("downs.0", x)], len(self.config.multipliers)
        i = 1
        for level in range(levels):
            for _ in range(self.config.blocks):
                kept.append(self.stage(f"downs.{i}", kept[-1], e))
                i += 1
            if level < levels - 1:
                kept.append(self.conv(f"downs.{i}.conv", kept[-1], stride=2))
                i += 1
        h = self.stage("mid.1", self.stage("mid.0", kept[-1], e), e)
        i = 0
        for level in reversed(range(levels)):
            for _ in range(self.config.blocks + 1):
                h = self.stage(f"ups.{i}", torch.cat([h, kept.pop()], dim=1), e)
                i += 1
            if level:
                h = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                h = self.conv(f"ups.{i}.conv", h)
                i += 1
        return self.half("final_conv", h)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, multipliers=(2, 1, 2), blocks=2, attention=(16, 4), groups=8),
        replace(TINY, attention=(), channels_in=3, multipliers=(1,)),
    ],
)
def test_the_network_computes_what_theirs_does(config):
    network = random_network(config)
    x = draws(2, config.channels_in, 2 * config.stride, 3 * config.stride)
    level = torch.tensor([0.02, 0.97])
    with torch.no_grad():
        restated = Restated(config, network.state_dict())(x, level)
        torch.testing.assert_close(network(x, level), restated, atol=1e-5, rtol=1e-5)


def test_attention_is_counted_from_the_image_size_down_and_from_the_bottom_up():
    attended = replace(TINY, image_size=100, attention=(50, 25), multipliers=(1,) * 4).attended()
    assert attended == ([False, True, True, False], [False, False, False, False])
    attended = replace(TINY, image_size=100, attention=(24, 12), multipliers=(1,) * 4).attended()
    assert attended == ([False, False, False, True], [False, False, True, True])


def test_an_input_that_does_not_fit_is_refused():
    for shape in ((1, 3, 8, 8), (1, 6, 8, 7), (6, 8, 8)):
        with pytest.raises(ShapeError, match="multiples of 2"):
            random_network()(torch.zeros(shape), torch.ones(1))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "values",
    [
        {"width": 7},
        {"width": 6},
        {"multipliers": ()},
        {"multipliers": (0.5,)},
        {"blocks": 0},
        {"groups": 3},
        {"channels_in": 2},
        {"attention": None},
        {"dropout": 1.0},
        {"image_size": "16"},
    ],
)
def test_impossible_forms_are_refused(values):
    with pytest.raises(SettingsError, match="expected"):
        replace(TINY, **values)


# --- the options


def test_options_are_read_as_they_were_meant():
    val = LINEAR | {"n_timestep": 7}
    options = read_options(options_text(TINY, val=val))
    assert options.network == TINY
    assert options.train == BetaSchedule(kind="linear", n_steps=20, first=1e-4, last=0.4)
    assert options.inference.n_steps == 7
    assert parse_options(options.model_dump(mode="json"), Path("x")) == options


def test_what_old_options_leave_out():
    text = json.loads(strip_comments(options_text(replace(TINY, width=32, groups=32))))
    del text["model"]["unet"]["norm_groups"]
    del text["model"]["beta_schedule"]["val"]
    options = read_options(json.dumps(text))
    assert options.groups == 32
    assert options.inference == options.train


@given(st.text(alphabet='/"\\\n ab', max_size=30))
def test_a_string_survives_the_comments(text):
    line = json.dumps({"a": text})
    assert json.loads(strip_comments(f'// b "\n{line} // {line}\n// {line}')) == {"a": text}


@pytest.mark.parametrize("text", ["// nothing", "", "// a\n  // b\n", "{", "[" * 100_000, '"//'])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ModelError, match="no JSON"):
        read_options(text)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"which_model_G": "ddpm"}, "model.which_model_G"),
        ({"unet": 3}, "model.unet"),
        ({"beta_schedule": {"train": LINEAR | {"schedule": "magic"}}}, "train.schedule"),
        ({"beta_schedule": {"train": LINEAR | {"linear_end": 1.5}}}, "train.linear_end"),
        ({"diffusion": {"image_size": 16, "conditional": False}}, "conditional false"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(changes, told):
    options = json.loads(strip_comments(options_text()))
    options["model"] |= changes
    with pytest.raises(ModelError, match=told):
        read_options(json.dumps(options))


@pytest.mark.parametrize(
    ("unet", "told"),
    [
        ({"inner_channel": 8.5}, "inner_channel"),
        ({"norm_groups": 3}, "multiples of the 3 groups"),
        ({"channel_multiplier": []}, "multipliers"),
        ({"attn_res": 16}, "attn_res"),
        ({"dropout": -1}, "dropout"),
    ],
)
def test_a_form_that_does_not_fit_is_refused_by_name(unet, told):
    with pytest.raises(ModelError, match=told):
        read_options(options_text(**unet))


# --- the schedules


def restated_betas(kind, n, a, b):
    """Their kinds, one number at a time."""

    def ramp(first, last, m):
        return [first + (last - first) * i / (m - 1) for i in range(m)]

    def square_cosine(t):
        return math.cos((t / n + 0.008) / 1.008 * math.pi / 2) ** 2

    return {
        "linear": lambda: ramp(a, b, n),
        "quad": lambda: [s**2 for s in ramp(a**0.5, b**0.5, n)],
        "const": lambda: [b] * n,
        "jsd": lambda: [1 / (n - i) for i in range(n)],
        "warmup10": lambda: ramp(a, b, n // 10) + [b] * (n - n // 10),
        "warmup50": lambda: ramp(a, b, n // 2) + [b] * (n - n // 2),
        "cosine": lambda: [
            min(1 - square_cosine(t + 1) / square_cosine(t), 0.999) for t in range(n)
        ],
    }[kind]()


@pytest.mark.parametrize(
    "kind", ["linear", "quad", "const", "jsd", "warmup10", "warmup50", "cosine"]
)
def test_schedules_are_theirs_in_float64(kind):
    gammas = BetaSchedule(kind=kind, n_steps=40, first=1e-4, last=0.02).gammas()
    assert gammas.dtype == torch.float64
    gamma, expected = 1.0, []
    for beta in restated_betas(kind, 40, 1e-4, 0.02):
        gamma *= 1 - beta
        expected.append(gamma)
    torch.testing.assert_close(
        gammas, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15
    )


def test_sigmas_decrease_to_nothing():
    val = {"schedule": "linear", "n_timestep": 2000, "linear_start": 1e-6, "linear_end": 1e-2}
    sigmas = their_sigmas(read_options(options_text(val=val)))
    assert len(sigmas) == 2001
    assert all(a > b for a, b in pairwise(sigmas))
    assert sigmas[-2] == pytest.approx(1e-3, rel=1e-6)
    assert sigmas[-1] == 0


def test_infinite_noise_is_refused():
    options = read_options(options_text(val=LINEAR | {"schedule": "jsd"}))
    with pytest.raises(SettingsError, match="jsd"):
        their_sigmas(options)


# --- the checkpoint


def test_a_checkpoint_comes_over_and_answers_the_same(tmp_path):
    network = random_network(seed=3)
    tensors, config = convert(*write_checkpoint(tmp_path, seed=3))
    path = tmp_path / "ours.safetensors"
    save_checkpoint(path, tensors, config)
    tensors, config = load_checkpoint(path)
    ours = build_network(parse_options(config, path), tensors)
    x, level = draws(2, 6, 8, 12), torch.tensor([0.3, 0.9])
    assert torch.equal(ours(x, level), network(x, level))
    assert not ours.training
    assert not any(p.requires_grad for p in ours.parameters())


def test_state_dicts_of_every_dress_are_read(tmp_path):
    pth, options = write_checkpoint(tmp_path)
    expected, _ = convert(pth, options)
    state = OrderedDict(state_of(random_network()))
    state._metadata = OrderedDict({"": {"version": 1}})
    for zipped in (True, False):
        torch.save(state, pth, _use_new_zipfile_serialization=zipped)
        tensors, _ = convert(pth, options)
        assert all(torch.equal(tensors[n], expected[n]) for n in expected)


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_is_run(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    pth, options = write_checkpoint(tmp_path)
    harmful = state_of(random_network()) | {"betas": Harm()}
    torch.save(harmful, pth, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="could run any code"):
        convert(pth, options)
    assert not Path("harm").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_refused(tmp_path, zipped):
    pth, options = write_checkpoint(tmp_path)
    torch.save(state_of(random_network()), pth, _use_new_zipfile_serialization=zipped)
    whole = pth.read_bytes()
    for n in (0, 1, 10, 100, 1000, len(whole) // 2, len(whole) - 200, len(whole) - 1):
        pth.write_bytes(whole[:n])
        with pytest.raises(ModelError, match="damaged, cut short") as caught:
            convert(pth, options)
        assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_changed_byte_is_no_crash(tmp_path, zipped):
    pth, options = write_checkpoint(tmp_path)
    torch.save(state_of(random_network()), pth, _use_new_zipfile_serialization=zipped)
    whole = pth.read_bytes()
    for at in [*range(0, 60, 3), *range(60, 3000, 300)]:
        pth.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with suppress(ModelError):
            convert(pth, options)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"some text", "damaged"),
        ([1, 2], "holds a list"),
        ({}, "holds a dict"),
        ({"optimizer": {}, "iter": 3}, "optimiser"),
        ({"betas": torch.zeros(3), "names": "x"}, "no weights: names"),
        ({"betas": torch.zeros(3, dtype=torch.long)}, "no weights: betas"),
    ],
)
def test_other_files_are_refused(tmp_path, value, told):
    pth, options = write_checkpoint(tmp_path)
    if isinstance(value, bytes):
        pth.write_bytes(value)
    else:
        torch.save(value, pth)
    with pytest.raises(ModelError, match=told):
        convert(pth, options)


def test_missing_files_are_named(tmp_path):
    pth, options = write_checkpoint(tmp_path)
    with pytest.raises(ModelError, match="there is no checkpoint"):
        convert(tmp_path / "other.pth", options)
    with pytest.raises(ModelError, match="there are no options"):
        convert(pth, tmp_path / "other.json")
    with pytest.raises(ModelError, match="cannot be read as text"):
        convert(pth, pth)


def test_tensors_that_do_not_fit_are_named(tmp_path):
    pth, options = write_checkpoint(tmp_path)
    state = state_of(random_network())
    del state["denoise_fn.mid.0.attn.out.bias"], state["posterior_mean_coef2"]
    state["denoise_fn.mid.1.attn.out.bias"] = torch.zeros(16)
    state["denoise_fn.downs.0.bias"] = torch.zeros(9)
    torch.save(state, pth)
    with pytest.raises(ModelError) as caught:
        convert(pth, options)
    told = str(caught.value)
    assert "2 missing: posterior_mean_coef2, denoise_fn.mid.0.attn.out.bias" in told or (
        "2 missing: denoise_fn.mid.0.attn.out.bias, posterior_mean_coef2" in told
    )
    assert "1 unexpected: denoise_fn.mid.1.attn.out.bias" in told
    assert "denoise_fn.downs.0.bias (9,) instead of (8,)" in told


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    pth, options = write_checkpoint(tmp_path)
    state = state_of(random_network())
    state["denoise_fn.mid.0.attn.out.bias"][3] = math.nan
    torch.save(state, pth)
    with pytest.raises(ModelError, match="no numbers: denoise_fn"):
        convert(pth, options)


def test_another_schedule_is_refused(tmp_path):
    pth, options = write_checkpoint(tmp_path)
    for changes in ({"linear_end": 0.3}, {"n_timestep": 21}):
        other = LINEAR | changes
        options.write_text(options_text(train=other, val=other), encoding="utf-8")
        with pytest.raises(ModelError, match="another schedule"):
            convert(pth, options)
    # While theirs validates, the buffers are those of the other schedule.
    options.write_text(options_text(train=LINEAR | {"n_timestep": 21}), encoding="utf-8")
    convert(pth, options)


def test_tensors_of_another_form_build_nothing():
    options = read_options(options_text())
    state = random_network(replace(TINY, width=16)).state_dict()
    with pytest.raises(ModelError, match="do not fit"):
        build_network(options, state)


def test_another_kind_of_checkpoint_is_refused():
    with pytest.raises(ModelError, match="kind 'prior'"):
        parse_options({"kind": "prior"}, Path("x.safetensors"))
    config = read_options(options_text()).model_dump(mode="json") | {"width": 7}
    with pytest.raises(ModelError, match="impossible"):
        parse_options(config, Path("x.safetensors"))


# --- the denoiser and the walk


def test_the_denoiser_is_the_formula():
    network, condition, x_0 = random_network(), draws(1, 3, 8, 8), draws(2, 3, 8, 8, seed=1)
    gamma = 0.6
    y_t = math.sqrt(gamma) * x_0 + math.sqrt(1 - gamma) * draws(2, 3, 8, 8, seed=2)
    level = torch.full((2,), math.sqrt(gamma))
    eps = network(torch.cat([condition.expand(2, -1, -1, -1), y_t], dim=1), level)
    expected = ((y_t - math.sqrt(1 - gamma) * eps) / math.sqrt(gamma)).clamp(-1, 1)
    sigma = math.sqrt((1 - gamma) / gamma)
    answer = their_denoiser(network, condition)(y_t / math.sqrt(gamma), sigma)
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-5)
    each = their_denoiser(network, condition)(y_t / math.sqrt(gamma), torch.tensor([sigma, 3.0]))
    torch.testing.assert_close(each[:1], expected[:1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(each[1:], expected[1:], atol=1e-3)


def test_the_denoiser_takes_any_size_and_follows_the_input():
    D = their_denoiser(random_network(), draws(1, 3, 5, 7))
    answer = D(draws(2, 3, 5, 7).double(), 0.5)
    assert answer.shape == (2, 3, 5, 7)
    assert answer.dtype == torch.float64


def test_a_generator_needs_no_condition():
    network = random_network(replace(TINY, channels_in=3))
    assert their_denoiser(network)(draws(1, 3, 8, 8), 0.5).shape == (1, 3, 8, 8)


def test_a_condition_that_does_not_fit_is_refused():
    network = random_network()
    for condition in (None, draws(1, 1, 8, 8)):
        with pytest.raises(ShapeError, match="channels"):
            their_denoiser(network, condition)
    for shape in ((1, 3, 8, 4), (3, 3, 8, 8)):
        with pytest.raises(ShapeError, match="same size"):
            their_denoiser(network, draws(*shape))(draws(2, 3, 8, 8), 0.5)


def their_loop(network, condition, betas, noise):
    """Their sampling, in its own form: y_T to y_0, with the posterior's mean and variance."""
    gammas = [1.0]
    for beta in betas:
        gammas.append(gammas[-1] * (1 - beta))
    T = len(betas)
    y = noise(0)
    for t in range(T, 0, -1):
        g, g_before, alpha = gammas[t], gammas[t - 1], 1 - betas[t - 1]
        level = torch.full((len(y),), math.sqrt(g))
        eps = network(torch.cat([condition, y], dim=1), level)
        y_0 = (y / math.sqrt(g) - math.sqrt(1 / g - 1) * eps).clamp(-1, 1)
        mean = (
            math.sqrt(g_before) * (1 - alpha) / (1 - g) * y_0
            + math.sqrt(alpha) * (1 - g_before) / (1 - g) * y
        )
        variance = (1 - g_before) * (1 - alpha) / (1 - g)
        y = mean + (math.sqrt(variance) * noise(T - t + 1) if t > 1 else 0)
    return y


class Analytic(RefinementUNet):
    """Something crooked in the place of a network, so that 2000 steps take no time."""

    def forward(self, x, level):
        condition, y_t = x.chunk(2, dim=1)
        return torch.sin(2 * y_t + condition) * level[:, None, None, None] + 0.5 * y_t


@pytest.mark.parametrize(
    ("network", "val"),
    [
        (random_network(), LINEAR),
        (random_network(seed=1), LINEAR | {"schedule": "warmup50"}),
        (
            Analytic(TINY),
            {"schedule": "linear", "n_timestep": 2000, "linear_start": 1e-6, "linear_end": 1e-2},
        ),
    ],
)
@torch.no_grad()
def test_our_sampler_walks_exactly_as_theirs(network, val):
    options = read_options(options_text(val=val))
    condition = draws(2, 3, 8, 12, seed=9).clamp(-1, 1)
    betas = restated_betas(
        val["schedule"], val["n_timestep"], val["linear_start"], val["linear_end"]
    )

    def noise(draw):
        return draws(2, 3, 8, 12, seed=100 + draw)

    theirs = their_loop(network, condition, betas, noise)
    gamma_T = options.inference.gammas()[-1].item()
    *_, (_, ours) = sample(
        their_denoiser(network, condition),
        DDPM(),
        [Chain(())] * 2,
        walk(DDPM(), their_sigmas(options)),
        x_T=noise(0) / math.sqrt(gamma_T),
        noise=noise,
    )
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
