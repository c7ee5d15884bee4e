"""Tiles that enforce what lies inside of them, one after the other: the whole image agrees.

It is mask-shift restoration without a network: every tile begins with another random picture.
"""

from dataclasses import dataclass

import pytest
import torch

from sfumato.operators import (
    Bicubic,
    Convolution,
    Grayscale,
    Operator,
    Window,
    compose,
    gaussian_kernel,
    restricted,
    uniform_kernel,
)


def picture(g, shape, contrast=0.25):
    """Return a random picture with the spectrum of photographs, in [-1, 1]."""
    c, h, w = shape
    rows, cols = torch.fft.fftfreq(h)[:, None], torch.fft.rfftfreq(w)
    frequency = (rows**2 + cols**2).sqrt().clamp(min=1 / max(h, w))
    noise = torch.fft.rfft2(torch.randn((1, c, h, w), generator=g, dtype=torch.float64))
    x = torch.fft.irfft2(noise / frequency, s=(h, w))
    return (contrast * (x - x.mean()) / x.std()).clamp(-0.95, 0.95)


@dataclass(frozen=True)
class Tiles:
    """Windows of ``tile`` pixels; ``margin`` of them next to inner sides are not kept."""

    tile: int
    overlap: int
    margin: int

    def spans(self, n):
        """Yield first and end of a window, first and end of the pixels it keeps."""
        first = kept = 0
        while True:
            end = min(first + self.tile, n)
            until = end if end == n else end - self.margin
            yield first, end, kept, until
            if end == n:
                return
            first, kept = first + self.tile - self.overlap, until


def project(A, y, x):
    return x + A.pinv(y - A(x))


def project_free(A, y, x, free):
    return x + restricted(A, free).pinv(y - A(x))


def restore(A: Operator, y, tiles, *, bits8=False, coarse_first=True):
    """Do tile by tile in raster order; ``coarse_first`` projects all pixels before any freeze."""
    g = torch.Generator().manual_seed(1)
    canvas = torch.full((1, *A.in_shape), torch.nan)
    for top, bottom, r_0, r_1 in tiles.spans(A.in_shape[1]):
        for left, right, c_0, c_1 in tiles.spans(A.in_shape[2]):
            window = Window(top, left, bottom - top, right - left)
            A_W, place = A.inside(window)
            x, y_W = picture(g, A_W.in_shape).float(), place.of(y).float()
            if coarse_first:
                x = project(A_W, y_W, x)
            frozen = ~window.of(canvas).isnan()
            x = torch.where(frozen, window.of(canvas), x)
            free = Window(r_0, c_0, bottom - r_0, right - c_0).within(window)
            x = project_free(A_W, y_W, x, free)
            if bits8:
                x = (x.clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1
            kept = Window(r_0, c_0, r_1 - r_0, c_1 - c_0)
            assert not bool(kept.within(window).of(frozen).any())
            kept.of(canvas).copy_(kept.within(window).of(x))
    assert not bool(canvas.isnan().any())
    return canvas


def residual(A, y, x):
    """Return RMSE and maximum of  A x − y,  in 1/255 of the range."""
    r = (A(x.double()) - y) * 127.5
    return float(r.square().mean().sqrt()), float(r.abs().max())


def bicubic(factor):
    n = 144 // factor * factor
    return Bicubic((1, n, n + 5 * factor), factor)


def measured(A):
    return A(picture(torch.Generator().manual_seed(0), A.in_shape))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bicubic_downsampling_is_met_everywhere(factor):
    A, s = bicubic(factor), factor
    y = measured(A)
    for margin, tile, overlap, goal in ((2 * s, 48, 24, 0.12), (3 * s, 60, 36, 0.05)):
        for coarse_first in (True, False):
            x = restore(A, y, Tiles(tile, overlap, margin), coarse_first=coarse_first)
            rmse, most = residual(A, y, x)
            assert rmse < goal
            assert most < 20 * goal
        x = restore(A, y, Tiles(tile, overlap, margin), bits8=True)
        assert residual(A, y, x)[0] < 0.5


@pytest.mark.parametrize("kernel", [gaussian_kernel(0.4), gaussian_kernel(0.6)])
def test_mild_blurs_are_met_everywhere(kernel):
    A = Convolution((1, 120, 130), kernel)
    y = measured(A)
    tiles = Tiles(56, 28, 3 * A.locality.halo)
    assert residual(A, y, restore(A, y, tiles))[0] < 0.05
    assert residual(A, y, restore(A, y, tiles, bits8=True))[0] < 0.5


@pytest.mark.parametrize("kernel", [gaussian_kernel(1.0), gaussian_kernel(1.5), uniform_kernel(3)])
def test_other_blurs_are_met_as_well_as_at_once(kernel):
    """Their inverse leaves out what rounding would spoil, here as on the whole image."""
    A = Convolution((1, 120, 130), kernel)
    y = measured(A)
    at_once = project(A, y, picture(torch.Generator().manual_seed(1), A.in_shape))
    x = restore(A, y, Tiles(64, 32, 2 * A.locality.halo))
    assert residual(A, y, x)[0] < 2 * residual(A, y, at_once)[0]


def test_grey_is_met_everywhere():
    A = compose(Grayscale((3, 144, 160)), Bicubic((1, 144, 160), 4))
    y = measured(A)
    assert residual(A, y, restore(A, y, Tiles(60, 36, 12)))[0] < 0.05
