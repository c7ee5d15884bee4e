"""Features: bounded by the perceptual distance, blind to places; few directions of them."""

import pytest
import torch

from sfumato.errors import SettingsError, ShapeError
from sfumato.metrics import (
    PooledAlexNet,
    Projection,
    ShiftTolerantLPIPS,
    frechet_between,
    perceptual,
)


@pytest.fixture(scope="module")
def network():
    try:
        return PooledAlexNet()
    except SettingsError as error:
        pytest.skip(str(error))


def pictures(n=4, size=32, seed=0):
    noise = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(noise, 3, 1, 1)


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_their_distance_is_at_most_the_perceptual_one(network):
    a, b = pictures(), pictures(seed=1).sqrt()
    bound = ShiftTolerantLPIPS()(a, b)
    square = (network(a) - network(b)).square().sum(1)
    assert (square < bound).all()
    trunk = perceptual.Trunk.installed(perceptual.find_weights(), "alex")
    layers = zip(trunk(a), trunk(b), strict=True)
    means = [(w[..., 0, 0], (p - q).mean((2, 3))) for (p, w), (q, _) in layers]
    torch.testing.assert_close(square, sum((w * d**2).sum(1) for w, d in means))


def test_pooled_features_know_no_places(network):
    """A picture of four like quarters looks like one of two, but for what borders change."""
    a = pictures(1, 64)
    moved, blurred = a.roll((16, 16), (2, 3)), torch.nn.functional.avg_pool2d(a, 3, 1, 1)
    there = float((network(a) - network(moved)).square().sum())
    assert there < 0.1 * float((network(a) - network(blurred)).square().sum())


def test_one_vector_a_picture(network):
    a = pictures(3)
    assert network(a).shape == (3, 1152)
    torch.testing.assert_close(network(a)[1:2], network(a[1:2]))
    grey = a[:, :1]
    torch.testing.assert_close(network(grey), network(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(ShapeError, match="at least 21 x 21"):
        network(a[..., :20])


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(perceptual, "PACKAGE", "no_such_package")
    with pytest.raises(SettingsError, match=r'features needs the .*"sfumato\[lpips\]"'):
        PooledAlexNet()


def test_a_projection_finds_the_directions_of_a_set():
    """Points in a plane of ten dimensions keep their distances, up to the unit."""
    plane = torch.linalg.qr(draws(10, 2))[0]
    f = draws(50, 2, seed=1) * torch.tensor([3.0, 0.5]) @ plane.mT + draws(10, seed=2)
    p = Projection.of(f, 2)
    torch.testing.assert_close(torch.pdist(p(f)) * p.scale, torch.pdist(f))
    assert float(p(f).square().mean()) == pytest.approx(1)
    assert float(p(f).mean(0).abs().max()) < 1e-9
    torch.testing.assert_close(p.directions.mT @ p.directions, torch.eye(2).double())
    # Across the plane nothing is seen.
    across = draws(50, 10, seed=3)
    across -= across @ plane @ plane.mT
    torch.testing.assert_close(p(f + across), p(f))


def test_a_projection_is_the_best_one():
    f = draws(60, 8) @ torch.diag(torch.arange(1.0, 9)).double()
    kept = float((Projection.of(f, 3).directions.mT @ torch.cov(f.mT)).square().sum())
    for seed in range(20):
        other = torch.linalg.qr(draws(8, 3, seed=seed))[0]
        assert float((other.mT @ torch.cov(f.mT)).square().sum()) < kept


def test_few_dimensions_make_few_pictures_enough():
    f, g = draws(12, 40), draws(12, 40, seed=1)
    with pytest.raises(SettingsError, match="at least 41"):
        frechet_between(f, g)
    p = Projection.of(f, 4)
    assert frechet_between(p(f), p(g)) > 0


@pytest.mark.parametrize(
    ("n", "kept", "message"),
    [(4, 4, "at least 5 pictures, to find so many directions"), (9, 0, "at least 1")],
)
def test_what_has_not_so_many_directions_is_refused(n, kept, message):
    with pytest.raises(SettingsError, match=message):
        Projection.of(draws(n, 6), kept)


def test_equal_pictures_are_refused():
    with pytest.raises(SettingsError, match="all equal"):
        Projection.of(draws(1, 6).expand(9, 6).clone(), 2)
