import math

import pytest
import torch

from sfumato.errors import SettingsError, ShapeError
from sfumato.metrics import consistency, rmse


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_rmse_is_the_length_over_the_root_of_the_count():
    a, b = noise(2, 3, 5, 4), noise(2, 3, 5, 4, seed=1)
    assert rmse(a, b).item() == pytest.approx(float((a - b).norm()) / math.sqrt(a.numel()))


def test_a_mask_counts_only_what_it_marks_for_any_values_elsewhere():
    a, b = noise(1, 3, 6, 6), noise(1, 3, 6, 6, seed=1)
    known = (noise(1, 1, 6, 6, seed=2) > 0.5).double()
    want = (a - b)[known.expand_as(a).bool()].square().mean().sqrt()
    torch.testing.assert_close(rmse(a, b, known), want)
    far = torch.where(known > 0, b, b + 100)
    torch.testing.assert_close(rmse(a, far, known), want)


def test_weights_need_not_sum_to_one():
    a, b, w = noise(7), noise(7, seed=1), noise(7, seed=2)
    torch.testing.assert_close(rmse(a, b, w), rmse(a, b, 10 * w))
    torch.testing.assert_close(rmse(a, b, torch.ones(7).double()), rmse(a, b))


def test_nothing_measured_is_explained_by_anything():
    assert rmse(noise(3), noise(3, seed=1), torch.zeros(3)).item() == 0


def test_units():
    y = noise(1, 3, 8, 8)
    report = consistency(y + 3 / 255, y)
    assert report.rmse_255 == pytest.approx(3)
    assert report.mse_1e5 == pytest.approx(1e5 * (3 / 255) ** 2)
    wide = consistency(2 * (y + 3 / 255) - 1, 2 * y - 1, data_range=2.0)
    assert wide.rmse_255 == pytest.approx(3)
    assert wide.mse_1e5 == pytest.approx(report.mse_1e5)


def test_rounding_to_8_bits_costs_a_step_over_root_12():
    y = noise(3, 200, 200)
    rounded = (255 * y).round() / 255
    assert consistency(rounded, y).rmse_255 == pytest.approx(1 / math.sqrt(12), rel=0.01)


def test_many_small_errors_are_summed_exactly():
    y = torch.zeros(1, 1, 3000, 3000)
    assert rmse(y + 1e-3, y).item() == pytest.approx(1e-3, rel=1e-6)


def test_refuses_what_it_cannot_compare():
    a = noise(3, 4)
    with pytest.raises(ShapeError, match="one shape"):
        rmse(a, a[:2])
    with pytest.raises(ShapeError, match="broadcasts"):
        rmse(a, a, torch.ones(3))
    with pytest.raises(SettingsError, match="0 or more"):
        rmse(a, a, -torch.ones(4))
    with pytest.raises(SettingsError, match="data_range"):
        consistency(a, a, data_range=0)
