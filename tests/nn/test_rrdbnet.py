"""RRDBNet computes what the papers say, by plain functions of its weights."""

import pytest
import torch
from torch.nn.functional import conv2d, interpolate, leaky_relu, pixel_unshuffle

from sfumato.errors import SettingsError
from sfumato.nn import RRDBNet, RRDBNetConfig


def small(**form):
    torch.manual_seed(0)
    return RRDBNet(RRDBNetConfig(features=6, blocks=2, growth=3, **form)).double().eval()


def by_hand(u, w, fold, doublings, blocks=2):
    """ESRGAN, figure 4, with ``w`` the weights by name."""

    def conv(name, x):
        return conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    def dense(name, x):
        y = [x]
        for k in range(1, 5):
            y.append(leaky_relu(conv(f"{name}.conv{k}", torch.cat(y, 1)), 0.2))
        return x + 0.2 * conv(f"{name}.conv5", torch.cat(y, 1))

    x = first = conv("conv_first", pixel_unshuffle(u, fold))
    for b in range(blocks):
        y = x
        for k in (1, 2, 3):
            y = dense(f"body.{b}.rdb{k}", y)
        x = x + 0.2 * y
    x = first + conv("conv_body", x)
    for k in range(doublings):
        x = leaky_relu(conv(f"conv_up{k + 1}", interpolate(x, scale_factor=2)), 0.2)
    return conv("conv_last", leaky_relu(conv("conv_hr", x), 0.2))


@pytest.mark.parametrize(("fold", "doublings"), [(1, 2), (2, 2), (4, 2), (1, 0), (1, 3)])
def test_it_is_the_formula(fold, doublings):
    net = small(fold=fold, doublings=doublings)
    u = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    x = net(u)
    assert x.shape[2:] == (8 * net.config.scale, 12 * net.config.scale)
    assert torch.allclose(x, by_hand(u, net.state_dict(), fold, doublings), atol=1e-12)


@pytest.mark.parametrize("form", [{"fold": 3}, {"fold": 4, "doublings": 1}, {"blocks": 0}])
def test_impossible_forms(form):
    with pytest.raises(SettingsError):
        RRDBNetConfig(**form)
