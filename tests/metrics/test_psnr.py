import math

import pytest
import torch

from sfumato.errors import ImageError, ShapeError
from sfumato.metrics import psnr, psnr_luma, to_luma


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_is_ten_log_of_peak_over_mean_square_error():
    a, b = noise(2, 3, 9, 7), noise(2, 3, 9, 7, seed=1)
    for i in range(2):
        mse = float(((a[i] - b[i]) ** 2).mean())
        assert psnr(a, b)[i].item() == pytest.approx(-10 * math.log10(mse))


def test_does_not_depend_on_scale_given_the_data_range():
    a, b = noise(3, 9, 7), noise(3, 9, 7, seed=1)
    assert psnr(2 * a - 1, 2 * b - 1, data_range=2.0).item() == pytest.approx(psnr(a, b).item())


def test_equal_pictures_are_infinitely_close():
    a = noise(3, 8, 8)
    assert psnr(a, a).item() == math.inf


def test_border_does_not_count():
    a = noise(1, 3, 12, 12)
    b = a.clone()
    b[..., 0, :] += 0.5
    b[..., 5, 5] += 0.1
    assert psnr(a, b, border=1).item() == pytest.approx(
        psnr(a[..., 1:-1, 1:-1], b[..., 1:-1, 1:-1]).item()
    )
    assert psnr(a, b, border=1) > psnr(a, b)


@pytest.mark.parametrize(
    ("rgb", "luma"),
    [
        ((0, 0, 0), 16),
        ((1, 1, 1), 235),
        ((1, 0, 0), 81.481),
        ((0, 1, 0), 144.553),
        ((0, 0, 1), 40.966),
    ],
)
def test_luma_of_the_corners_of_bt601(rgb, luma):
    x = torch.tensor(rgb, dtype=torch.float64).view(3, 1, 1)
    assert to_luma(x).item() * 255 == pytest.approx(luma)


def test_psnr_luma_is_psnr_of_luma_cropped():
    a, b = noise(2, 3, 12, 12), noise(2, 3, 12, 12, seed=1)
    want = psnr(to_luma(a)[..., 4:-4, 4:-4], to_luma(b)[..., 4:-4, 4:-4])
    torch.testing.assert_close(psnr_luma(a, b, border=4), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_follows_shape_and_dtype(dtype):
    batch, single = noise(2, 3, 8, 8, dtype=dtype), noise(3, 8, 8, dtype=dtype)
    assert psnr(batch, batch.flip(-1)).shape == (2,)
    assert psnr(single, single.flip(-1)).shape == ()
    assert psnr(single, single.flip(-1)).dtype == dtype
    assert psnr_luma(single, single.flip(-1)).dtype == dtype


@pytest.mark.usefixtures("unchecked")
def test_refuses_what_it_cannot_compare():
    a = noise(3, 8, 8)
    with pytest.raises(ShapeError, match="one shape"):
        psnr(a, noise(3, 8, 9))
    with pytest.raises(ShapeError, match="batch"):
        psnr(a[0], a[0])
    with pytest.raises(ImageError, match="divide 8-bit values by 255"):
        psnr(a.to(torch.uint8), a.to(torch.uint8))
    with pytest.raises(ShapeError, match="less than half"):
        psnr(a, a, border=4)
    with pytest.raises(ShapeError, match="red, green, blue"):
        to_luma(a[:1])
