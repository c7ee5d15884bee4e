"""A mask that is read by windows is the operator of the same mask in memory."""

import pytest
import torch

from sfumato.errors import ShapeError
from sfumato.operators import AveragePool, Mask, Window, compose
from sfumato.operators.pixelwise import Shares
from sfumato.tiling import coarse_operator

KNOWN = torch.rand((1, 24, 36), generator=torch.Generator().manual_seed(0)) > 0.4


class Read:
    """A mask that remembers what was read of it."""

    shape = (1, 24, 36)

    def __init__(self):
        self.windows = []

    def read(self, top, left, height, width):
        self.windows.append((top, left, height, width))
        return KNOWN[:, top : top + height, left : left + width]


def test_only_the_window_is_read():
    read = Read()
    assert isinstance(read, Shares)
    A = Mask((3, 24, 36), read)
    part, same = A.crop(Window(4, 8, 6, 10)), Mask((3, 24, 36), KNOWN).crop(Window(4, 8, 6, 10))
    assert read.windows == [(4, 8, 6, 10)]
    x = torch.rand((2, 3, 6, 10))
    assert torch.equal(part(x), same(x))
    assert torch.equal(part.pinv(x), same.pinv(x))


def test_applied_as_a_whole_it_is_read_once():
    read = Read()
    A, x = Mask((3, 24, 36), read), torch.rand((1, 3, 24, 36))
    for _ in range(3):
        assert torch.equal(A(x), x * KNOWN)
    assert read.windows == [(0, 0, 24, 36)]


def test_its_coarse_form_is_read_by_windows_too():
    read = Read()
    A, B = (compose(Mask((3, 24, 36), m), AveragePool((3, 24, 36), 4)) for m in (read, KNOWN))
    coarse, same = coarse_operator(A, 2), coarse_operator(B, 2)
    assert read.windows == []
    window, x = Window(2, 4, 4, 8), torch.rand((1, 3, 4, 8))
    assert torch.equal(coarse.crop(window)(x), same.crop(window)(x))
    assert read.windows == [(4, 8, 8, 16)]


def test_one_of_another_size_is_refused_unread():
    read = Read()
    with pytest.raises(ShapeError, match="a mask of 36 x 24 pixels"):
        Mask((3, 24, 35), read)
    assert read.windows == []
