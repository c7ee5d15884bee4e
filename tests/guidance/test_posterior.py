"""Methods that go back through the network, where their answer is known."""

import pytest
import torch

from sfumato.diffusion import Chain, Guidance, Step, karras, linearised
from sfumato.guidance import (
    DDNM,
    DPS,
    MMPS,
    DiffPIR,
    Guide,
    Measurement,
    Paste,
    PiGDM,
    parse_method,
)
from sfumato.operators import AveragePool, Identity, random_mask
from sfumato.samplers import DDIM, DDPM, DPMSolverPP2M, Rounds, sample, walk
from sfumato.testing import GaussianImages, matrix, restorations

SHAPE = (1, 4, 4)
IMAGES = GaussianImages.random(SHAPE)
STEP = Step(1, 0.7, 0.4, 0.0)


def measured(A, sigma_y, seed=1):
    g = torch.Generator().manual_seed(seed)
    y = A(IMAGES.draw(1, g))
    return Measurement(A, y + sigma_y * torch.randn(y.shape, generator=g).double(), sigma_y)


def corrected(guidance, denoiser, x_t, step):
    raw, pull = linearised(denoiser, x_t, step.sigma)
    work, answer = guidance.correcting(raw, step), None
    while True:
        try:
            v = work.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = pull(v)


@pytest.mark.parametrize("sigma_y", [0.1, 0.5])
@pytest.mark.parametrize("A", [AveragePool(SHAPE, 2), random_mask(SHAPE, 0.6)], ids=str)
def test_mmps_is_the_mean_given_y_and_x_t(A, sigma_y):
    """As many iterations as values: then conjugate gradients are exact."""
    m = measured(A, sigma_y)
    x_t = IMAGES.draw(3, torch.Generator().manual_seed(5)) + STEP.sigma
    x_hat = corrected(MMPS(m, iterations=16), IMAGES, x_t, STEP).flatten(1)
    # Both x_t and y measure x_0, with noise σ and σ_y.
    M, C = matrix(A), IMAGES.covariance
    B = torch.cat([torch.eye(16).double(), M])
    noise = torch.cat([torch.full((16,), STEP.sigma), torch.full((len(M),), sigma_y)]).double()
    gain = torch.linalg.solve(B @ C @ B.T + noise.square().diag(), B @ C).T
    seen = torch.cat([x_t.flatten(1), m.y.flatten().expand(3, -1)], 1)
    exact = IMAGES.mean + (seen - IMAGES.mean @ B.T) @ gain.T
    torch.testing.assert_close(x_hat, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma_y", [0.1, 0.0])
def test_mmps_draws_from_the_posterior_of_gaussian_images(sigma_y):
    m = measured(AveragePool(SHAPE, 2), sigma_y)
    mean, covariance = IMAGES.posterior(m)
    scale = covariance.diagonal().mean()
    ratios = []
    for n_steps in (20, 80):
        x = restorations(IMAGES, MMPS(m, iterations=4), DDPM(), n_steps=n_steps, n=2000)
        # 2000 samples of 16 pixels: the mean is off by 1/√2000 = 0.022 of a deviation.
        assert float((x.mean(0) - mean).square().mean() / scale) < 0.03**2
        ratios.append(float(x.var(0).sum() / covariance.diagonal().sum()))
    assert abs(ratios[1] - 1) < 0.12
    assert abs(ratios[1] - 1) < 0.5 * abs(ratios[0] - 1)
    difference = (torch.cov(x.T) - covariance).square().mean().sqrt()
    assert float(difference) < 0.06 * float(scale)


def test_pigdm_is_ddnm_for_gaussian_images_without_correlation():
    """Its Jacobian is then  r²/σ² I."""
    white = GaussianImages(SHAPE, torch.zeros(16).double(), 0.25 * torch.eye(16).double())
    m = measured(AveragePool(SHAPE, 2), 0.0)
    x_t = torch.randn((1, *SHAPE), dtype=torch.float64)
    got = corrected(PiGDM(m, adaptive=False), white, x_t, STEP)
    torch.testing.assert_close(got, DDNM(m).correct(white(x_t, STEP.sigma), STEP))


def test_pigdm_is_the_mean_for_them_with_noise():
    white = GaussianImages(SHAPE, torch.zeros(16).double(), 0.25 * torch.eye(16).double())
    m = measured(AveragePool(SHAPE, 2), 0.2)
    x_t = torch.randn((2, *SHAPE), dtype=torch.float64)
    got, exact = (
        corrected(method, white, x_t, STEP)
        for method in (PiGDM(m, adaptive=False), MMPS(m, iterations=16))
    )
    torch.testing.assert_close(got, exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("sampler", [DDIM(0.5), DDPM()], ids=["ddim", "ddpm"])
def test_pigdm_moves_x_s_as_the_paper_says(sampler):
    """Algorithm 1 adds  √α_t (∂x̂_0/∂x_VP)ᵀ A⁺ (y − A x̂_0)  to the next x_VP."""
    m = measured(AveragePool(SHAPE, 2), 0.0)
    (step, *_) = walk(sampler, karras(6, 5.0))
    x_t = torch.randn((1, *SHAPE), dtype=torch.float64)

    def end(guidance):
        walked = sample(
            IMAGES, sampler, [guidance], [step], x_T=x_t, noise=lambda draw: torch.zeros_like(x_t)
        )
        return next(iter(walked))[1]

    a_t, a_s = ((1 + s**2) ** -0.5 for s in (step.sigma, step.sigma_next))
    moved = a_s * (end(PiGDM(m)) - end(Guidance()))
    x_vp = (a_t * x_t).requires_grad_()
    x_0 = IMAGES(x_vp / a_t, step.sigma)
    v = m.A.pinv(m.y - m.A(x_0)).detach()
    (g,) = torch.autograd.grad(x_0, x_vp, v)
    torch.testing.assert_close(moved, a_t * g, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("posterior", [False, True])
def test_dps_moves_x_s_down_the_gradient(posterior):
    """``x_s`` without and with guidance differ by  ζ ∇ ‖y − A x_0‖² / ‖y − A x_0‖, in x_VP."""
    m, sampler = measured(AveragePool(SHAPE, 2), 0.0), DDPM() if posterior else DDIM(0.5)
    (step, *_) = walk(sampler, karras(6, 5.0))
    x_t = torch.randn((1, *SHAPE), dtype=torch.float64)

    def end(guidances):
        walked = sample(
            IMAGES, sampler, guidances, [step], x_T=x_t, noise=lambda draw: torch.zeros_like(x_t)
        )
        return next(iter(walked))[1]

    a_t, a_s = ((1 + s**2) ** -0.5 for s in (step.sigma, step.sigma_next))
    moved = a_s * (end([DPS(m, zeta=0.0)]) - end([DPS(m, zeta=0.7)]))
    x_vp = (a_t * x_t).requires_grad_()
    residual = m.y - m.A(IMAGES(x_vp / a_t, step.sigma))
    (gradient,) = torch.autograd.grad(residual.square().sum(), x_vp)
    expected = 0.7 * gradient / residual.detach().square().sum().sqrt()
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=1e-9)


def test_diffpir_weighs_measurement_and_estimate():
    m = measured(Identity(SHAPE), 0.3)
    x_0 = torch.randn((1, *SHAPE), dtype=torch.float64)
    rho = 2 * 0.3**2 / STEP.sigma**2
    expected = (m.y + rho * x_0) / (1 + rho)
    torch.testing.assert_close(DiffPIR(m, lam=2.0).correct(x_0, STEP), expected)


@pytest.mark.parametrize("method", ["mmps:iterations=2", "pigdm", "dps", "diffpir"])
@pytest.mark.parametrize(
    "sampler",
    [DDPM(), DDIM(0.0), DDIM(0.85), DPMSolverPP2M(), Rounds()],
    ids=lambda s: type(s).__name__,
)
def test_images_of_a_batch_do_not_know_of_each_other(method, sampler):
    """A mixed batch too: of a method that goes back through the network, and one that does not."""
    measurements = [measured(AveragePool(SHAPE, 2), 0.1, seed) for seed in (1, 2)]
    moves = walk(sampler, karras(4, 5.0))
    g = torch.Generator().manual_seed(0)
    x_T = 5 * torch.randn((3, *SHAPE), generator=g, dtype=torch.float64)
    guidances = [parse_method(method).guidance(m) for m in measurements]
    guidances.append(DDNM(measurements[0]))

    def end(chosen):
        walked = sample(
            IMAGES,
            sampler,
            [guidances[i] for i in chosen],
            moves,
            x_T=x_T[chosen],
            noise=lambda draw: torch.full_like(x_T[chosen], 0.1 * draw),
        )
        return [x for _, x in walked][-1]

    together = end([0, 1, 2])
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], end([i]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["pigdm", "dps"])
def test_overlap_and_guide_are_pulled_back_with_the_measurement(method):
    """The overlap as a loss: its difference in the estimate goes through ``Jᵀ`` too."""
    m = measured(AveragePool(SHAPE, 2), 0.0)
    restored = IMAGES.draw(1, torch.Generator().manual_seed(3))
    frozen = torch.zeros((1, 4, 4), dtype=torch.bool)
    frozen[:, :, :2] = True
    x_t = IMAGES.draw(1, torch.Generator().manual_seed(4)) + STEP.sigma
    raw, pull = linearised(IMAGES, x_t, STEP.sigma)

    def end(context):
        inner = parse_method(f"{method}:context={context}").guidance(m)
        guide = Guide(torch.zeros((1, 1, 2, 2), dtype=torch.float64), 2, until=0.0)
        pasted = Paste(Chain([guide, inner]), restored, frozen)
        return inner, corrected(pasted, IMAGES, x_t, STEP)

    (_, without), (inner, with_context) = end(0.0), end(0.5)
    assert torch.equal(with_context[..., :2], restored[..., :2])
    pasted = torch.where(frozen, restored, raw)
    guided = pasted - AveragePool(SHAPE, 2).pinv(AveragePool(SHAPE, 2)(pasted))
    pulled = pull(inner.drawn(pasted - raw, STEP)) + pull(inner.drawn(guided - pasted, STEP))
    if method == "dps":
        a_t, a_s = ((1 + sigma**2) ** -0.5 for sigma in (STEP.sigma, STEP.sigma_next))
        pulled = -inner.zeta / (a_t * a_s) * pulled
    moved = (with_context - without)[..., 2:]
    torch.testing.assert_close(moved, pulled[..., 2:], rtol=1e-6, atol=1e-9)
    assert float(moved.abs().max()) > 1e-3
