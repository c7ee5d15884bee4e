import pytest
import torch

from sfumato.errors import SettingsError
from sfumato.nn import UNet, UNetConfig, seeded_unet, widened, with_linear_path


def small(channels: tuple[int, ...], blocks: int = 1) -> UNet:
    net = seeded_unet(UNetConfig(channels, blocks, embedding=8), 0)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():  # the last layers of blocks are 0 in a new network
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.2)
    return net


def answers(net: UNet) -> torch.Tensor:
    g = torch.Generator().manual_seed(2)
    x, level = torch.randn(2, 3, 32, 48, generator=g), torch.randn(2, generator=g)
    with torch.no_grad():
        return net(x, level)


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("channels", [(8, 12, 20), (16, 24, 40), (24, 36, 60)])
def test_a_wider_network_begins_as_the_narrow_one(
    channels: tuple[int, ...], blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfumato.nn.widen._APART", 0.0)
    net = small((8, 12, 20), blocks)
    torch.testing.assert_close(answers(widened(net, channels)), answers(net), rtol=1e-3, atol=1e-4)


def test_copies_are_told_apart() -> None:
    net = small((8, 12))
    wide = widened(net, (16, 12))
    assert not torch.equal(wide.head.weight[:8], wide.head.weight[8:])
    off = (answers(wide) - answers(net)).std() / answers(net).std()
    assert 0 < off < 0.2
    assert torch.equal(wide.head.weight, widened(net, (16, 12)).head.weight)
    assert not torch.equal(wide.head.weight, widened(net, (16, 12), seed=1).head.weight)


@pytest.mark.parametrize("channels", [(4, 12), (8,), (8, 12, 16), (12, 12)])
def test_refuses_what_cannot_be_the_same(channels: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError):
        widened(small((8, 12)), channels)


def test_a_linear_path_changes_nothing_at_first_and_goes_along_when_widened() -> None:
    net = small((8, 12))
    new = with_linear_path(net, 6, seed=3)
    assert new.config.linear == 6
    assert torch.equal(answers(new), answers(net))
    assert new.linear is not None
    with torch.no_grad():
        new.linear.out.weight.normal_(generator=torch.Generator().manual_seed(4))
    assert not torch.allclose(answers(new), answers(net))
    wide = widened(new, (16, 12))
    assert wide.linear is not None
    for a, b in zip(wide.linear.parameters(), new.linear.parameters(), strict=True):
        assert torch.equal(a, b)
    for same in (0, 6):
        assert with_linear_path(new, same) is new
    assert with_linear_path(net, 0) is net
    with pytest.raises(SettingsError, match="a network that has one of 6"):
        with_linear_path(new, 5)
