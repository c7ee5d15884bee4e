"""RRDBNet is read from every published layout of names, and nothing else is."""

import re

import pytest
import torch

from sfumato.errors import ModelError
from sfumato.io.checkpoints import save_checkpoint
from sfumato.nn import RRDBNet, RRDBNetConfig
from sfumato.zoo.rrdb import load_rrdb, renamed


def network(**form):
    torch.manual_seed(0)
    return RRDBNet(RRDBNetConfig(features=6, blocks=2, growth=3, **form)).eval()


def of_bsrgan(name):
    for pattern, other in (
        (r"^body\.", "RRDB_trunk."), (r"\.rdb(\d)", r".RDB\1"), ("conv_body", "trunk_conv"),
        (r"conv_up(\d)", r"upconv\1"), ("conv_hr", "HRconv"),
    ):  # fmt: skip
        name = re.sub(pattern, other, name)
    return name


def of_old_esrgan(name, doublings):
    ups = {f"conv_up{k}": 3 * k for k in range(1, doublings + 1)}
    hr = 3 * doublings + 2
    numbers = {"conv_first": 0, **ups, "conv_hr": hr, "conv_last": hr + 2}
    name = re.sub(r"^body\.(\d+)\.rdb(\d)\.conv(\d)", r"model.1.sub.\1.RDB\2.conv\3.0", name)
    name = name.replace("conv_body", "model.1.sub.2")
    head, _, tail = name.partition(".")
    return f"model.{numbers[head]}.{tail}" if head in numbers else name


@pytest.mark.parametrize("doublings", [0, 1, 2, 3])
def test_three_layouts_are_one_network(doublings, tmp_path):
    net = network(doublings=doublings)
    own = net.state_dict()
    layouts = {
        "real": {"params_ema": own, "params": {k: 0 * t for k, t in own.items()}},
        "bsrgan": {of_bsrgan(k): t for k, t in own.items()},
        "module": {f"module.{of_bsrgan(k)}": t for k, t in own.items()},
        "old": {of_old_esrgan(k, doublings): t for k, t in own.items()},
    }
    u = torch.rand(1, 3, 5, 7)
    for name, state in layouts.items():
        torch.save(state, tmp_path / f"{name}.pth")
        loaded = load_rrdb(tmp_path / f"{name}.pth")
        assert loaded.config == net.config
        assert torch.equal(loaded(u), net(u)), name


def test_the_factor_follows_from_the_first_layer(tmp_path):
    for fold, scale in ((1, 4), (2, 2), (4, 1)):
        save_checkpoint(tmp_path / "n.safetensors", network(fold=fold).state_dict(), {})
        assert load_rrdb(tmp_path / "n.safetensors").config.scale == scale


def test_what_is_something_else(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"layer.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match=r"holds layer\.weight; expected weights of an RRDBNet"):
        load_rrdb(path)
    own = network().state_dict()
    torch.save({k: t for k, t in own.items() if k != "conv_hr.bias"}, path)
    with pytest.raises(ModelError, match=r"missing: conv_hr\.bias"):
        load_rrdb(path)
    torch.save(own | {"conv_first.weight": torch.zeros(6, 4, 3, 3)}, path)
    with pytest.raises(ModelError, match="first layer sees 4 channels"):
        load_rrdb(path)
    torch.save(network, path)
    with pytest.raises(ModelError):
        load_rrdb(path)
    with pytest.raises(ModelError):
        load_rrdb(tmp_path / "nowhere.pth")


def test_other_names_stay():
    assert list(renamed({"model.0.weight": torch.zeros(1), "odd": torch.zeros(1)})) == [
        "conv_first.weight",
        "odd",
    ]
