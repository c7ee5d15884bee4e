"""Holes of a start: filled from what lies around, and nothing known is changed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.guidance import Measurement, start_image
from sfumato.guidance.start import filled
from sfumato.operators import Mask, parse


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0, 1), st.integers(0, 99))
def test_filling_keeps_what_is_known_and_goes_no_further(height, width, share, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 3, height, width, generator=g)
    known = (torch.rand(2, 3, height, width, generator=g) < share).float()
    y = filled(x, known)
    assert torch.equal(y * known, x * known)
    for a, b, m in zip(y.flatten(0, 1), x.flatten(0, 1), known.flatten(0, 1), strict=True):
        seen = b[m > 0]
        if not len(seen):
            assert (a == 0).all()
        else:
            assert seen.min() - 1e-5 <= a.min()
            assert a.max() <= seen.max() + 1e-5


@pytest.mark.parametrize("words", ["{}", "{} | grayscale", "{} | average_pool:2"])
def test_a_hole_in_a_plain_picture_is_found_no_more(words):
    A = parse(words.format("random_mask:0.4")).operator((3, 16, 24))
    x = torch.full((1, 3, 16, 24), 0.3)
    start = start_image(Measurement(A, A(x)), fill=True)
    assert torch.allclose(start, x, atol=1e-4)


def test_without_being_asked_holes_stay_grey():
    known = torch.zeros(1, 8, 8)
    known[:, :4] = 1
    A, x = Mask((3, 8, 8), known), torch.full((1, 3, 8, 8), 0.3)
    assert (start_image(Measurement(A, A(x)))[..., 4:, :] == 0).all()
