"""Folders of diffusers: unconditional and class-conditional models of pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.zoo.model import Prior
from sfumato.zoo.source import Source

if TYPE_CHECKING:
    import torch

    from sfumato.diffusion.precondition import Precision
    from sfumato.zoo.folder import Folder

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
        build_network(folder),
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
        digest=source.digest,
        tile=folder.tile,
        stride=folder.stride,
        sigma_max=folder.sigma_max,
        precision=precision,
        n_parameters=sum(p.numel() for p in denoiser.parameters()),
        card=source.card or _card(folder),
        source=source.path,
        classes=classes.names,
        fixed_size=folder.fixed_size,
        licence=folder.licence,
        kind=_kind(folder),
    )


def _kind(folder: Folder) -> str:
    form = "EDM" if folder.edm else f"{folder.prediction} of {folder.scheduler.kind}'s times"
    return f"diffusers {folder.kind}, {form}"


def _card(folder: Folder) -> str:
    said = folder.beside.summary or "A folder of diffusers without a card."
    return f"# {folder.path.name}\n\n{said}\n"
