"""Distances of sets against torchmetrics and closed forms; what they refuse; what is kept."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from judges import PublishedInception
from sfumato.errors import ImageError, ModelError, SettingsError
from sfumato.evaluation.choice import Networks, choose
from sfumato.evaluation.extractors import Extractor, fed, inception
from sfumato.evaluation.set_measures import frechet, kernel, score
from sfumato.evaluation.statistics import Statistics
from sfumato.io import read_picture
from sfumato.metrics import inception_score
from sfumato.operators import parse

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "chelsea.png"


def pictures(n, seed=0, side=24):
    g = torch.Generator().manual_seed(seed)
    base = torch.rand(n, 3, 4, 4, generator=g)
    smooth = nn.functional.interpolate(base, (side, side), mode="bilinear")
    return list((smooth + 0.1 * seed * torch.rand(n, 3, side, side, generator=g)).clamp(0, 1))


def photographs(n, blurred=False):
    """Parts of a photograph, as they are or four times coarser."""
    x = read_picture(PHOTO).pixels
    g = torch.Generator().manual_seed(int(blurred))
    tops, lefts = (torch.randint(0, m - 48, (n,), generator=g).tolist() for m in x.shape[1:])
    parts = [x[:, a : a + 48, b : b + 48] for a, b in zip(tops, lefts, strict=True)]
    A = parse("average_pool:4").operator((3, 48, 48))
    return [A.pinv(A(p[None]))[0] for p in parts] if blurred else parts


class Means(nn.Module):
    """A feature network as torchmetrics wants one: means over quarters of the picture."""

    num_features = 12

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x.double(), 2).flatten(1)


@pytest.fixture
def means():
    return Extractor("Means", Means(), "means over quarters", digest="abc")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file in the published layout, of random values, with counters as torch writes them."""
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    published = PublishedInception()
    published.run(torch.rand(1, 3, 75, 75))
    counters = {"Mixed_5b.branch1x1.bn.num_batches_tracked": torch.tensor(0)}
    torch.save(published.state | counters, path)
    return path


@pytest.mark.filterwarnings("ignore:Metric `Kernel:UserWarning")
@pytest.mark.parametrize("kind", ["photographs", "made up"])
def test_distances_agree_with_torchmetrics(means, kind):
    fid = pytest.importorskip("torchmetrics.image.fid").FrechetInceptionDistance
    kid = pytest.importorskip("torchmetrics.image.kid").KernelInceptionDistance
    a, b = pictures(30), pictures(40, seed=1)
    if kind == "photographs":
        a, b = photographs(30, blurred=True), photographs(40)
    theirs = fid(feature=Means(), normalize=True)
    theirs.update(torch.stack(b), real=True)
    theirs.update(torch.stack(a), real=False)
    assert frechet(means).of(a, b) == pytest.approx(float(theirs.compute()), abs=1e-4)
    theirs = kid(feature=Means(), normalize=True, subsets=1, subset_size=30)
    theirs.update(torch.stack(b[:30]), real=True)
    theirs.update(torch.stack(a), real=False)
    named = Extractor("Inception", Means(), "means over quarters")
    ours = kernel(named).of(a, b[:30])
    assert ours == pytest.approx(float(theirs.compute()[0]), abs=1e-4)


@pytest.mark.filterwarnings("ignore:Metric `Inception:UserWarning", "ignore:std:UserWarning")
def test_an_inception_score_agrees_with_torchmetrics():
    theirs = pytest.importorskip("torchmetrics.image.inception").InceptionScore

    class Logits(nn.Module):
        def forward(self, x):
            return 9 * nn.functional.adaptive_avg_pool2d(x, 3).flatten(1)

    a = photographs(50)
    other = theirs(feature=Logits(), normalize=False, splits=1)
    other.update(torch.stack(a))
    extractor = Extractor("Inception", Logits(), "", logits=lambda f: f)
    assert score(extractor).of(a, []) == pytest.approx(float(other.compute()[0]), abs=1e-4)


def test_an_inception_score_has_closed_forms():
    """1 where all are alike, the number of classes where each is sure and all are there."""
    assert inception_score(torch.randn(1, 5).expand(8, 5))[0] == pytest.approx(1)
    sure = 1000 * torch.eye(5).repeat(4, 1)
    assert inception_score(sure, splits=4) == pytest.approx((5, 0))
    with pytest.raises(SettingsError, match="3 pictures in 2 splits"):
        inception_score(sure[:3], splits=2)
    with pytest.raises(SettingsError, match="NaN"):
        inception_score(sure / 0)


def test_inception_serves_all_three_and_names_its_protocol(weights):
    networks = Networks(inception=weights)
    chosen = choose("fid kid is", networks)
    a, b = pictures(3), pictures(3, seed=1)
    fid, kid, inception_of_a = (m.of(a, b) for m in chosen.sets)
    f, g = (inception(weights).of(torch.stack(p)).double() for p in (a, b))
    mean = float((f.mean(0) - g.mean(0)).square().sum())
    assert fid >= mean
    assert frechet(networks.extractor).of(a, a) == pytest.approx(0, abs=1e-4 * mean)
    assert kid > 0
    assert 1 <= inception_of_a <= 3
    assert "pytorch-fid" in chosen.sets[0].protocol
    assert networks.extractor.digest[:12] in chosen.sets[0].protocol


def test_pictures_are_fed_as_the_two_programs_do():
    x = torch.rand(1, 3, 40, 37, generator=torch.Generator().manual_seed(0))
    whole = (x * 255).round()
    got = fed(x, "pytorch-fid")
    want = nn.functional.interpolate(whole, (299, 299), mode="bilinear") / 127.5 - 1
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    got = fed(x, "tensorflow")
    for i, j in ((0, 0), (298, 298), (17, 250), (150, 3)):
        r, c = i * 40 / 299, j * 37 / 299
        top, left = int(r), int(c)
        below, right = min(top + 1, 39), min(left + 1, 36)
        u, v = r - top, c - left
        p = whole[0, 1]
        above = p[top, left] * (1 - v) + p[top, right] * v
        under = p[below, left] * (1 - v) + p[below, right] * v
        want = (above * (1 - u) + under * u - 128) / 128
        assert float(got[0, 1, i, j]) == pytest.approx(float(want), abs=1e-5)


def test_grey_pictures_and_mixed_sizes_are_taken(means):
    mixed = [torch.rand(1, 8, 8), torch.rand(3, 8, 12), torch.rand(1, 8, 8)]
    vectors = means.vectors(mixed)
    assert vectors.shape == (3, 12)
    torch.testing.assert_close(vectors[2], means.of(mixed[2].expand(1, 3, 8, 8))[0])


def test_statistics_come_back_and_stand_for_references(means, tmp_path):
    a, b = pictures(20), pictures(25, seed=1)
    vectors = means.vectors(b)
    path = tmp_path / "b.npz"
    told = {"network": "abc", "protocol": means.protocol, "pictures": "0123"}
    Statistics.of(vectors, **told).save(path)
    again = Statistics.load(path)
    assert (again.n, again.network, again.pictures) == (25, "abc", "0123")
    assert frechet(means, again).of(a, []) == pytest.approx(frechet(means).of(a, b), rel=1e-9)
    assert "statistics of 25 pictures" in frechet(means, again).protocol
    f = vectors.numpy()
    np.savez(tmp_path / "theirs.npz", mu=f.mean(0), sigma=np.cov(f, rowvar=False))
    theirs = Statistics.load(tmp_path / "theirs.npz")
    assert frechet(means, theirs).of(a, []) == pytest.approx(frechet(means).of(a, b), rel=1e-6)
    assert "number is not told" in frechet(means, theirs).protocol


def test_statistics_of_another_network_are_refused(means):
    other = Statistics.of(torch.randn(9, 12), network="other", protocol="otherwise fed")
    with pytest.raises(SettingsError, match="of otherwise fed; expected means over quarters"):
        frechet(means, other).of(pictures(3), [])
    with pytest.raises(SettingsError, match="of 5 dimensions; expected 12"):
        frechet(means, Statistics.of(torch.randn(9, 5))).of(pictures(3), [])


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no archive", None, {"mu": np.zeros(3)}])
def test_what_are_no_statistics_is_refused(tmp_path, content):
    path = tmp_path / "s.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(ImageError, match=r"s\.npz"):
        Statistics.load(path)


def test_statistics_never_run_code(tmp_path):
    trap = np.empty(1, object)
    trap[0] = print
    np.savez(tmp_path / "s.npz", mu=trap, sigma=trap)
    with pytest.raises(ImageError, match="holds no statistics"):
        Statistics.load(tmp_path / "s.npz")


def test_sets_of_one_and_numbers_that_are_none_are_refused(means):
    for measure in (frechet(means), kernel(means)):
        with pytest.raises(SettingsError, match="expected at least 2 pictures"):
            measure.of(pictures(1), pictures(9))
        bad = pictures(4)
        bad[2] = bad[2] / 0
        with pytest.raises(SettingsError, match="NaN or infinity"):
            measure.of(bad, pictures(9))


def test_what_is_not_this_network_is_refused(tmp_path, weights):
    path = tmp_path / "net.pth"
    with pytest.raises(ModelError, match="there is no file"):
        inception(path)
    torch.save({"fc.weight": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="does not fit the FIDInception"):
        inception(path)
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.script(nn.Linear(2, 2)).save(path)
    with pytest.raises(ModelError, match="TorchScript program, which is code: it was not read"):
        inception(path)
    with pytest.raises(SettingsError, match="--inception FILE"):
        choose("kid")
