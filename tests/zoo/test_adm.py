"""Guided-diffusion checkpoints: the published network's numbers, and no other file passes."""

import json
import subprocess
import sys

import pytest
import torch

from adm_reference import Reference
from sfumato.diffusion.schedule import cosine_alpha_bar, linear_alpha_bar, sigma_of
from sfumato.errors import ModelError, SettingsError
from sfumato.io import save_checkpoint
from sfumato.testing import adm_state_dict
from sfumato.zoo import load_prior, native_side
from sfumato.zoo.adm import convert
from sfumato.zoo.adm_layout import read_form
from sfumato.zoo.source import Source

SMALL = {"width": 32, "mult": (1, 2, 2), "blocks": 1, "attention": (2,)}
FORMS = {
    "classes": SMALL | {"n_classes": 7},
    "fewer levels, no attention on any": SMALL | {"mult": (1, 2), "attention": ()},
    "finest attended, two blocks": SMALL | {"mult": (1, 2), "blocks": 2, "attention": (1, 2)},
    "narrow first level, as 512": SMALL | {"width": 64, "mult": (0.5, 1), "attention": (2,)},
    "convolutions, sums, no variance": SMALL
    | {"updown": False, "scale_shift": False, "learn_sigma": False},
}


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def written(tmp_path, options=None, name="tiny.pt", **form):
    path = tmp_path / name
    torch.save(adm_state_dict(**SMALL | form), path)
    path.with_suffix(".json").write_text(json.dumps({"num_heads": 2} | (options or {})))
    return path


def reference(path, form, heads=lambda c: 2, **more):
    state = torch.load(path, weights_only=True)
    keys = ("mult", "blocks", "attention")
    return Reference(state, **{k: form[k] for k in keys}, heads=heads, **more)


@pytest.mark.parametrize("name", FORMS)
def test_the_noise_is_the_published_networks(tmp_path, name):
    form = FORMS[name]
    path = written(tmp_path, **form)
    prior = load_prior(path, precision="fp32")
    sigma = sigma_of(linear_alpha_bar())[[30, 800]]
    t = torch.tensor([30.0, 800.0])
    label = torch.tensor([3, 6]) if "n_classes" in form else None
    x_t = draws(2, 3, 8, 16) * sigma.float().view(-1, 1, 1, 1)
    a = (1 + sigma.float() ** 2).rsqrt().view(-1, 1, 1, 1)
    with torch.no_grad():
        eps = reference(path, form).unet(a * x_t, t, label)[:, :3]
        x_0 = prior.denoiser(x_t, sigma, label)
    mine = (x_t - x_0) / sigma.float().view(-1, 1, 1, 1)
    assert eps.std() > 0.3
    torch.testing.assert_close(mine, eps, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "heads", "new_order"),
    [
        ({"num_heads": 4}, lambda c: 4, False),
        ({"num_heads": None, "num_head_channels": 16}, lambda c: c // 16, False),
        ({"num_heads": 2, "use_new_attention_order": True}, lambda c: 2, True),
    ],
)
def test_heads_and_their_order_are_as_said(tmp_path, options, heads, new_order):
    path = written(tmp_path, options)
    net = load_prior(path, precision="fp32").denoiser.net
    x, t = draws(1, 3, 8, 8), torch.tensor([12.5])
    with torch.no_grad():
        expected = reference(path, SMALL, heads, new_order=new_order).unet(x, t)[:, :3]
        other = reference(path, SMALL, heads, new_order=not new_order).unet(x, t)[:, :3]
        torch.testing.assert_close(net(x, t), expected, atol=1e-4, rtol=1e-4)
    assert (expected - other).abs().max() > 1e-3


def test_any_size_and_bf16(tmp_path):
    path = written(tmp_path)
    exact = load_prior(path, precision="fp32").denoiser
    rounded = load_prior(path, precision="bf16").denoiser
    x_t = draws(1, 3, 13, 18)
    with torch.no_grad():
        difference = rounded(x_t, 1.0) - exact(x_t, 1.0)
    assert 0 < difference.square().mean().sqrt() < 0.05
    assert rounded.net.unet.mid_block.resnets[0].conv1.weight.dtype == torch.bfloat16


def test_gradients_flow_to_the_image_and_not_to_weights(tmp_path):
    prior = load_prior(written(tmp_path), precision="fp32")
    x_t = draws(1, 3, 8, 8).requires_grad_()
    prior.denoiser(x_t, 0.5).square().sum().backward()
    assert x_t.grad is not None
    assert x_t.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in prior.denoiser.parameters())


def test_what_a_prior_says_of_itself(tmp_path):
    path = written(tmp_path, {"image_size": 30}, n_classes=4)
    prior = load_prior(path)
    assert (prior.tile, prior.stride, prior.classes) == (32, 4, ("0", "1", "2", "3"))
    assert prior.sigma_max == pytest.approx(float(sigma_of(linear_alpha_bar())[-1]))
    assert native_side(path) == 30
    for said in ("32, 64, 64", "4 classes", "2 heads", "linear schedule of 1000"):
        assert said in prior.card


@pytest.mark.parametrize(
    ("options", "alpha_bar"),
    [
        ({"noise_schedule": "cosine"}, cosine_alpha_bar(1000)),
        ({"diffusion_steps": 4000}, linear_alpha_bar(4000, 2.5e-5, 5e-3)),
    ],
)
def test_schedules_as_said(tmp_path, options, alpha_bar):
    assert load_prior(written(tmp_path, options)).sigma_max == pytest.approx(
        float(sigma_of(alpha_bar[-1])), rel=1e-6
    )


def test_rescaled_times_go_to_1000(tmp_path):
    plain = load_prior(written(tmp_path), precision="fp32")
    fine = load_prior(
        written(tmp_path, {"diffusion_steps": 2000, "rescale_timesteps": True}, "fine.pt"),
        precision="fp32",
    )
    x = draws(1, 3, 8, 8)
    sigma = float(sigma_of(linear_alpha_bar(2000, 5e-5, 1e-2))[1000])
    a = (1 + sigma**2) ** -0.5
    with torch.no_grad():
        eps = plain.denoiser.net(a * x, torch.tensor([500.0]))
        torch.testing.assert_close(fine.denoiser(x, sigma), x - sigma * eps, atol=1e-5, rtol=1e-5)


def test_classes_must_be_told_where_there_are_any(tmp_path):
    x = draws(1, 3, 8, 8)
    with pytest.raises(
        SettingsError, match=r"no class, .*; expected one of its 4 classes; give --class"
    ):
        load_prior(written(tmp_path, n_classes=4)).denoiser(x, 0.5)
    with pytest.raises(SettingsError, match="knows no classes"):
        load_prior(written(tmp_path)).denoiser(x, 0.5, torch.tensor([0]))


def test_a_converted_file_is_the_same_model(tmp_path):
    path = written(tmp_path, {"noise_schedule": "cosine"})
    out = tmp_path / "converted.safetensors"
    save_checkpoint(out, *convert(Source(path, "tiny")))
    first, second = load_prior(path, precision="fp32"), load_prior(out, precision="fp32")
    x = draws(1, 3, 9, 8)
    with torch.no_grad():
        assert torch.equal(first.denoiser(x, 0.7), second.denoiser(x, 0.7))
    assert first.sigma_max == second.sigma_max
    assert native_side(out) == first.tile


def test_wrapped_half_precision_and_foreign_safetensors_are_read(tmp_path):
    from safetensors.torch import save_file

    plain = load_prior(written(tmp_path), precision="fp32")
    state = {f"module.{n}": t.half() for n, t in adm_state_dict(**SMALL).items()}
    path = tmp_path / "other.safetensors"
    save_file(state, path)
    path.with_suffix(".json").write_text('{"num_heads": 2}')
    other = load_prior(path, precision="fp32")
    x = draws(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(
            other.denoiser(x, 0.5), plain.denoiser(x, 0.5), atol=0.02, rtol=0
        )


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda s: s.pop("middle_block.1.qkv.bias"), r"1 missing: middle_block.1.qkv.bias \(192"),
        (lambda s: s.pop("input_blocks.0.0.weight"), "input_blocks.0.0.weight is missing"),
        (lambda s: s.update(stranger=torch.zeros(3)), r"1 unexpected: stranger \(3,\)"),
        (
            lambda s: s.update({"out.0.weight": torch.zeros(3)}),
            r"1 of another shape: out.0.weight \(3,\) instead of \(32,\)",
        ),
        (
            lambda s: s["out.2.bias"].fill_(float("nan")),
            "holds weights that are no numbers: out.2.bias",
        ),
    ],
)
def test_damaged_checkpoints_are_refused_by_name(tmp_path, harm, told):
    state = adm_state_dict(**SMALL)
    harm(state)
    path = tmp_path / "harmed.pt"
    torch.save(state, path)
    with pytest.raises(ModelError, match=told):
        load_prior(path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_heads": 5}, "5 heads for an attention over 64 channels"),
        ({"num_heads": None, "num_head_channels": 48}, "heads of 48 channels"),
        ({"noise_schedule": "square"}, "noise_schedule"),
        ({"num_channels": 32}, "num_channels"),
        ({"classes": ["cat"]}, "1 names of classes"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, told):
    with pytest.raises(ModelError, match=told):
        load_prior(written(tmp_path, options))


def test_other_networks_of_theirs_are_no_priors(tmp_path):
    path = tmp_path / "classifier.pt"
    torch.save(adm_state_dict(**SMALL, n_classes=3, classifier_cells=2), path)
    with pytest.raises(ModelError, match="give it as --classifier"):
        load_prior(path)
    state = adm_state_dict(**SMALL)
    state["input_blocks.0.0.weight"] = torch.zeros(32, 6, 3, 3)
    torch.save(state, path)
    with pytest.raises(ModelError, match="an upsampler"):
        load_prior(path)


def test_without_diffusers_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ModelError, match=r"pip install 'sfumato\[models\]'"):
        load_prior(written(tmp_path))


def test_diffusers_is_imported_late():
    script = "import sys, sfumato.zoo.adm, sfumato.cli; assert 'diffusers' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("form", "side", "n"),
    [
        # 256x256_diffusion_uncond.pt holds 552,814,086 numbers.
        ({"width": 256, "mult": (1, 1, 2, 2, 4, 4), "blocks": 2}, 256, 552_814_086),
        ({"width": 256, "mult": (0.5, 1, 1, 2, 2, 4, 4), "blocks": 2}, 512, None),
        ({"width": 256, "mult": (1, 1, 2, 3, 4), "blocks": 2}, 128, None),
        ({"width": 192, "mult": (1, 2, 3, 4), "blocks": 3}, 64, None),
        ({"width": 128, "mult": (1, 1, 2, 2, 4, 4), "blocks": 1}, 256, None),
    ],
)
def test_published_forms_are_read_from_names_and_shapes(tmp_path, form, side, n):
    from sfumato.zoo.adm_layout import layout
    from sfumato.zoo.adm_options import ADMOptions

    shapes = {k: tuple(t.shape) for k, t in meta_state(side, **form).items()}
    found = read_form(shapes, tmp_path)
    assert layout(found) == shapes
    assert (found.side, found.blocks) == (side, form["blocks"])
    assert found.channels == tuple(int(form["width"] * m) for m in form["mult"])
    settled = ADMOptions().settled(found)
    assert settled.noise_schedule == ("cosine" if side == 64 else "linear")
    assert settled.use_new_attention_order == (side == 64)
    assert settled.heads(1024) == (4 if side == 128 else 16)
    assert n in (None, sum(torch.Size(s).numel() for s in shapes.values()))


def meta_state(side, **form):
    """A state dict without memory: the maker's, with its draws replaced."""
    from sfumato.testing import _adm

    class Shapeless(_adm._Maker):
        def normal(self, *shape):
            return torch.empty(shape, device="meta")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_adm, "_Maker", Shapeless)
        return adm_state_dict(attention=(side // 32, side // 16, side // 8), **form)


def test_workers_get_the_same_denoiser(tmp_path):
    from sfumato.tiling.wire import pack, unpack

    denoiser = load_prior(written(tmp_path), precision="fp32").denoiser
    x_t = draws(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(unpack(pack(denoiser))(x_t, 0.5), denoiser(x_t, 0.5))
