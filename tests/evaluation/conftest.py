"""A picture, a folder of pictures, and a prior that costs nothing."""

import pytest
import torch

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.io import Picture, save_checkpoint, write_picture
from sfumato.nn import UNetConfig, seeded_unet

CONFIG = {
    "kind": "prior", "channels": [4, 8], "blocks": 1, "unshuffle": 2, "embedding": 8,
    "sigma_data": 0.5, "sigma_max": 80.0, "tile": 32,
}  # fmt: skip


def waves(height, width, seed=0):
    """Return soft waves with an edge (3, height, width), of 8 bits."""
    y, x = torch.meshgrid(torch.arange(height) / 9, torch.arange(width) / 7, indexing="ij")
    u = 0.5 + 0.3 * torch.stack(
        [torch.sin((k + 1) * x / 2 + seed) * torch.cos(y) for k in range(3)]
    )
    u[:, :, width // 2 :] = 1 - u[:, :, width // 2 :]
    return (u * 255).round() / 255


@pytest.fixture(scope="session")
def photo():
    return waves(48, 40)


@pytest.fixture
def data(tmp_path):
    """A folder of data sets, with one of three pictures in it."""
    for k in range(3):
        write_picture(Picture(waves(34, 26, k)), tmp_path / "data" / "Set0" / f"img_{k}.png")
    return tmp_path / "data"


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """The path of a prior that costs nothing."""
    path = tmp_path_factory.mktemp("prior") / "stand-in.safetensors"
    denoiser = EDMDenoiser(seeded_unet(UNetConfig((4, 8), 1, 2, 8), 0))
    save_checkpoint(path, denoiser.state_dict(), CONFIG)
    return path
