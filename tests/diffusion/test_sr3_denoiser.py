"""SR3 as a denoiser: one formula for all predictions, and what the network should say."""

import pytest
import torch

from sfumato.diffusion import Conditional, Denoiser, denoise, upsampled
from sfumato.diffusion.sr3 import SR3Denoiser
from sfumato.errors import SettingsError, ShapeError

PREDICTIONS = ["eps", "v", "x_0", "edm"]


class Says(torch.nn.Module):
    """A network that says what it is told to, and remembers what it saw."""

    def __init__(self, answer=None):
        super().__init__()
        self.answer, self.saw = answer, None

    def forward(self, x, level, condition):
        self.saw = torch.cat([x, condition], 1), level
        return torch.zeros_like(x) if self.answer is None else self.answer


def images(n=3, side=8):
    g = torch.Generator().manual_seed(n)
    return (torch.randn(n, 3, side, side, generator=g) for _ in range(3))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0, 150.0])
def test_a_network_that_says_the_target_finds_the_image(prediction, sigma):
    x_0, eps, c = images()
    D = SR3Denoiser(Says(), prediction, stride=1, sigma_data=0.1)
    levels = torch.full((3,), sigma)
    x_t = x_0 + sigma * eps
    D.net.answer = D.target(x_0, x_t, levels, c)
    error = (D(x_t, levels, c) - x_0).abs().max()
    assert float(error) < 1e-4 * max(1, sigma)


def test_what_the_network_is_asked_for_and_sees():
    """The paper's: it sees ``√γ x_t`` beside the condition, and is asked for the noise."""
    x_0, eps, c = images()
    sigma = torch.tensor([0.1, 1.0, 5.0])
    s = sigma[:, None, None, None]
    gamma = 1 / (1 + s**2)
    x_t = x_0 + s * eps
    D = SR3Denoiser(Says(), "eps", stride=1)
    D(x_t, sigma, c)
    seen, level = D.net.saw
    torch.testing.assert_close(seen[:, :3], gamma.sqrt() * x_0 + (1 - gamma).sqrt() * eps)
    assert torch.equal(seen[:, 3:], c)
    torch.testing.assert_close(level, sigma.log() / 4)
    close = torch.testing.assert_close
    close(D.target(x_0, x_t, sigma, c), eps, rtol=1e-3, atol=1e-3)
    v = SR3Denoiser(Says(), "v", stride=1).target(x_0, x_t, sigma, c)
    close(v, gamma.sqrt() * eps - (1 - gamma).sqrt() * x_0, rtol=1e-3, atol=1e-3)
    x = SR3Denoiser(Says(), "x_0", stride=1).target(x_0, x_t, sigma, c)
    close(x, x_0)


def test_edm_sees_and_answers_in_units_of_variance_one():
    g = torch.Generator().manual_seed(0)
    c, eps = (torch.randn(64, 3, 16, 16, generator=g) for _ in range(2))
    x_0 = c + 0.1 * torch.randn(64, 3, 16, 16, generator=g)
    for sigma in (0.01, 0.1, 3.0):
        D = SR3Denoiser(Says(), "edm", stride=1, sigma_data=0.1)
        x_t = x_0 + sigma * eps
        D(x_t, sigma, c)
        assert float(D.net.saw[0][:, :3].std()) == pytest.approx(1, abs=0.02)
        target = D.target(x_0, x_t, torch.full((64,), sigma), c)
        assert float(target.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_silent_network_answers_the_condition_without_an_image(prediction):
    _, _, c = images()
    D = SR3Denoiser(Says(), prediction, stride=1)
    assert torch.equal(D.regression(c), c)
    assert float(D.net.saw[0][:, :3].abs().max()) == 0


def test_it_is_a_denoiser_when_it_is_given_a_condition():
    x_0, eps, c = images()
    D = SR3Denoiser(Says(), "edm", stride=1)
    assert isinstance(D, Denoiser)
    assert isinstance(D, Conditional)
    assert torch.equal(denoise(D, x_0 + eps, 1.0, c), D(x_0 + eps, 1.0, c))
    with pytest.raises(ShapeError, match="interpolate it"):
        D(x_0, 1.0, c[:, :, :4])
    with pytest.raises(ShapeError, match="a condition of shape None"):
        denoise(D, x_0, 1.0)
    with pytest.raises(ShapeError, match="expected an SR3 model"):
        denoise(lambda x, sigma: x, x_0, 1.0, c)
    with pytest.raises(SettingsError, match="sigma_data"):
        SR3Denoiser(Says(), "edm", stride=1, sigma_data=0)


def test_sizes_that_are_no_multiples_of_the_stride():
    x = torch.zeros(2, 3, 7, 13)
    D = SR3Denoiser(Says(), "edm", stride=8)
    assert D(x, 0.5, x).shape == x.shape
    assert D.net.saw[0].shape == (2, 6, 8, 16)


def test_interpolation_is_pillows():
    from PIL import Image

    g = torch.Generator().manual_seed(0)
    y = torch.rand(1, 5, 7, generator=g)
    theirs = Image.fromarray(y[0].numpy()).resize((28, 20), Image.Resampling.BICUBIC)
    ours = (upsampled(2 * y[None] - 1, 4) + 1) / 2
    expected = torch.tensor(list(theirs.get_flattened_data())).view(20, 28).clamp(0, 1)
    torch.testing.assert_close(ours[0, 0], expected, atol=1e-5, rtol=0)
