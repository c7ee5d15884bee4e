from pathlib import Path

import numpy as np
import pytest
import torch

from judges import PublishedTrunk
from sfumato.errors import ModelError, SettingsError, ShapeError
from sfumato.metrics import LPIPS, ShiftTolerantLPIPS, perceptual

#: What stlpips_pytorch 0.0.2 itself returns, torchvision and IPython stubbed out: for the patterns
#: of the first test, and for the butterfly of Set5 after 4x bicubic.
PUBLISHED = [0.43175682, 0.32190600]
PUBLISHED_VGG = [0.43128973, 0.52034956]
BUTTERFLY = 0.38539106

BENCHMARK = Path(__file__).parents[3] / "shared" / "data" / "benchmark"


@pytest.fixture(scope="module")
def distance():
    try:
        return ShiftTolerantLPIPS()
    except SettingsError as error:
        pytest.skip(str(error))


def pattern(seed, size=48):
    """Bands of colour: what the convolutions answer to, without a file."""
    t = torch.linspace(0, 1, size)
    rows, cols = t[:, None], t[None, :]
    waves = [torch.sin((seed + 2 + c) * (3 * rows + (c + 1) * cols * cols)) for c in range(3)]
    return torch.stack(waves).mul(0.5).add(0.5)


def test_equals_the_published_implementation(distance):
    a = torch.stack([pattern(0), pattern(3)])
    b = torch.stack([pattern(1), a[1].flip(-1)])
    want = torch.tensor(PUBLISHED)
    torch.testing.assert_close(distance(a, b), want, atol=1e-5, rtol=0)


def test_is_a_distance(distance):
    a, b = pattern(0), pattern(1)
    assert distance(a, a).item() == 0
    assert distance(a, b).item() > 0.01
    torch.testing.assert_close(distance(a, b), distance(b, a))


def test_more_blur_is_farther(distance):
    a = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    blurred = [
        torch.nn.functional.avg_pool2d(a, k, 1, k // 2, count_include_pad=False) for k in (3, 5)
    ]
    d_3, d_5 = (distance(a, b).item() for b in blurred)
    assert 0 < d_3 < d_5


def test_follows_shape_and_batch(distance):
    a = torch.stack([pattern(0, 32), pattern(1, 32)])
    b = torch.stack([pattern(2, 32), pattern(2, 32)])
    both = distance(a, b)
    assert both.shape == (2,)
    assert distance(a[0], b[0]).shape == ()
    torch.testing.assert_close(both, torch.stack([distance(a[0], b[0]), distance(a[1], b[1])]))
    assert distance(a[0].double(), b[0].double()).dtype == torch.float64


def test_grey_is_taken_for_all_three_channels(distance):
    a, b = pattern(0)[:1], pattern(1)[:1]
    torch.testing.assert_close(distance(a, b), distance(a.expand(3, 48, 48), b.expand(3, 48, 48)))


def test_gradients_pass_even_at_black(distance):
    a = torch.zeros(3, 32, 32, requires_grad=True)
    distance(a, pattern(0, 32)).backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert a.grad.abs().sum() > 0


def test_smallest_side(distance):
    a = torch.rand(3, 21, 40)
    assert distance(a, a.flip(-1)).isfinite()
    with pytest.raises(ShapeError, match="at least 21 x 21"):
        distance(a[:, :20], a[:, :20])
    with pytest.raises(ShapeError, match="1 or 3 channels"):
        distance(a[:2], a[:2])


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r'pip install "sfumato\[lpips\]"'):
        ShiftTolerantLPIPS()


@pytest.mark.parametrize("damage", [b"", b"no weights", None])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "weights.pth"
    if damage is None:
        torch.save({"something": torch.zeros(1)}, path)
    else:
        path.write_bytes(damage)
    with pytest.raises(ModelError, match=r"weights\.pth"):
        ShiftTolerantLPIPS(path)


def test_bicubic_on_the_butterfly_of_set5(distance):
    """Set5 as a whole gives 0.326 and Set14 0.403 (all pixels, 4x, Pillow's bicubic both ways)."""
    image = pytest.importorskip("PIL.Image")
    path = BENCHMARK / "Set5" / "img_003.png"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    full = image.open(path).convert("RGB")
    full = full.crop((0, 0, full.width // 4 * 4, full.height // 4 * 4))
    small = full.resize((full.width // 4, full.height // 4), image.Resampling.BICUBIC)
    again = small.resize(full.size, image.Resampling.BICUBIC)
    a, b = (torch.from_numpy(np.array(i)).permute(2, 0, 1) / 255 for i in (full, again))
    assert distance(a, b).item() == pytest.approx(BUTTERFLY, abs=2e-4)


def test_vgg_equals_the_published_implementation_too():
    """Values of stlpips_pytorch 0.0.2 itself, as those of AlexNet."""
    try:
        distance = ShiftTolerantLPIPS(network="vgg")
    except SettingsError as error:
        pytest.skip(str(error))
    a = torch.stack([pattern(0), pattern(3)])
    b = torch.stack([pattern(1), a[1].flip(-1)])
    want = torch.tensor(PUBLISHED_VGG)
    torch.testing.assert_close(distance(a, b), want, atol=1e-5, rtol=0)
    small = torch.rand(3, 18, 18)
    assert distance(small, small.flip(-1)).isfinite()
    with pytest.raises(ShapeError, match="at least 18 x 18"):
        distance(small[:, :17], small[:, :17])


def heads(network):
    """The published heads of LPIPS 0.1, which torchmetrics carries."""
    package = pytest.importorskip("torchmetrics")
    folder = Path(package.__file__).parent / "functional" / "image" / "lpips_models"
    return torch.load(folder / f"{network}.pth", map_location="cpu", weights_only=True)


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_agrees_with_torchmetrics(network, monkeypatch):
    """Theirs takes the trunk from torchvision, in whose place stands one of the same layers."""
    trunk = PublishedTrunk(network)
    lin = heads(network)
    from torchmetrics.functional.image import lpips as theirs

    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_: trunk.modules())
    other = theirs._LPIPS(pretrained=True, net=network)
    a, b = pattern(0, 72)[None], pattern(1, 72)[None]
    with torch.no_grad():
        want = other(2 * a - 1, 2 * b - 1).flatten()
    got = LPIPS(trunk.state, lin, network=network)(a, b)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_lpips_refuses_what_does_not_fit():
    trunk, lin = PublishedTrunk("alex").state, heads("alex")
    with pytest.raises(ModelError, match=r"no tensor 'lin0\.model\.1\.weight'.*both files"):
        LPIPS(trunk, {}, network="alex")
    with pytest.raises(ModelError, match=r"no tensor 'features\.0\.weight'"):
        LPIPS({}, lin, network="alex")
    with pytest.raises(ModelError, match=r"lin2\.model\.1\.weight of shape .*expected \(1, 384"):
        LPIPS(trunk, lin | {"lin2.model.1.weight": torch.ones(1, 3, 1, 1)}, network="alex")
    with pytest.raises(ModelError, match=r"features\.3\.weight of shape"):
        LPIPS(trunk | {"features.3.weight": torch.ones(192, 3, 5, 5)}, lin, network="alex")
