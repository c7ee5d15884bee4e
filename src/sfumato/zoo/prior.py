"""Models: denoisers of photographs, each in one checkpoint with a card beside it.

A model is a file or a folder, in one of the forms of ``sfumato.zoo.formats``, and a card of the
same name that says what it was trained on, how well it does, and where it fails. Unconditional
priors serve every task; SR3 models make pictures larger by one factor.
Some come with the package.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from sfumato.errors import ModelError, SettingsError
from sfumato.zoo.names import EMBEDDED, NAMES, file_of
from sfumato.zoo.source import Source

if TYPE_CHECKING:
    import torch

    from sfumato.diffusion.arithmetic import Precision
    from sfumato.diffusion.precondition import EDMDenoiser
    from sfumato.diffusion.sr3 import SR3Denoiser
    from sfumato.zoo.config import PriorConfig
    from sfumato.zoo.model import Prior
    from sfumato.zoo.sr3 import SR3Config

AskedPrecision: TypeAlias = Literal["auto", "fp32", "bf16", "fp16"]


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
    ['embedded', 'sr3']
    """
    return tuple(
        PriorSummary(
            name,
            path,
            path.stat().st_size,
            _first_sentence(Source(path, name).card),
        )
        for name, path in NAMES.items()
        if path.is_file()
    )


def card(name_or_path: str | Path = EMBEDDED) -> str:
    """Return the model card, as Markdown: sources and licences, training, quality, limits.

    Raises ModelError where there is no such prior.

    >>> card("embedded").splitlines()[0]
    '# The embedded prior'
    """
    return _source(name_or_path).card


def task_of_model(name_or_path: str | Path) -> tuple[int, str] | None:
    """Return how many times larger an SR3 model makes pictures, and the kernel that it undoes.

    None for an unconditional prior. Only the header is read. Raises ModelError.
    """
    header = _source(name_or_path).header or {}
    scale = header.get("scale")
    return (scale, str(header.get("kernel", "bicubic"))) if isinstance(scale, int) else None


def native_side(name_or_path: str | Path) -> int:
    """Return the side of the images that a model was made for, in pixels.

    No weights are read. Raises ModelError.
    """
    from sfumato.zoo.formats import format_of

    source = _source(name_or_path)
    return format_of(source).side(source)


def is_embedded(path: Path) -> bool:
    """Say whether a file is one of those that come with the package."""
    return path.resolve() in {known.resolve() for known in NAMES.values()}


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
    from sfumato.diffusion.arithmetic import best_precision, check_precision
    from sfumato.zoo.formats import format_of

    source = _source(name_or_path)
    where = as_device(device)
    resolved = best_precision(where) if precision == "auto" else precision
    check_precision(where, resolved)
    return replace(format_of(source).load(source, where, resolved), device=str(where))


def load_denoiser(
    name_or_path: str | Path, *, precision: Precision = "fp32"
) -> tuple[EDMDenoiser, PriorConfig]:
    """Load the network of a prior on the CPU, ready to be trained on, and what its header says.

    Raises ModelError as ``load_prior`` does.
    """
    from sfumato.io.checkpoints import load_checkpoint
    from sfumato.zoo.native import denoiser_of

    path = _find(name_or_path)
    return denoiser_of(*load_checkpoint(path), path, precision)


def load_sr3(
    name_or_path: str | Path, *, precision: Precision = "fp32"
) -> tuple[SR3Denoiser, SR3Config]:
    """Load the network of an SR3 model on the CPU, ready to be trained on, and its header.

    Raises ModelError as ``load_prior`` does.
    """
    from sfumato.io.checkpoints import load_checkpoint
    from sfumato.zoo.native import sr3_of

    path = _find(name_or_path)
    return sr3_of(*load_checkpoint(path), path, precision)


def _source(name_or_path: str | Path) -> Source:
    path = _find(name_or_path)
    return Source(path, path.stem if isinstance(name_or_path, Path) else str(name_or_path))


def _find(name_or_path: str | Path) -> Path:
    if str(name_or_path).startswith("hf:"):
        from sfumato.zoo.hub import at_hand

        return at_hand(str(name_or_path))
    path = file_of(name_or_path)
    if not path.exists():
        there = ", ".join(name for name, known in NAMES.items() if known.is_file())
        raise ModelError(
            f"there is no prior {str(name_or_path)!r}",
            expected=f"{there} or the path of a checkpoint (.safetensors, .pt), a folder, or "
            "hf:OWNER/REPO on the hub",
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


def _first_sentence(text: str) -> str:
    """Return the first sentence of the first paragraph that is no heading."""
    for paragraph in text.split("\n\n"):
        if paragraph.strip() and not paragraph.startswith("#"):
            return " ".join(paragraph.split()).split(". ")[0].rstrip(".")
    return ""
