"""Unconditional priors: denoisers of photographs, each in one checkpoint with a card beside it.

A prior is a safetensors file with the network's form in its header, and a card of the same name
that says what it was trained on, how well it does, and where it fails. One comes with the package.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from sfumato.errors import ModelError, SettingsError

if TYPE_CHECKING:
    import torch

    from sfumato.diffusion import Denoiser
    from sfumato.diffusion.precondition import EDMDenoiser
    from sfumato.zoo.config import PriorConfig

#: The name of the prior that comes with the package.
EMBEDDED = "embedded"

_WEIGHTS = Path(__file__).parent / "weights"
_NAMES = {EMBEDDED: _WEIGHTS / "prior.safetensors"}

AskedPrecision: TypeAlias = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Prior:
    """A denoiser, and what one must know to use it and to name it in a report.

    ``denoiser(x_t, sigma)`` estimates ``x_0`` from ``x_t = x_0 + sigma eps``, images in [-1, 1] of
    any size, ``sigma`` one number or (batch,), at most ``sigma_max``. ``tile`` is the recommended
    side of a tile in pixels, ``stride`` what sides are padded to multiples of inside. ``digest``
    is the SHA-256 of the file ``source`` and names the weights.
    """

    name: str
    denoiser: Denoiser
    digest: str
    tile: int
    stride: int
    sigma_max: float
    precision: Literal["fp32", "bf16"]
    n_parameters: int
    card: str
    source: Path


@dataclass(frozen=True)
class PriorSummary:
    """A prior in a list: its name, its file, and the first sentence of its card."""

    name: str
    source: Path
    size_bytes: int
    summary: str


def list_priors() -> tuple[PriorSummary, ...]:
    """Describe the priors that come with the package, without loading any of them (nor torch).

    >>> [prior.name for prior in list_priors()]
    ['embedded']
    """
    return tuple(
        PriorSummary(name, path, path.stat().st_size, _first_sentence(_card_of(path)))
        for name, path in _NAMES.items()
        if path.is_file()
    )


def card(name_or_path: str | Path = EMBEDDED) -> str:
    """Return the model card, as Markdown: sources and licences, training, quality, limits.

    Raises ModelError where there is no such prior.

    >>> card("embedded").splitlines()[0]
    '# The embedded prior'
    """
    return _card_of(_find(name_or_path))


def load_prior(
    name_or_path: str | Path = EMBEDDED,
    *,
    device: str | torch.device = "cpu",
    precision: AskedPrecision = "auto",
) -> Prior:
    """Load a prior by its name or from a checkpoint, ready to evaluate on ``device``.

    ``precision`` is that of the network: "auto" takes "bf16" where the device computes in it
    natively. Gradients flow to ``x_t`` where it asks for them, never to the weights.

    Raises ModelError where the file is missing, damaged, foreign or contradicts itself, and
    SettingsError where the device is not there or ``precision`` is unknown.

    >>> prior = load_prior()
    >>> prior.name, prior.stride
    ('embedded', 16)
    """
    from sfumato.diffusion.precondition import best_precision

    path = _find(name_or_path)
    where = as_device(device)
    resolved = best_precision(where) if precision == "auto" else precision
    denoiser, config = load_denoiser(path, precision=resolved)
    denoiser = denoiser.to(where).eval().requires_grad_(False)
    return Prior(
        name=path.stem if isinstance(name_or_path, Path) else str(name_or_path),
        denoiser=denoiser,
        digest=_sha256(path),
        tile=config.tile,
        stride=config.network.stride,
        sigma_max=config.sigma_max,
        precision=denoiser.precision,
        n_parameters=sum(p.numel() for p in denoiser.parameters()),
        card=_card_of(path) or _card_from(config, path),
        source=path,
    )


def load_denoiser(
    name_or_path: str | Path, *, precision: Literal["fp32", "bf16"] = "fp32"
) -> tuple[EDMDenoiser, PriorConfig]:
    """Load the network of a prior on the CPU, ready to be trained on, and what its header says.

    Raises ModelError as ``load_prior`` does.
    """
    import torch

    from sfumato.diffusion.precondition import EDMDenoiser
    from sfumato.io.checkpoints import load_checkpoint, load_state
    from sfumato.nn import UNet
    from sfumato.zoo.config import parse_config

    path = _find(name_or_path)
    tensors, header = load_checkpoint(path)
    config = parse_config(header, path)
    with torch.device("meta"):
        denoiser = EDMDenoiser(UNet(config.network), config.sigma_data, precision)
    described = sum(t.numel() for t in denoiser.state_dict().values())
    held = sum(t.numel() for t in tensors.values())
    if described != held:
        # A header may describe a network that no memory holds: nothing is allocated for it.
        raise ModelError(
            f"{path} describes a network of {described} numbers and holds {held}",
            do="the file is damaged or was written by another program: fetch it again",
        )
    denoiser = denoiser.to_empty(device="cpu")
    load_state(denoiser, tensors)
    return denoiser, config


def _find(name_or_path: str | Path) -> Path:
    path = _NAMES.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise ModelError(
            f"there is no prior {str(name_or_path)!r}",
            expected=f"{', '.join(_NAMES)} or the path of a checkpoint (.safetensors)",
        )
    return path


def as_device(device: str | torch.device) -> torch.device:
    """Return the torch device of that name; SettingsError where this machine has none such."""
    import torch

    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise SettingsError(f"device {device!r}", expected="cpu, cuda, cuda:1, ...") from error
    if where.type not in ("cpu", "cuda"):
        raise SettingsError(f"device {device!r}", expected="cpu, cuda, cuda:1, ...")
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"device {device!r}, but torch sees {torch.cuda.device_count()} CUDA devices",
            do="use --device cpu, or install a torch built for this machine",
        )
    return where


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _card_of(path: Path) -> str:
    beside = path.with_suffix(".md")
    return beside.read_text(encoding="utf-8") if beside.is_file() else ""


def _card_from(config: PriorConfig, path: Path) -> str:
    """Make a card for a checkpoint without one, from its record of training."""
    record = json.dumps(config.training, indent=2) if config.training else "no record of training"
    return f"# {path.stem}\n\nA checkpoint without a card. From its header:\n\n    {record}\n"


def _first_sentence(text: str) -> str:
    """Return the first sentence of the first paragraph that is no heading."""
    for paragraph in text.split("\n\n"):
        if paragraph.strip() and not paragraph.startswith("#"):
            return " ".join(paragraph.split()).split(". ")[0].rstrip(".")
    return ""
