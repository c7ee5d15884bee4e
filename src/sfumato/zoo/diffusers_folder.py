"""Folders of diffusers: unconditional and class-conditional models of pixels."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.errors import ModelError
from sfumato.zoo.model import Prior
from sfumato.zoo.source import Source

if TYPE_CHECKING:
    import torch

    from sfumato.diffusion.arithmetic import Precision
    from sfumato.zoo.folder import Folder

_WEIGHTS = "diffusion_pytorch_model"
_SAID = (
    "model_index.json", "scheduler/scheduler_config.json", "scheduler_config.json", "sfumato.json",
)  # fmt: skip

WHAT = "a folder of diffusers (model_index.json, or the config.json of a UNet2DModel)"


def matches(source: Source) -> bool:
    """Tell whether it is such a folder, or one of another pipeline, which is then refused."""
    from sfumato.zoo.folder import find

    if not source.path.is_dir():
        return False
    return (source.path / "model_index.json").is_file() or find(source.path) is not None


def side(source: Source) -> int:
    """Return the side of the images that the model was trained on, in pixels."""
    from sfumato.zoo.folder import read_folder

    return read_folder(source.path).side


def load(source: Source, device: torch.device, precision: Precision) -> Prior:
    """Return the model of the folder; raises ModelError."""
    from sfumato.diffusion.published import PublishedDenoiser
    from sfumato.zoo.diffusers_network import build_network
    from sfumato.zoo.folder import read_folder

    folder = read_folder(source.path)
    classes, form = folder.classes, folder.parameterisation()
    denoiser = PublishedDenoiser(
        build_network(folder, weights(folder)),
        form,
        stride=folder.stride,
        fixed_size=folder.fixed_size,
        precision=precision,
        clip=folder.clip,
        n_labels=classes.n_labels,
        no_class=classes.no_class,
    )
    denoiser = denoiser.to(device).eval().requires_grad_(False)
    return Prior(
        name=source.name,
        denoiser=denoiser,
        digest=_digest(folder),
        tile=folder.tile,
        stride=folder.stride,
        sigma_max=folder.sigma_max,
        precision=precision,
        n_parameters=sum(p.numel() for p in denoiser.parameters()),
        card=source.card or _card(folder, source.name),
        source=source.path,
        classes=classes.names,
        fixed_size=folder.fixed_size,
        licence=folder.licence,
        kind=_kind(folder),
    )


def sizes(folder: Folder) -> str:
    """Say which images the network sees."""
    return f"{folder.tile} x {folder.tile}, larger by tiles" if folder.fixed_size else "any"


def summary(folder: Folder) -> str:
    """Say in some words what it is: what ``sfumato.json`` says, or its kind."""
    return folder.beside.summary or _kind(folder)


def weights(folder: Folder) -> list[Path]:
    """Return the files that hold the weights; raises ModelError where there are none."""
    whole, index = (folder.network / f"{_WEIGHTS}.safetensors{end}" for end in ("", ".index.json"))
    pickled = folder.network / f"{_WEIGHTS}.bin"
    if whole.is_file():
        return [whole]
    if index.is_file():
        return _shards(index)
    if pickled.is_file():
        return [pickled]
    raise ModelError(
        f"{folder.network} holds no weights",
        expected=f"{whole.name}, or {pickled.name}",
        do="fetch them, or save the network again with safe_serialization",
    )


def _shards(index: Path) -> list[Path]:
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ModelError(f"{index} is no index of weights: {error}") from error
    # Names only, so that an index cannot lead out of its folder.
    return sorted({index.parent / Path(str(name)).name for name in files})


def _digest(folder: Folder) -> str:
    """Return the SHA-256 of all files that were read, by name: not of what lies beside them."""
    said = [folder.path / name for name in _SAID]
    said += [folder.network / name for name in ("config.json", "sfumato.json")]
    files = sorted({file for file in said if file.is_file()} | set(weights(folder)))
    told = []
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        told.append(f"{path.relative_to(folder.path).as_posix()} {digest}\n")
    return hashlib.sha256("".join(told).encode()).hexdigest()


def _kind(folder: Folder) -> str:
    form = "EDM" if folder.edm else f"{folder.prediction} of {folder.scheduler.kind}'s times"
    return f"diffusers {folder.kind}, {form}"


def _card(folder: Folder, name: str) -> str:
    said = folder.beside.summary or "A folder of diffusers without a card."
    return f"# {name}\n\n{said}\n"
