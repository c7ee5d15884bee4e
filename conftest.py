"""The examples in docstrings and pages run where ``torch``, ``sfumato`` and a few files are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def files_of_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that examples read."""
    import numpy as np
    import torch

    from sfumato.io import Picture, save_checkpoint, write_picture
    from sfumato.nn import UNet, UNetConfig

    folder = tmp_path_factory.mktemp("examples")
    grey = torch.linspace(0, 1, 480 * 640).reshape(1, 480, 640)
    for name in ("photo.png", "holiday/beach.jpg", "holiday/tent.png"):
        write_picture(Picture(grey.expand(3, -1, -1)), folder / name)
    write_picture(Picture((grey > 0.9).float()), folder / "scratches.png")
    np.save(folder / "coefficients.npy", np.zeros((3, 64, 64), np.float32))
    unet = UNet(UNetConfig(channels=(4,), blocks=1, embedding=8))
    save_checkpoint(folder / "prior.safetensors", unet.state_dict(), {"channels": 64})
    return folder


@pytest.fixture(autouse=True)
def _stage_for_examples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every example (and no test) its names, and a folder of its own with those files."""
    if not isinstance(request.node, pytest.DoctestItem):
        return
    import torch

    import sfumato

    request.getfixturevalue("doctest_namespace").update(torch=torch, sfumato=sfumato)
    folder: Path = request.getfixturevalue("tmp_path")
    shutil.copytree(request.getfixturevalue("files_of_examples"), folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
