"""The noise left in x_t has its nominal size at every step: a denoiser that knows x_0 shows it."""

import pytest
import torch
from oracle import OPERATORS, SHAPE, SIDE, measure, noise_of

from sfumato.diffusion import Guidance
from sfumato.guidance import DDNM, DDRM, DDNMPlus, DiffPIR, Guide, Paste, Proximal, Replacement
from sfumato.operators import AveragePool, Convolution, Identity, motion_kernel
from sfumato.samplers import DDIM, DDPM, DPMSolverPP2M

FIRST_ORDER = {"ddpm": DDPM(), **{f"ddim {e}": DDIM(e) for e in (0.0, 0.85, 1.0)}}
#: Of 27648 pixels: 2 % is 4.7 standard errors of a standard deviation.
TOLERANCE = 0.02

by_name = pytest.mark.parametrize("sampler", FIRST_ORDER.values(), ids=FIRST_ORDER.keys())
of_operators = pytest.mark.parametrize("A", OPERATORS.values(), ids=OPERATORS.keys())


def check(sampler, guidance, x_0, *, tolerance=TOLERANCE, **settings):
    for move, noise in noise_of(sampler, guidance, x_0, **settings):
        assert abs(float(noise.std()) - 1) < tolerance, move
        assert abs(float(noise.mean())) < 0.025, move
        # What is left is noise, and no share of the image.
        assert abs(float((noise * x_0).mean())) < 0.025, move


@by_name
@pytest.mark.parametrize("travel", [(1, 1), (2, 3)])
def test_without_guidance(sampler, travel):
    check(sampler, Guidance(), measure(Identity(SHAPE), 0.0)[0], travel=travel)


@by_name
@of_operators
def test_ddnm(sampler, A):
    if A.amplifies:
        pytest.skip("DDNM is for exact inverses")
    x_0, m = measure(A, 0.0)
    check(sampler, DDNM(m), x_0, travel=(2, 2))


@by_name
@of_operators
def test_ddnm_plus(sampler, A):
    x_0, m = measure(A, 0.3, seed=3)
    check(sampler, DDNMPlus(m), x_0, travel=(2, 2), seed=1)


@by_name
@of_operators
@pytest.mark.parametrize("sigma_y", [0.0, 0.3])
@pytest.mark.parametrize(("eta_b", "eta_y"), [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (1.0, 0.5)])
def test_ddrm(sampler, A, sigma_y, eta_b, eta_y):
    if A.amplifies and sigma_y == 0:
        pytest.skip("exact inverses amplify the rounding of the oracle")
    x_0, m = measure(A, sigma_y, seed=3)
    check(sampler, DDRM(m, eta_b=eta_b, eta_y=eta_y), x_0, seed=1)


@by_name
@of_operators
def test_ilvr_and_repaint(sampler, A):
    if A.amplifies:
        pytest.skip("replacement is for exact inverses")
    x_0, m = measure(A, 0.0)
    check(sampler, Replacement(m, until=1.0), x_0)
    check(sampler, Replacement(m), x_0, travel=(2, 2))


@by_name
def test_diffpir_without_noise(sampler):
    x_0, m = measure(OPERATORS["pool"], 0.0)
    check(sampler, DiffPIR(m), x_0)


@pytest.mark.parametrize("name", ["bicubic", "gaussian", "composed", "mask"])
@pytest.mark.parametrize("sampler", [DDPM(), DDIM(0.0), DDIM(0.85)], ids=["ddpm", "ddim", "eta"])
def test_ddnm_plus_in_every_singular_direction(name, sampler):
    """Sort the directions by their singular value; each group of them has noise of size 1."""
    A = OPERATORS[name]
    svd = A.svd()
    s = svd.s.expand(A.out_shape).flatten()
    known = s > 0
    order = s[known].argsort()
    runs = []
    for seed in range(4):
        x_0, m = measure(A, 0.25, seed)
        runs.append(
            [
                (
                    svd.v_t(noise)[0].flatten()[known][order],
                    noise - svd.v((svd.s > 0) * svd.v_t(noise)),
                )
                for _, noise in noise_of(sampler, DDNMPlus(m), x_0, seed=10 + seed)
            ]
        )
    n_groups = max(1, 4 * len(order) // 24_000)
    n_null = SHAPE[0] * SIDE**2 - int(known.sum())
    for step in range(len(runs[0])):
        coefficients = torch.stack([run[step][0] for run in runs])
        for group in coefficients.chunk(n_groups, dim=1):
            assert abs(float(group.pow(2).mean()) ** 0.5 - 1) < 4.5 / (2 * group.numel()) ** 0.5
        null = sum(float(run[step][1].pow(2).sum()) for run in runs) / (4 * n_null)
        assert abs(null**0.5 - 1) < 4.5 / (8 * n_null) ** 0.5


def test_the_operators_above_have_directions_of_different_gain():
    for name in ("bicubic", "gaussian", "composed"):
        s = OPERATORS[name].svd().s
        s = s[s > 0]
        assert float(s.max() / s.min()) > 1.3


@by_name
@pytest.mark.parametrize("sigma_y", [0.1, 0.3])
def test_proximal(sampler, sigma_y):
    """It takes no noise that remembers the measurement, whatever η is; A⁺ is damped here."""
    x_0, m = measure(Convolution(SHAPE, motion_kernel(7.0, 30.0)), sigma_y)
    assert m.AF.damping
    check(sampler, Proximal(m), x_0, travel=(2, 2), seed=0)


@by_name
@pytest.mark.parametrize("name", ["bicubic", "pool"])
def test_proximal_where_something_is_measured_and_where_nothing_is(sampler, name):
    """Fresh noise in a sixteenth of the directions, the sampler's own mixture in the others."""
    A = OPERATORS[name]
    x_0, m = measure(A, 0.3, seed=3)
    for move, noise in noise_of(sampler, Proximal(m, tolerance=1e-5), x_0, seed=1):
        measured = A.pinv(A(noise))
        for part, share in ((measured, 1 / 16), (noise - measured, 15 / 16)):
            n = share * noise.numel()
            size = float(part.square().sum() / n) ** 0.5
            assert abs(size - 1) < 4.5 / (2 * n) ** 0.5, (move, share)


def test_proximal_keeps_the_noise_of_what_is_not_measured():
    """With η = 0 nothing is drawn there: the noise is what it was."""
    A = OPERATORS["pool"]
    x_0, m = measure(A, 0.3, seed=3)
    first = None
    for _, noise in noise_of(DDIM(0.0), Proximal(m), x_0):
        rest = noise - A.pinv(A(noise))
        first = rest if first is None else first
        torch.testing.assert_close(rest, first, rtol=0, atol=2e-3)


@by_name
@pytest.mark.parametrize("sigma_y", [0.03, 0.3, 1.0])
def test_proximal_of_one_direction(sampler, sigma_y):
    """Where A = I all directions are alike, so that none hides behind another."""
    x_0, m = measure(Identity(SHAPE), sigma_y)
    check(sampler, Proximal(m), x_0, n_steps=8)


@by_name
def test_paste_beside_a_neighbour(sampler):
    """Tile 2 begins with noise of its own: where it is bound to tile 1, noise is nominal too."""
    x_0, m = measure(OPERATORS["pool"], 0.2)
    frozen = torch.zeros((1, SIDE, SIDE), dtype=torch.bool)
    frozen[:, :, : SIDE // 2] = True
    restored = torch.where(frozen, x_0, torch.nan)
    guidance = Paste(DDNMPlus(m), restored, frozen)
    for move, noise in noise_of(sampler, guidance, x_0, travel=(2, 2)):
        for half in (noise[..., : SIDE // 2], noise[..., SIDE // 2 :]):
            assert abs(float(half.std()) - 1) < 0.027, move  # 13824 pixels


@by_name
def test_guide(sampler):
    x_0, _ = measure(Identity(SHAPE), 0.0)
    check(sampler, Guide(AveragePool(SHAPE, 2)(x_0), 2, until=0.3), x_0, travel=(2, 2))


def test_the_second_order_sampler_only_scales_the_noise_it_has():
    x_0, m = measure(OPERATORS["bicubic"], 0.0)
    first = None
    for _, noise in noise_of(DPMSolverPP2M(), DDNM(m), x_0):
        first = noise if first is None else first
        torch.testing.assert_close(noise, first, rtol=0, atol=2e-3)
    assert abs(float(first.std()) - 1) < TOLERANCE
    for move, noise in noise_of(DPMSolverPP2M(), DDNM(m), x_0, travel=(2, 2)):
        assert abs(float(noise.std()) - 1) < TOLERANCE, move
