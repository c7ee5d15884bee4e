"""LPIPS and errors of classification, by files in the published layouts."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from judges import PublishedResNet, PublishedTrunk
from sfumato.errors import ImageError, ModelError, SettingsError
from sfumato.evaluation.choice import Networks, choose
from sfumato.evaluation.learned import (
    classification,
    label_of,
    labels_of_folders,
    normalised,
    read_labels,
)
from sfumato.evaluation.measure import Shown
from sfumato.metrics import LPIPS


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A small one with its file; its logits are spread out by its pictures."""
    published = PublishedResNet((1, 1, 1, 1), width=8, classes=20)
    published.run(torch.rand(1, 3, 32, 32))
    path = tmp_path_factory.mktemp("resnet") / "resnet.pth"
    torch.save(published.state, path)
    return published, path


def pictures(n, side=256):
    g = torch.Generator().manual_seed(0)
    return [torch.rand(3, side, side + 8 * k, generator=g) ** (k + 1) for k in range(n)]


def test_errors_are_those_of_the_published_network(resnet):
    """Its logits by formulas; the centre of a picture of 256 pixels is cut out by hand."""
    published, path = resnet
    one, five = classification(path)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for x in pictures(3):
        left = (x.shape[2] - 224) // 2
        inner = (x[None, :, 16:240, left : left + 224] - mean) / deviation
        ranked = published.run(inner)[0].argsort(descending=True).tolist()
        for rank in (0, 1, 4, 5, 19):
            shown = Shown(x, label=ranked[rank])
            assert (one.of(shown), five.of(shown)) == (rank > 0, rank > 4)


def test_other_sizes_are_resized_as_pillow_does():
    image = pytest.importorskip("PIL.Image")
    x = (torch.rand(3, 100, 150, generator=torch.Generator().manual_seed(0)) * 255).byte()
    theirs = image.fromarray(x.permute(1, 2, 0).numpy())
    theirs = theirs.resize((384, 256), image.Resampling.BILINEAR).crop((80, 16, 304, 240))
    mean = torch.tensor([0.485, 0.456, 0.406])
    deviation = torch.tensor([0.229, 0.224, 0.225])
    want = torch.from_numpy(np.array(theirs)) / 255
    want = ((want - mean) / deviation).permute(2, 0, 1)
    # It rounds to 8 bits, once for each axis; a step is 1 / (255 · 0.224).
    assert (normalised(x / 255)[0] - want).abs().max() < 1.6 / (255 * 0.224)


def test_labels_that_are_none_are_refused(resnet):
    one, _ = classification(resnet[1])
    with pytest.raises(SettingsError, match="the label 20; expected a class from 0 to 19"):
        one.of(Shown(pictures(1)[0], label=20))
    with pytest.raises(ModelError, match="no ResNet"):
        choose("top-1", Networks(classifier=_saved(resnet[1].parent, {"fc.bias": torch.ones(1)})))
    with pytest.raises(SettingsError, match="--classifier FILE"):
        choose("top-5")


def _saved(folder, state):
    torch.save(state, folder / "other.pth")
    return folder / "other.pth"


def test_lpips_comes_from_two_files(tmp_path):
    trunk = PublishedTrunk("alex").state
    g = torch.Generator().manual_seed(0)
    widths = (64, 192, 384, 256, 256)
    heads = {
        f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1, generator=g) for k, c in enumerate(widths)
    }
    torch.save(trunk | {"classifier.1.bias": torch.ones(3)}, tmp_path / "trunk.pth")
    save_file(heads, tmp_path / "heads.safetensors")
    networks = Networks(lpips=(tmp_path / "trunk.pth", tmp_path / "heads.safetensors"))
    (measure,) = choose("lpips", networks).single
    a, b = (torch.rand(3, 40, 40, generator=g) for _ in range(2))
    want = LPIPS(trunk, heads, network="alex")(a, b)
    assert measure.name == "LPIPS (AlexNet)"
    assert measure.of(Shown(a, b)) == pytest.approx(float(want), rel=1e-6)
    with pytest.raises(SettingsError, match="--lpips TRUNK and --lpips-heads HEADS"):
        choose("lpips")


def test_labels_are_read_from_a_list(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("name,class\nval_1.JPEG,65\nval_2,970\n")
    labels = read_labels(path)
    assert (label_of("val_1", labels), label_of("some/folder/val_2", labels)) == (65, 970)
    with pytest.raises(ImageError, match="val_3 has no label"):
        label_of("val_3", labels)
    path.write_text("val_1.JPEG,65\nval_2,dog\n")
    with pytest.raises(ImageError, match=r"line 2: val_2,dog; expected name,number"):
        read_labels(path)
    with pytest.raises(ImageError, match="cannot be read"):
        read_labels(tmp_path / "gone.csv")


def test_labels_are_names_of_folders_only_where_these_say_it():
    every = [f"n{k:08d}/a" for k in range(1000)]
    assert labels_of_folders(every)["n00000017/a"] == 17
    with pytest.raises(SettingsError, match=r"2 folders .*expected numbers for names"):
        labels_of_folders(["n01440764/a", "n01443537/b"])
    with pytest.raises(SettingsError, match="give --labels"):
        labels_of_folders(["a", "b"])
