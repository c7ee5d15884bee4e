"""A stand-in prior (a network of a few weights whose answer is zero), and a mask."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_in import write

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.io import save_checkpoint
from sfumato.nn import UNetConfig, seeded_unet

CONFIG = {
    "kind": "prior", "channels": [4, 8], "blocks": 1, "unshuffle": 2, "embedding": 8,
    "sigma_data": 0.5, "sigma_max": 80.0, "tile": 32,
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def prior(tmp_path_factory):
    """The path of a prior that costs nothing: ``D(x_t) = c_skip x_t``."""
    path = tmp_path_factory.mktemp("prior") / "stand-in.safetensors"
    denoiser = EDMDenoiser(seeded_unet(UNetConfig((4, 8), 1, 2, 8), 0))
    save_checkpoint(path, denoiser.state_dict(), CONFIG)
    return path


@dataclass(frozen=True)
class Scratches:
    """A mask as a file, and as an array of 1 = known."""

    path: Path
    known: np.ndarray


@pytest.fixture(scope="session")
def mask(tmp_path_factory):
    """Scratches across a picture of 53 x 37 pixels, one of them wider than a tile's overlap."""
    missing = np.zeros((37, 53, 1), bool)
    missing[3:20, 10:40] = missing[30] = True
    missing[:, 45] = True
    path = write(tmp_path_factory.mktemp("mask") / "mask.png", np.uint8(255 * missing))
    return Scratches(path, (~missing).astype(float))
