"""Folders of diffusers: the same numbers as diffusers gives, and nothing else passes for one."""

import json
import shutil
import sys

import pytest
import torch

from sfumato.diffusion import Guidance, sigma_of
from sfumato.errors import ModelError, SettingsError
from sfumato.samplers import DDIM, DDPM, sample, walk
from sfumato.zoo import load_prior, native_side, task_of_model

pytest.importorskip("diffusers", reason="diffusers is not installed (sfumato[models])")

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
)

from tiny_folders import bare, change, dit, pipeline, unet

T = 100


def numbers(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def load(path):
    return load_prior(path, precision="fp32")


def sigmas_at(prior, scheduler):
    """The noise levels of a scheduler's time steps, and 0."""
    a = prior.denoiser.form._log_sigma.exp()[scheduler.timesteps]
    return [*a.tolist(), 0.0]


def walked(prior, sampler, sigmas, x_T, noise=lambda draw: None):
    """The end of a walk from ``x_T = a_T x`` of a variance-preserving schedule."""
    x = x_T * (1 + sigmas[0] ** 2) ** 0.5
    moves = walk(sampler, sigmas)
    *_, (_, x) = sample(prior.denoiser, sampler, [Guidance()], moves, x_T=x, noise=noise)
    return x


@torch.no_grad()
def theirs(net, scheduler, x, **options):
    for t in scheduler.timesteps:
        x = scheduler.step(net(x, t).sample, t, x, **options).prev_sample
    return x


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_ddim_walks_as_in_diffusers(tmp_path, prediction, betas):
    scheduler = DDIMScheduler(
        T, beta_schedule=betas, prediction_type=prediction, clip_sample=False, beta_end=0.1
    )
    prior = load(pipeline(tmp_path, unet(), scheduler))
    scheduler.set_timesteps(10)
    x_T = numbers(1, 3, 16, 16)
    expected = theirs(unet(), scheduler, x_T)
    ours = walked(prior, DDIM(0.0), sigmas_at(prior, scheduler), x_T)
    assert (ours - expected).abs().max() < 1e-4 * max(1, expected.abs().max())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ddpm_walks_as_in_diffusers_and_clips_as_it_does(tmp_path, prediction):
    scheduler = DDPMScheduler(T, prediction_type=prediction, beta_end=0.1)
    prior = load(pipeline(tmp_path, unet(), scheduler))
    assert prior.denoiser.clip == 1.0
    scheduler.set_timesteps(10)
    x_T, mine, own = numbers(1, 3, 16, 16), *(torch.Generator().manual_seed(5) for _ in range(2))
    expected = theirs(unet(), scheduler, x_T, generator=own)
    ours = walked(
        prior,
        DDPM(),
        sigmas_at(prior, scheduler),
        x_T,
        lambda draw: torch.randn(x_T.shape, generator=mine),
    )
    assert (ours - expected).abs().max() < 1e-4


def test_a_last_time_of_pure_noise_is_no_division_by_zero(tmp_path):
    scheduler = DDIMScheduler(T, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    prior = load(pipeline(tmp_path, unet(), scheduler))
    a = scheduler.alphas_cumprod.double()[:-1]
    assert torch.allclose(prior.denoiser.form._log_sigma[:-1].exp(), sigma_of(a), rtol=1e-3)
    assert prior.sigma_max == pytest.approx(4096, rel=1e-3)
    assert prior.denoiser(numbers(1, 3, 16, 16), prior.sigma_max).isfinite().all()


@pytest.mark.parametrize("made", [EDMEulerScheduler, EDMDPMSolverMultistepScheduler])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edm_answers_as_in_diffusers(tmp_path, made, prediction):
    scheduler = made(sigma_data=0.7, sigma_max=30.0, prediction_type=prediction)
    prior = load(pipeline(tmp_path, unet(), scheduler))
    assert prior.sigma_max == 30.0
    x, sigma = numbers(1, 3, 16, 16), torch.tensor(2.5)
    with torch.no_grad():
        f = unet()(
            scheduler.precondition_inputs(x, sigma), scheduler.precondition_noise(sigma)
        ).sample
    expected = scheduler.precondition_outputs(x, f, sigma)
    assert torch.allclose(prior.denoiser(x, 2.5), expected, atol=1e-5)


def test_edm_may_be_said_beside(tmp_path):
    said = {"preconditioning": "edm", "sigma_data": 0.4, "sigma_max": 20.0}
    prior = load(bare(tmp_path, unet(), said))
    assert (prior.sigma_max, prior.denoiser.form.sigma_data) == (20.0, 0.4)
    assert "EDM" in prior.kind
    assert prior.denoiser.clip is None


def test_a_bare_network_is_taken_for_one_of_ddpm(tmp_path):
    net = bare(tmp_path / "bare", unet())
    whole = pipeline(tmp_path / "whole", unet(), DDPMScheduler())
    x = numbers(2, 3, 16, 16)
    assert torch.equal(load(net).denoiser(x, 0.7), load(whole).denoiser(x, 0.7))


def test_old_folders_are_flat_and_name_attention_otherwise(tmp_path):
    """As that of google/ddpm-celebahq-256, whose form has all that was another default once."""
    net = unet(attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1)
    new = pipeline(tmp_path / "new", net, DDPMScheduler(), safe=False)
    old = tmp_path / "old"
    old.mkdir()
    for file in (new / "model_index.json", new / "scheduler/scheduler_config.json"):
        shutil.copy(file, old)
    shutil.copy(new / "unet/config.json", old)
    state = torch.load(new / "unet/diffusion_pytorch_model.bin", weights_only=True)
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value."}
    names[".to_out.0."] = ".proj_attn."
    renamed = {}
    for name, tensor in state.items():
        for today, before in names.items():
            name = name.replace(today, before)
        renamed[name] = tensor
    assert renamed.keys() != state.keys()
    torch.save(renamed, old / "diffusion_pytorch_model.bin")
    prior, x, t = load(old), numbers(1, 3, 16, 16), 50
    assert torch.equal(prior.denoiser(x, 0.7), load(new).denoiser(x, 0.7))
    sigma = float(prior.denoiser.form._log_sigma[t].exp())
    with torch.no_grad():
        eps = net(x / (1 + sigma**2) ** 0.5, t).sample
    assert torch.allclose(prior.denoiser(x, sigma), (x - sigma * eps).clamp(-1, 1), atol=1e-5)


def test_weights_in_shards(tmp_path):
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    bare(whole, unet())
    unet().save_pretrained(shards, max_shard_size="20KB")
    assert len([*shards.glob("*-of-*.safetensors")]) > 1
    x = numbers(1, 3, 16, 16)
    assert torch.equal(load(whole).denoiser(x, 0.7), load(shards).denoiser(x, 0.7))


def test_a_network_that_looks_times_up_is_asked_whole_ones(tmp_path):
    net = unet(time_embedding_type="learned", num_train_timesteps=T)
    prior = load(pipeline(tmp_path, net, DDPMScheduler(T)))
    assert prior.denoiser(numbers(2, 3, 16, 16), torch.tensor([0.1, 0.33])).isfinite().all()


def test_a_learned_variance_is_left_out(tmp_path):
    net = unet(out_channels=6)
    prior = load(pipeline(tmp_path, net, DDIMScheduler(clip_sample=False)))
    x, t = numbers(1, 3, 16, 16), 50
    sigma = float(prior.denoiser.form._log_sigma[t].exp())
    with torch.no_grad():
        eps = net(x / (1 + sigma**2) ** 0.5, t).sample[:, :3]
    assert torch.allclose(prior.denoiser(x, sigma), x - sigma * eps, atol=1e-5)


@pytest.mark.parametrize("made", [unet, dit])
def test_in_bfloat16_the_estimate_is_nearly_the_same(tmp_path, made):
    path, x = bare(tmp_path, made(), {"clip": False}), numbers(1, 3, 16, 16)
    whole, half = (load_prior(path, precision=p).denoiser(x, 0.7) for p in ("fp32", "bf16"))
    assert 0 < (whole - half).abs().max() < 0.05 * (whole - x).abs().max()


def test_gradients_flow_through_the_network_to_the_image(tmp_path):
    prior = load(pipeline(tmp_path, scheduler=DDIMScheduler(clip_sample=False)))
    x = numbers(1, 3, 10, 7).requires_grad_()
    prior.denoiser(x, 0.7).square().sum().backward()
    assert x.grad.isfinite().all()
    # Beyond what passes the network by: x_0 = x_t − σ F.
    assert not torch.allclose(x.grad, 2 * prior.denoiser(x, 0.7).detach())
    assert all(p.grad is None for p in prior.denoiser.parameters())


def test_what_the_folder_says_of_itself(tmp_path):
    path = pipeline(tmp_path / "cats", beside={"licence": "MIT", "summary": "Cats.", "tile": 32})
    prior = load(path)
    assert (prior.name, prior.tile, prior.stride, prior.licence) == ("cats", 32, 2, "MIT")
    assert (prior.source, prior.sizes, prior.fixed_size) == (path, "any", False)
    assert prior.card == "# cats\n\nCats.\n"
    assert (native_side(path), task_of_model(path)) == (32, None)
    assert not any(p.requires_grad for p in prior.denoiser.parameters())
    (path / "README.md").write_text("---\ntags: [a]\nlicense: apache-2.0\n---\n# Cats\n")
    change(path / "sfumato.json", licence="")
    assert load(path).licence == "apache-2.0"
    assert load(path).digest != prior.digest


def test_loading_leaves_torch_alone(tmp_path):
    path = pipeline(tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load(path)
    assert torch.equal(torch.rand(1), expected)


class TestClasses:
    def test_labels_are_told_to_the_network(self, tmp_path):
        net = unet(num_class_embeds=3)
        scheduler = DDIMScheduler(clip_sample=False)
        prior = load(pipeline(tmp_path, net, scheduler))
        assert prior.classes == ("0", "1", "2")
        x, t = numbers(2, 3, 16, 16), 50
        sigma = float(prior.denoiser.form._log_sigma[t].exp())
        with torch.no_grad():
            eps = net(x / (1 + sigma**2) ** 0.5, t, torch.tensor([1, 1])).sample
        assert torch.allclose(prior.of_class("1").denoiser(x, sigma), x - sigma * eps, atol=1e-4)
        with pytest.raises(SettingsError, match="one of its 3 classes"):
            prior.denoiser(x, sigma)
        assert prior.needs_class
        with pytest.raises(SettingsError, match="always has a class"):
            prior.of_class("1", 2.0)

    def test_one_label_more_than_names_stands_for_none(self, tmp_path):
        net = unet(num_class_embeds=3)
        prior = load(pipeline(tmp_path, net, beside={"classes": ["cat", "dog"]}))
        assert prior.classes == ("cat", "dog")
        assert not prior.needs_class
        x = numbers(2, 3, 16, 16)
        free = prior.denoiser(x, 0.5)
        dog = prior.of_class("dog").denoiser(x, 0.5)
        assert not torch.allclose(free, dog)
        assert torch.equal(free, prior.denoiser(x, 0.5, torch.tensor([2, 2])))
        guided = prior.of_class("dog", 3.0).denoiser(x, 0.5)
        assert torch.allclose(guided, free + 3 * (dog - free))

    def test_the_label_of_no_class_may_be_said(self, tmp_path):
        prior = load(pipeline(tmp_path, unet(num_class_embeds=3), beside={"no_class": 2}))
        assert prior.classes == ("0", "1")

    def test_names_from_a_table_of_labels(self, tmp_path):
        path = bare(tmp_path, dit())
        labels = {"2": "newt, eft", "0": "tench", "1": "ray"}
        change(path / "config.json", id2label=labels)
        prior = load(path)
        assert prior.classes == ("tench", "ray", "newt")
        assert prior.denoiser.no_class == 3

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ({"classes": ["a"]}, "3 labels and names 1 classes"),
            ({"classes": ["a", "b"], "no_class": 1}, "label 1 for no class"),
        ],
    )
    def test_names_that_do_not_fit(self, tmp_path, said, message):
        path = pipeline(tmp_path, unet(num_class_embeds=3), beside=said)
        with pytest.raises(ModelError, match=message):
            load(path)


class TestFixedSize:
    def test_a_transformer_knows_one_size(self, tmp_path):
        prior = load(bare(tmp_path, dit()))
        assert (prior.fixed_size, prior.tile, prior.sizes) == (
            True, 16, "16 x 16, larger by tiles",
        )  # fmt: skip
        x = numbers(1, 3, 16, 16)
        assert prior.denoiser(x[..., :5, :9], 0.5).shape == (1, 3, 5, 9)

    def test_a_unet_may_be_said_to(self, tmp_path):
        prior = load(pipeline(tmp_path, beside={"fixed_size": True}))
        assert (prior.fixed_size, prior.tile) == (True, 16)

    def test_a_size_that_is_none(self, tmp_path):
        path = pipeline(tmp_path, unet(sample_size=(16, 24)), beside={"fixed_size": True})
        with pytest.raises(ModelError, match="sample_size"):
            load(path)


class TestRefused:
    def test_latent_and_text_pipelines(self, tmp_path):
        path = pipeline(tmp_path)
        change(path / "model_index.json", vae=["diffusers", "AutoencoderKL"])
        with pytest.raises(ModelError, match="DDPMPipeline with vae; expected a pipeline"):
            load(path)

    def test_networks_that_see_no_rgb(self, tmp_path):
        with pytest.raises(ModelError, match="4 channels in"):
            load(bare(tmp_path / "latent", unet(in_channels=4, out_channels=4)))
        with pytest.raises(ModelError, match="1 channels in"):
            load(bare(tmp_path / "grey", unet(in_channels=1, out_channels=1)))

    def test_networks_of_other_classes(self, tmp_path):
        form = {"block_out_channels": (8,), "norm_num_groups": 2, "cross_attention_dim": 4}
        net = UNet2DConditionModel(
            **form, down_block_types=["DownBlock2D"], up_block_types=["UpBlock2D"]
        )
        with pytest.raises(ModelError, match="holds no model; expected"):
            load(bare(tmp_path, net))

    def test_schedulers_of_other_diffusions(self, tmp_path):
        path = pipeline(tmp_path)
        FlowMatchEulerDiscreteScheduler().save_pretrained(path / "scheduler")
        with pytest.raises(ModelError, match="scheduler FlowMatchEulerDiscreteScheduler"):
            load(path)

    def test_score_networks(self, tmp_path):
        with pytest.raises(ModelError, match="fourier"):
            load(bare(tmp_path, unet(time_embedding_type="fourier")))

    def test_a_part_of_a_pipeline(self, tmp_path):
        path = pipeline(tmp_path)
        with pytest.raises(ModelError, match=f"give the folder {path}"):
            load(path / "unet")

    def test_weights_that_are_not_there(self, tmp_path):
        path = pipeline(tmp_path)
        (path / "unet/diffusion_pytorch_model.safetensors").unlink()
        with pytest.raises(ModelError, match="holds no weights"):
            load(path)

    def test_weights_of_another_network(self, tmp_path):
        path = pipeline(tmp_path)
        change(path / "unet/config.json", block_out_channels=[8, 16])
        with pytest.raises(ModelError, match="describes a network of"):
            load(path)

    def test_a_network_that_cannot_be(self, tmp_path):
        path = pipeline(tmp_path)
        change(path / "unet/config.json", down_block_types=["DownBlock2D", "SideBlock2D"])
        with pytest.raises(ModelError, match="impossible network"):
            load(path)

    def test_weights_with_code(self, tmp_path):
        path = pipeline(tmp_path, safe=False)
        weights = path / "unet/diffusion_pytorch_model.bin"
        torch.save({"weight": shutil.copy}, weights)
        with pytest.raises(ModelError, match="could run any code"):
            load(path)
        script = torch.jit.trace(lambda x: x + 1, torch.zeros(1))
        torch.jit.save(script, str(weights))
        with pytest.raises(ModelError, match="TorchScript"):
            load(path)

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ({"preconditioning": "ve"}, "preconditioning"),
            ({"sigma_max": -1}, "sigma_max"),
            ({"colour": "blue"}, "colour"),
            ({"preconditioning": "edm", "prediction_type": "sample"}, "predicts samples"),
        ],
    )
    def test_what_is_said_beside_and_makes_no_sense(self, tmp_path, said, message):
        path = pipeline(tmp_path, beside=said)
        with pytest.raises(ModelError, match=message):
            load(path)

    def test_schedules_that_are_none(self, tmp_path):
        path = pipeline(tmp_path)
        file = path / "scheduler/scheduler_config.json"
        change(file, beta_schedule="wavy")
        with pytest.raises(ModelError, match="wavy"):
            load(path)
        change(file, trained_betas=[0.1, 2.0])
        with pytest.raises(ModelError, match="betas"):
            load(path)
        file.write_text("{")
        with pytest.raises(ModelError, match="no JSON"):
            load(path)

    def test_an_index_leads_nowhere_else(self, tmp_path):
        path = bare(tmp_path / "net", unet())
        weights = path / "diffusion_pytorch_model.safetensors"
        weights.rename(tmp_path / "outside.safetensors")
        index = {"weight_map": {"conv_in.weight": "../outside.safetensors"}}
        (path / f"{weights.name}.index.json").write_text(json.dumps(index))
        with pytest.raises(ModelError, match="no checkpoint"):
            load(path)

    def test_without_diffusers(self, tmp_path, monkeypatch):
        path = pipeline(tmp_path)
        monkeypatch.setitem(sys.modules, "diffusers", None)
        with pytest.raises(ModelError, match=r"pip install \"sfumato\[models\]\""):
            load(path)
