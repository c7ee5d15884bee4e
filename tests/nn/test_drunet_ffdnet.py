"""DRUNet and FFDNet compute what their papers say, with the published names of weights."""

import pytest
import torch
import torch.nn.functional as F

from sfumato.errors import SettingsError
from sfumato.nn import DRUNet, DRUNetConfig, FFDNet, FFDNetConfig

SMALL = DRUNetConfig(channels=(3, 4, 5, 6), blocks=2)


def made(net, seed=0):
    """The network with weights that are a function of the seed."""
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        torch.nn.init.uniform_(p, -0.3, 0.3, generator=generator)
    return net.requires_grad_(False)


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def conv(w, name, x, **options):
    return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **options)


def blocks(w, name, first, n, x):
    for k in range(first, first + n):
        h = conv(w, f"{name}.{k}.res.0", x, padding=1).relu()
        x = x + conv(w, f"{name}.{k}.res.2", h, padding=1)
    return x


@pytest.mark.parametrize("bias", [False, True])
def test_drunet_is_a_residual_unet(bias):
    net = made(DRUNet(DRUNetConfig(SMALL.channels, SMALL.blocks, bias)))
    w, u, s = net.state_dict(), noise(2, 3, 8, 16), torch.tensor([0.1, 0.2])
    level = s[:, None, None, None] * torch.ones(2, 1, 8, 16)
    kept = [conv(w, "m_head", torch.cat([u, level], 1), padding=1)]
    for k in (1, 2, 3):
        x = blocks(w, f"m_down{k}", 0, 2, kept[-1])
        kept.append(conv(w, f"m_down{k}.2", x, stride=2))
    x = blocks(w, "m_body", 0, 2, kept[-1])
    for k in (3, 2, 1):
        name = f"m_up{k}"
        x = F.conv_transpose2d(
            x + kept.pop(), w[f"{name}.0.weight"], w.get(f"{name}.0.bias"), stride=2
        )
        x = blocks(w, name, 1, 2, x)
    expected = conv(w, "m_tail", x + kept.pop(), padding=1)
    assert torch.allclose(net(u, s), expected, atol=1e-5)


def test_drunet_without_biases_scales_with_what_it_sees():
    net = made(DRUNet(SMALL))
    u, s = noise(2, 3, 8, 8), torch.tensor([0.1, 0.2])
    assert torch.allclose(net(3 * u, 3 * s), 3 * net(u, s), rtol=1e-4, atol=1e-5)


def test_the_published_drunet_has_32_6_million_weights():
    with torch.device("meta"):
        net = DRUNet()
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 32.6
    assert net.config.stride == 8
    assert net.state_dict()["m_down1.4.weight"].shape == (128, 64, 2, 2)


def test_ffdnet_is_a_row_of_convolutions():
    net = made(FFDNet(FFDNetConfig(width=5, layers=4)))
    w, u, s = net.state_dict(), noise(2, 3, 6, 8), torch.tensor([0.1, 0.2])
    # By hand: of each channel the four pixels of a square, row by row.
    folded = u.reshape(2, 3, 3, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 12, 3, 4)
    x = torch.cat([folded, s[:, None, None, None] * torch.ones(2, 1, 3, 4)], 1)
    for k in (0, 2, 4):
        x = conv(w, f"model.{k}", x, padding=1).relu()
    x = conv(w, "model.6", x, padding=1).reshape(2, 3, 2, 2, 3, 4)
    expected = x.permute(0, 1, 4, 2, 5, 3).reshape(2, 3, 6, 8)
    assert torch.allclose(net(u, s), expected, atol=1e-5)


def test_the_published_ffdnet_has_twelve_layers_of_96_features():
    state = FFDNet().state_dict()
    assert [n for n in state if n.endswith("weight")] == [
        f"model.{k}.weight" for k in range(0, 23, 2)
    ]
    assert state["model.0.weight"].shape == (96, 13, 3, 3)
    assert state["model.22.weight"].shape == (12, 96, 3, 3)


@pytest.mark.parametrize("made_of", [lambda: DRUNet(SMALL), lambda: FFDNet(FFDNetConfig(8, 3))])
def test_in_bfloat16_the_picture_itself_stays_exact(made_of):
    net = made(made_of())
    u, s = noise(1, 3, 8, 8), torch.tensor([0.1])
    with torch.autocast("cpu", torch.bfloat16):
        y = net(u, s)
    assert y.dtype == torch.float32
    assert not torch.equal(y, y.bfloat16().float())


@pytest.mark.usefixtures("unchecked")
def test_impossible_forms_are_refused():
    with pytest.raises(SettingsError, match="channels"):
        DRUNetConfig(channels=(64, 128))
    with pytest.raises(SettingsError, match="blocks"):
        DRUNetConfig(blocks=0)
    with pytest.raises(SettingsError, match="layers"):
        FFDNetConfig(layers=1)
    with pytest.raises(SettingsError, match="width"):
        FFDNetConfig(width=0)
