"""The networks that measures are defined by, against their formulas, in the published layout."""

import pytest
import torch

from judges import PublishedInception, PublishedResNet
from sfumato.errors import ModelError, ShapeError
from sfumato.io import load_state
from sfumato.io.pickles import load_pickle
from sfumato.nn import FIDInception, ResNet, ResNetConfig


def pictures(side, seed=0):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_inception_is_the_published_one():
    published, x = PublishedInception(), pictures(107)
    want = published.run(x)
    net = FIDInception()
    load_state(net, published.state)
    torch.testing.assert_close(net(x), want, rtol=1e-4, atol=1e-5)
    bias = published.state["fc.bias"]
    whole = torch.nn.functional.linear(want, published.state["fc.weight"], bias)
    torch.testing.assert_close(net.logits(net(x)) + bias, whole, rtol=1e-4, atol=1e-4)


def test_inception_sees_no_smaller_pictures():
    with torch.device("meta"):
        net = FIDInception()
    with pytest.raises(ShapeError, match="at least 75 x 75"):
        net(torch.zeros(1, 3, 74, 80, device="meta"))
    assert net(torch.zeros(1, 3, 75, 75, device="meta")).shape == (1, 2048)


@pytest.mark.parametrize("blocks", [(3, 4, 6, 3), (1, 1, 2, 1)])
def test_resnet_is_the_published_one(blocks):
    published, x = PublishedResNet(blocks, width=8, classes=10), pictures(64)
    want = published.run(x)
    config = ResNetConfig.of({name: tuple(t.shape) for name, t in published.state.items()})
    assert config == ResNetConfig(blocks, 8, 10)
    net = ResNet(config)
    load_state(net, published.state)
    torch.testing.assert_close(net(x), want, rtol=1e-4, atol=1e-5)


def test_the_form_of_a_resnet_is_read_off_or_refused():
    with torch.device("meta"):
        net = ResNet(ResNetConfig())
    shapes = {name: tuple(t.shape) for name, t in net.state_dict().items()}
    assert ResNetConfig.of(shapes) == ResNetConfig()
    for missing in ("conv1.weight", "fc.weight", "layer4.0.conv3.weight"):
        broken = {k: v for k, v in shapes.items() if k != missing}
        if missing.startswith("layer4"):
            broken = {k: v for k, v in broken.items() if not k.startswith("layer4")}
        with pytest.raises(ModelError, match="no ResNet with bottlenecks"):
            ResNetConfig.of(broken)
    far = shapes | {"layer1.999999999.conv3.weight": (256, 64, 1, 1)}
    with pytest.raises(ModelError, match="no ResNet"):
        ResNetConfig.of(far)


def test_counters_of_batches_are_no_weights(tmp_path):
    """Published state dicts hold them, as integers."""
    path = tmp_path / "net.pth"
    torch.save({"bn.weight": torch.ones(2), "bn.num_batches_tracked": torch.tensor(7)}, path)
    assert list(load_pickle(path)) == ["bn.weight"]
