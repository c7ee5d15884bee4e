"""An RRDBNet as a contender: tiles agree with the whole, other tasks are refused."""

import pytest
import torch

from sfumato.errors import SettingsError
from sfumato.evaluation.posed import pose
from sfumato.evaluation.supervised import Supervised, enlarged
from sfumato.io import save_checkpoint
from sfumato.nn import RRDBNet, RRDBNetConfig


def network(**form):
    torch.manual_seed(0)
    return RRDBNet(RRDBNetConfig(features=4, blocks=1, growth=2, **form)).eval()


@pytest.mark.parametrize("fold", [1, 2])
def test_tiles_agree_with_the_whole(fold):
    net, y = network(fold=fold), torch.rand(3, 75, 53)
    whole, one = enlarged(net, y)
    tiled, many = enlarged(net, y, tile=40, overlap=24)
    assert (one, many) == (1, 8)
    assert whole.shape == tiled.shape == (3, 75 * net.config.scale, 53 * net.config.scale)
    # Only near a tile's border is its answer another one, and there it counts little.
    assert float((whole - tiled).abs().mean()) < 0.01 * float(whole.std())


def test_it_enlarges_by_its_own_factor_only(tmp_path, photo):
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, network(fold=2).state_dict(), {})
    it = Supervised("net", path)
    assert it.answer(pose("bicubic:2", "x", photo, 0)).x.shape == photo.shape
    assert it.answer(pose("average_pool:2 | noise:0.1", "x", photo[:1], 0)).x.shape == (1, 48, 40)
    for words in ("bicubic:4", "identity", "walsh_hadamard:0.5"):
        with pytest.raises(SettingsError, match="expected a picture that is to be 2 times larger"):
            it.answer(pose(words, "x", photo, 0))
