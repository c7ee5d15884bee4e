"""A few small photographs, made up."""

import pytest
import torch
from made_up_photographs import draw, write


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Small networks are slower on several threads, and bits depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Three photographs in a folder."""
    folder = tmp_path_factory.mktemp("photographs")
    for k, (h, w) in enumerate([(40, 52), (61, 33), (48, 48)]):
        write(folder / f"{k}.png", draw(h, w, k))
    return folder
