"""Published networks as denoisers: any size, any noise, gradients to the image alone."""

import pytest
import torch
from torch import nn

from sfumato.diffusion import DiscreteDenoiser, linear_alpha_bar
from sfumato.diffusion.parameterisation import EDM, VariancePreserving
from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.diffusion.published import PublishedDenoiser
from sfumato.errors import SettingsError, ShapeError
from sfumato.nn import UNetConfig, seeded_unet


class Recorder(nn.Module):
    """A network that remembers what it saw, and answers with a convolution of it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        nn.init.uniform_(self.conv.weight, -0.3, 0.3, generator=generator)
        nn.init.zeros_(self.conv.bias)
        self.seen = []

    def forward(self, x, level, label=None):
        self.seen.append((tuple(x.shape[2:]), level, label, self.conv(x).dtype))
        return self.conv(x) + (0 if label is None else label[:, None, None, None])


VP = VariancePreserving(linear_alpha_bar(), "eps")


def denoiser(form=VP, stride=4, **options):
    return PublishedDenoiser(Recorder(), form, stride=stride, **options).requires_grad_(False)


def image(height=8, width=12, batch=2):
    return torch.rand(batch, 3, height, width) * 2 - 1


def test_it_agrees_with_the_denoiser_of_discrete_times():
    D = denoiser()
    other = DiscreteDenoiser(D.net, linear_alpha_bar(), "eps")
    x = image()
    for sigma in (0.02, 0.7, 40.0):
        assert torch.allclose(D(x, sigma), other(x, sigma), atol=1e-4 * (1 + sigma))


def test_it_agrees_with_the_preconditioning_of_edm():
    net = seeded_unet(UNetConfig((4, 8), 1, 2, 8), 0)
    nn.init.uniform_(net.tail[-1].weight, -1, 1)
    D, x = PublishedDenoiser(net, EDM(0.4), stride=4), image(7, 9)
    sigma = torch.tensor([0.05, 20.0])
    assert torch.allclose(D(x, sigma), EDMDenoiser(net, 0.4)(x, sigma), atol=1e-5)


def test_each_image_has_its_own_noise():
    D, x = denoiser(), image()
    both = D(x, torch.tensor([0.1, 30.0]))
    alone = torch.cat([D(x[:1], 0.1), D(x[1:], 30.0)])
    assert torch.allclose(both, alone, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 8), (13, 3)])
def test_sides_are_padded_to_the_stride_and_cut_again(height, width):
    D = denoiser()
    assert D(image(height, width), 0.5).shape == (2, 3, height, width)
    assert all(n % 4 == 0 for n in D.net.seen[0][0])


def test_a_network_of_a_fixed_size_sees_no_other():
    D = denoiser(stride=16, fixed_size=True)
    for size in ((16, 16), (3, 16), (9, 1)):
        assert D(image(*size), 0.5).shape[2:] == size
    assert {seen[0] for seen in D.net.seen} == {(16, 16)}
    with pytest.raises(ShapeError, match="at most 16 x 16"):
        D(image(16, 17), 0.5)


def test_dtype_and_gradients():
    D = denoiser()
    x = image().double().requires_grad_()
    y = D(x, 0.5)
    assert y.dtype == torch.float64
    y.sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in D.parameters())


def test_bfloat16_runs_the_network_alone():
    D = denoiser(precision="bf16")
    x = image()
    assert D(x, 0.5).dtype == torch.float32
    assert D.net.seen[0][3] == torch.bfloat16
    assert torch.equal(D(x, 0.0), x)


def test_estimates_are_clipped_where_asked():
    x = 30 * image()
    assert denoiser()(x, 5.0).abs().max() > 1
    assert denoiser(clip=1.0)(x, 5.0).abs().max() == 1


def test_labels():
    D, x = denoiser(n_labels=4, no_class=3), image()
    D(x, 0.5)
    D(x, 0.5, torch.tensor([1, 2]))
    assert [seen[2].tolist() for seen in D.net.seen] == [[3, 3], [1, 2]]
    with pytest.raises(SettingsError, match="one of its 4 classes"):
        denoiser(n_labels=4)(x, 0.5)
    with pytest.raises(SettingsError, match="knows no classes"):
        denoiser()(x, 0.5, torch.tensor([1, 2]))


def test_noise_that_fits_no_batch_is_refused():
    with pytest.raises(ShapeError, match="for a batch of 2"):
        denoiser()(image(), torch.tensor([0.1, 0.2, 0.3]))
