"""DRUNet and FFDNet as priors: their own scale of noise, any size, and no other file passes."""

import pytest
import torch

from sfumato.errors import ModelError
from sfumato.io import save_checkpoint
from sfumato.nn import DRUNet, DRUNetConfig, FFDNet, FFDNetConfig
from sfumato.zoo import load_prior, native_side

NETS = {
    "drunet": lambda: DRUNet(DRUNetConfig((2, 3, 4, 5), blocks=2)),
    "ffdnet": lambda: FFDNet(FFDNetConfig(width=4, layers=3)),
}


def made(name):
    net = NETS[name]()
    generator = torch.Generator().manual_seed(0)
    for p in net.parameters():
        torch.nn.init.uniform_(p, -0.3, 0.3, generator=generator)
    return net.requires_grad_(False)


def saved(tmp_path, name, kind="pth"):
    state, path = made(name).state_dict(), tmp_path / f"{name}_color.{kind}"
    if kind == "pth":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    return path


def load(path):
    return load_prior(path, precision="fp32")


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize(("name", "most"), [("drunet", 50), ("ffdnet", 75)])
def test_the_estimate_is_the_networks_on_its_own_scale(tmp_path, name, most, kind):
    path = saved(tmp_path, name, kind)
    prior, net = load(path), made(name)
    assert prior.sigma_max == pytest.approx(2 * most / 255)
    assert prior.stride == net.config.stride
    x, sigma = torch.rand(2, 3, 16, 24) * 2 - 1, torch.tensor([0.1, 0.3])
    expected = 2 * net((x + 1) / 2, sigma / 2) - 1
    assert torch.allclose(prior.denoiser(x, sigma), expected, atol=1e-5)
    assert native_side(path) == prior.tile


@pytest.mark.parametrize("name", NETS)
def test_any_size_and_gradients_to_the_image_alone(tmp_path, name):
    prior = load(saved(tmp_path, name))
    x = torch.rand(1, 3, 5, 9).requires_grad_()
    prior.denoiser(x, 0.2).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in prior.denoiser.parameters())
    assert prior.denoiser(x[..., :1, :1].double(), 0.2).dtype == torch.float64


def test_the_form_is_that_of_the_tensors(tmp_path):
    prior = load(saved(tmp_path, "drunet"))
    assert prior.denoiser.net.config == DRUNetConfig((2, 3, 4, 5), 2)
    assert "DRUNet" in prior.kind
    assert prior.n_parameters == sum(p.numel() for p in made("drunet").parameters())
    assert load(saved(tmp_path, "ffdnet")).denoiser.net.config == FFDNetConfig(4, 3)


def test_other_tensors_are_refused(tmp_path):
    def refused(state, message):
        torch.save(state, tmp_path / "odd.pth")
        with pytest.raises(ModelError, match=message):
            load(tmp_path / "odd.pth")

    drunet, ffdnet = (made(name).state_dict() for name in NETS)
    grey = torch.zeros(2, 2, 3, 3)
    refused(drunet | {"m_head.weight": grey}, r"2 channels; expected 4.*drunet_color")
    refused(ffdnet | {"model.0.weight": torch.zeros(4, 5, 3, 3)}, "grey pictures")
    refused(drunet | {"m_up2.0.weight": torch.zeros(1)}, "lacks m_up2.0.weight")
    refused(drunet | {"stranger": torch.zeros(1)}, "stranger")
    refused(ffdnet | {"model.2.weight": torch.zeros(3, 3, 3, 3)}, "model.2.weight")
    refused({"first.weight": torch.zeros(1)}, r"holds tensors of another program.*DRUNet")


def test_a_program_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.save(
        torch.jit.trace(made("ffdnet"), (torch.zeros(1, 3, 8, 8), torch.zeros(1))), str(path)
    )
    with pytest.raises(ModelError, match=r"TorchScript program, which is code.*state_dict"):
        load(path)


def test_a_checkpoint_of_ours_is_none_of_theirs(tmp_path):
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, made("drunet").state_dict(), {"kind": "prior"})
    with pytest.raises(ModelError, match="impossible model"):
        load(path)
