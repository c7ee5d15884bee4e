import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from sfumato.errors import SettingsError, ShapeError
from sfumato.metrics import ssim


def pair(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    a = torch.rand(*shape, generator=g, dtype=torch.float64)
    return a, (a + 0.2 * torch.randn(*shape, generator=g, dtype=torch.float64)).clamp(0, 1)


def reference(a, b):
    """Eq. 13 of Wang et al. on one plane, by SciPy's Gaussian filter."""

    def blur(x):
        return gaussian_filter(x, sigma=1.5, radius=5)[5:-5, 5:-5]

    c_1, c_2 = 0.01**2, 0.03**2
    m_a, m_b = blur(a), blur(b)
    v_a, v_b, cov = blur(a * a) - m_a**2, blur(b * b) - m_b**2, blur(a * b) - m_a * m_b
    top = (2 * m_a * m_b + c_1) * (2 * cov + c_2)
    return np.mean(top / ((m_a**2 + m_b**2 + c_1) * (v_a + v_b + c_2)))


def test_equals_the_formula_by_another_filter():
    a, b = pair(2, 3, 24, 31)
    for i in range(2):
        want = np.mean([reference(a[i, c].numpy(), b[i, c].numpy()) for c in range(3)])
        assert ssim(a, b)[i].item() == pytest.approx(want, abs=1e-12)


def test_equals_torchmetrics_where_the_window_is_inside():
    """Its own mean takes in the border, where the window looks at reflections."""
    pytest.importorskip("torchmetrics")
    from torchmetrics.functional.image import structural_similarity_index_measure as other

    a, b = (x.float() for x in pair(2, 3, 40, 33))
    _, full = other(a, b, data_range=1.0, reduction="none", return_full_image=True)
    want = full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
    torch.testing.assert_close(ssim(a, b), want, atol=1e-5, rtol=0)


def test_constant_pictures_leave_the_luminance_term():
    a, b = torch.full((1, 16, 16), 0.25).double(), torch.full((1, 16, 16), 0.75).double()
    want = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert ssim(a, b).item() == pytest.approx(want)


def test_is_symmetric_and_1_for_equal_pictures():
    a, b = pair(3, 16, 16)
    assert ssim(a, a).item() == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(ssim(a, b), ssim(b, a))
    assert ssim(a, b) < 1


def test_scales_with_the_data_range():
    a, b = pair(3, 16, 16)
    torch.testing.assert_close(ssim(255 * a, 255 * b, data_range=255.0), ssim(a, b))


def test_border_is_cut_before():
    a, b = pair(3, 24, 24)
    torch.testing.assert_close(ssim(a, b, border=4), ssim(a[..., 4:-4, 4:-4], b[..., 4:-4, 4:-4]))


def test_small_pictures_need_a_smaller_window():
    a, b = pair(3, 8, 24)
    with pytest.raises(ShapeError, match=r"at least 11 x 11.*smaller odd window"):
        ssim(a, b)
    assert 0 < ssim(a, b, window=7).item() < 1
    with pytest.raises(SettingsError, match="odd"):
        ssim(a, b, window=6)


def test_follows_shape_and_dtype():
    a, b = (x.float() for x in pair(2, 3, 16, 16))
    assert ssim(a, b).shape == (2,)
    assert ssim(a[0], b[0]).shape == ()
    assert ssim(a, b).dtype == torch.float32
