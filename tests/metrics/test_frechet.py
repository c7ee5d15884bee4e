"""Distances between sets of feature vectors: closed forms, an independent implementation, laws."""

import math

import pytest
import torch
from torch import nn

from sfumato.errors import SettingsError, ShapeError
from sfumato.metrics import (
    frechet_between,
    frechet_distance,
    kernel_distance,
    moments,
    within_span,
)


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(n, rank=None, seed=0):
    f = draws(n, rank or n, seed=seed)
    return f @ f.mT / n


def rotation(n, seed=0):
    return torch.linalg.qr(draws(n, n, seed=seed))[0]


@pytest.mark.parametrize("n", [1, 3, 12])
def test_covariances_that_commute_have_a_closed_form(n):
    """``d² = |m_a − m_b|² + Σ (√λ_a − √λ_b)²``."""
    Q, a, b, m = rotation(n), draws(n, seed=1).abs(), draws(n, seed=2).abs(), draws(n, seed=3)
    A, B = Q @ a.diag() @ Q.mT, Q @ b.diag() @ Q.mT
    expected = float(m.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(m, A, 0 * m, B) == pytest.approx(expected, rel=1e-9)


def test_two_dimensions_have_a_closed_form():
    """``tr (AB)^½ = √(tr AB + 2 √det AB)``, for any two covariances of 2 x 2."""
    A, B, m = covariance(2, seed=1), covariance(2, seed=2), torch.zeros(2)
    trace = float((A @ B).trace() + 2 * (A.det() * B.det()).sqrt()) ** 0.5
    expected = float(A.trace() + B.trace()) - 2 * trace
    assert frechet_distance(m, A, m, B) == pytest.approx(expected, rel=1e-9)


def test_singular_covariances_have_one_too():
    """``(a a^T b b^T)^½`` has the trace ``|a·b|``."""
    a, b, m = draws(5, seed=1), draws(5, seed=2), torch.zeros(5)
    expected = float(a @ a + b @ b - 2 * (a @ b).abs())
    got = frechet_distance(m, torch.outer(a, a), m, torch.outer(b, b))
    assert got == pytest.approx(expected, rel=1e-7)


def test_is_a_distance():
    a, b, c = ((draws(6, seed=s), covariance(6, seed=s)) for s in (1, 2, 3))
    assert frechet_distance(*a, *a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(*a, *b) == pytest.approx(frechet_distance(*b, *a), rel=1e-9)
    ab, bc, ac = (math.sqrt(frechet_distance(*p, *q)) for p, q in ((a, b), (b, c), (a, c)))
    assert 0 < ac < ab + bc


@pytest.mark.parametrize("distance", [frechet_between, kernel_distance])
def test_order_and_rotation_make_no_difference(distance):
    a, b, Q = draws(30, 5), draws(40, 5, seed=1) + 0.3, rotation(5)
    d = distance(a, b)
    assert distance(b, a) == pytest.approx(d)
    assert distance(a.flip(0), b[torch.randperm(40)]) == pytest.approx(d)
    assert distance(a @ Q, b @ Q) == pytest.approx(d)
    assert distance(a.float(), b.float()) == pytest.approx(d, rel=1e-5)


def test_a_frechet_distance_ignores_the_origin_and_knows_its_unit():
    a, b = draws(30, 5), draws(40, 5, seed=1) + 0.3
    assert frechet_between(a + 7, b + 7) == pytest.approx(frechet_between(a, b))
    assert frechet_between(3 * a, 3 * b) == pytest.approx(9 * frechet_between(a, b))


def test_moments_are_unbiased():
    f = draws(7, 3)
    torch.testing.assert_close(moments(f), (f.mean(0), torch.cov(f.mT)))


def test_a_kernel_distance_is_the_mean_over_pairs():
    a, b = draws(4, 3), draws(5, 3, seed=1) + 1

    def k(x, y):
        return (float(x @ y) / 3 + 1) ** 3

    aa = [k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
    bb = [k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j]
    ab = [k(x, y) for x in a for y in b]
    expected = sum(aa) / 12 + sum(bb) / 20 - 2 * sum(ab) / 20
    assert kernel_distance(a, b) == pytest.approx(expected)


def test_a_kernel_distance_is_unbiased():
    """The mean over many pairs of sets of one kind is 0 within its error; a shift is found."""
    same = torch.tensor([
        kernel_distance(draws(8, 2, seed=s), draws(8, 2, seed=1000 + s)) for s in range(400)
    ])  # fmt: skip
    assert abs(float(same.mean())) < 4 * float(same.std()) / 20
    assert kernel_distance(draws(200, 2), draws(200, 2, seed=1) + 0.5) > 0.3


def test_pairs_that_show_the_same_are_no_draws_of_their_own():
    """Two noisy views of each thing: the mean is 0 without the pairs, and below with them."""
    sets = [draws(3, 8, 2, seed=s) for s in range(400)]
    views = [(2 * u + 0.3 * a, 2 * u + 0.3 * b) for u, a, b in sets]
    without, with_them = (
        torch.tensor([kernel_distance(a, b, paired=paired) for a, b in views])
        for paired in (True, False)
    )
    assert abs(float(without.mean())) < 4 * float(without.std()) / 20
    assert float(with_them.mean()) < -4 * float(with_them.std()) / 20
    with pytest.raises(ShapeError, match="pairs of 4 and 5"):
        kernel_distance(draws(4, 2), draws(5, 2), paired=True)


class Means(nn.Module):
    """A feature network as torchmetrics wants one: means over quarters of the picture."""

    num_features = 12

    def forward(self, pictures):
        return nn.functional.adaptive_avg_pool2d(pictures.double(), 2).flatten(1)


@pytest.mark.filterwarnings("ignore:Metric `Kernel:UserWarning")
def test_agrees_with_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")
    kid = pytest.importorskip("torchmetrics.image.kid")
    network = Means()
    a = draws(40, 3, 8, 8).float()
    b = draws(50, 3, 8, 8, seed=1).float() * 1.3 + 0.2
    theirs = fid.FrechetInceptionDistance(feature=network, normalize=True)
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    ours = frechet_between(network(a), network(b))
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-5)

    theirs = kid.KernelInceptionDistance(
        feature=network, normalize=True, subsets=2, subset_size=40
    )
    theirs.update(a, real=True)
    theirs.update(b[:40], real=False)
    ours = kernel_distance(network(a), network(b[:40]))
    assert ours == pytest.approx(float(theirs.compute()[0]), rel=1e-5)


@pytest.mark.parametrize(
    ("distance", "n", "message"),
    [
        (frechet_between, 1, "1 pictures with features of 4 dimensions; expected at least 5"),
        (frechet_between, 4, "at least 5 pictures, or the covariance is singular"),
        (kernel_distance, 1, "at least 2 pictures"),
    ],
)
def test_too_few_pictures_are_refused_by_number(distance, n, message):
    with pytest.raises(SettingsError, match=message):
        distance(draws(n, 4), draws(9, 4))
    with pytest.raises(SettingsError, match=message):
        distance(draws(9, 4), draws(n, 4))


@pytest.mark.parametrize("distance", [frechet_between, kernel_distance])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(distance, value):
    a = draws(9, 4)
    a[3, 2] = value
    for pair in ((a, draws(9, 4)), (draws(9, 4), a)):
        with pytest.raises(SettingsError, match="NaN or infinity"):
            distance(*pair)


def test_shapes_that_differ_are_refused(unchecked):
    for distance in (frechet_between, kernel_distance):
        with pytest.raises(ShapeError, match="the same dimensions"):
            distance(draws(9, 4), draws(9, 3))
        with pytest.raises(ShapeError, match="dimensions"):
            distance(draws(9), draws(9))
    with pytest.raises(ShapeError, match=r"\(n, n\)"):
        frechet_distance(draws(3), covariance(3), draws(2), covariance(2))


def test_what_is_no_covariance_is_refused():
    C, m = covariance(3), draws(3)
    with pytest.raises(SettingsError, match="no covariance"):
        frechet_distance(m, -C, m, C)
    with pytest.raises(SettingsError, match="no covariance"):
        frechet_distance(m, C, m, C + torch.triu(C, 1))
    with pytest.raises(SettingsError, match="NaN"):
        frechet_distance(m, C / 0, m, C)


@pytest.mark.parametrize(("n", "m"), [(3, 4), (2, 2), (9, 30)])
def test_the_span_of_few_vectors_has_the_same_distance(n, m):
    a, b = draws(n, 12) + 5, 2 * draws(m, 12, seed=1) + 6
    want = frechet_distance(*moments(a), *moments(b))
    u, v = within_span(a, b)
    assert u.shape == (n, min(12, n + m))
    assert frechet_distance(*moments(u), *moments(v)) == pytest.approx(want, rel=1e-6)
