"""Models: denoisers of photographs, each in one checkpoint with a card beside it.

A model is a safetensors file with the network's form in its header, and a card of the same name
that says what it was trained on, how well it does, and where it fails. Unconditional priors serve
every task; SR3 models make pictures larger by one factor. Some come with the package.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from sfumato.errors import ModelError, SettingsError
from sfumato.zoo.model import Prior, SuperResolution

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from sfumato.diffusion.precondition import EDMDenoiser
    from sfumato.diffusion.sr3 import SR3Denoiser
    from sfumato.zoo.config import PriorConfig
    from sfumato.zoo.generator import GeneratorConfig
    from sfumato.zoo.sr3 import SR3Config

#: The name of the prior that comes with the package.
EMBEDDED = "embedded"
#: That of the SR3 model, 4x, that comes with it.
SR3 = "sr3"

_WEIGHTS = Path(__file__).parent / "weights"
_NAMES = {EMBEDDED: _WEIGHTS / "prior.safetensors", SR3: _WEIGHTS / "sr3.safetensors"}

AskedPrecision: TypeAlias = Literal["auto", "fp32", "bf16"]


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


def task_of_model(name_or_path: str | Path) -> tuple[int, str] | None:
    """Return how many times larger an SR3 model makes pictures, and the kernel that it undoes.

    None for an unconditional prior. Only the header is read. Raises ModelError.
    """
    header = _header(name_or_path)
    scale = header.get("scale")
    return (scale, str(header.get("kernel", "bicubic"))) if isinstance(scale, int) else None


def native_side(name_or_path: str | Path) -> int:
    """Return the side of the images that a model was made for, in pixels, from its header."""
    header = _header(name_or_path)
    side = header.get("size") or header.get("tile")
    return side if isinstance(side, int) else 512


def is_embedded(path: Path) -> bool:
    """Say whether a file is one of those that come with the package."""
    return path.resolve() in {known.resolve() for known in _NAMES.values()}


def _header(name_or_path: str | Path) -> dict[str, object]:
    from sfumato.io.checkpoints import load_header

    return load_header(_find(name_or_path))


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
    from sfumato.io.checkpoints import load_checkpoint

    path = _find(name_or_path)
    where = as_device(device)
    resolved = best_precision(where) if precision == "auto" else precision
    tensors, header = load_checkpoint(path)
    name = path.stem if isinstance(name_or_path, Path) else str(name_or_path)
    if header.get("kind") == "refinement":
        from sfumato.zoo.refinement import load_refinement

        return load_refinement(
            tensors,
            header,
            path,
            name=name,
            device=where,
            digest=_sha256(path),
            card=_card_of(path),
            precision=resolved,
        )
    denoiser: EDMDenoiser | SR3Denoiser
    config: PriorConfig | SR3Config | GeneratorConfig
    classes: tuple[str, ...] = ()
    if header.get("kind") == "sr3":
        denoiser, config = _sr3_of(tensors, header, path, resolved)
        stride = denoiser.stride
    elif header.get("kind") == "generator":
        denoiser, config = _generator_of(tensors, header, path, resolved)
        stride, classes = config.network.stride, config.classes
    else:
        denoiser, config = _denoiser_of(tensors, header, path, resolved)
        stride = config.network.stride
    denoiser = denoiser.to(where).eval().requires_grad_(False)
    return Prior(
        name=name,
        denoiser=denoiser,
        digest=_sha256(path),
        tile=config.tile,
        stride=stride,
        sigma_max=config.sigma_max,
        precision=denoiser.precision,
        n_parameters=sum(p.numel() for p in denoiser.parameters()),
        card=_card_of(path) or _card_from(config.training, path),
        source=path,
        super_resolution=_super_resolution(denoiser, config),
        classes=classes,
    )


def _generator_of(
    tensors: dict[str, Tensor],
    header: Mapping[str, object],
    path: Path,
    precision: Literal["fp32", "bf16"],
) -> tuple[EDMDenoiser, GeneratorConfig]:
    from sfumato.zoo.config import parse_config
    from sfumato.zoo.generator import GeneratorConfig, build_generator

    config = parse_config(header, path, GeneratorConfig)
    return build_generator(config, tensors, path, precision), config


def _super_resolution(
    denoiser: EDMDenoiser | SR3Denoiser, config: PriorConfig | SR3Config | GeneratorConfig
) -> SuperResolution | None:
    from sfumato.diffusion.sr3 import SR3Denoiser
    from sfumato.zoo.sr3 import SR3Config, default_sigmas

    if not isinstance(config, SR3Config) or not isinstance(denoiser, SR3Denoiser):
        return None
    return SuperResolution(
        scale=config.scale,
        kernel=config.kernel,
        regression=denoiser.regression if config.regression else None,
        sigmas=config.sigmas or default_sigmas(config.prediction),
        sampler="sr3" if config.eta is None else "ddim",
        eta=config.eta,
        relative=config.prediction == "edm",
        samples=config.samples,
    )


def load_denoiser(
    name_or_path: str | Path, *, precision: Literal["fp32", "bf16"] = "fp32"
) -> tuple[EDMDenoiser, PriorConfig]:
    """Load the network of a prior on the CPU, ready to be trained on, and what its header says.

    Raises ModelError as ``load_prior`` does.
    """
    from sfumato.io.checkpoints import load_checkpoint

    path = _find(name_or_path)
    return _denoiser_of(*load_checkpoint(path), path, precision)


def load_sr3(
    name_or_path: str | Path, *, precision: Literal["fp32", "bf16"] = "fp32"
) -> tuple[SR3Denoiser, SR3Config]:
    """Load the network of an SR3 model on the CPU, ready to be trained on, and its header.

    Raises ModelError as ``load_prior`` does.
    """
    from sfumato.io.checkpoints import load_checkpoint

    path = _find(name_or_path)
    return _sr3_of(*load_checkpoint(path), path, precision)


def _sr3_of(
    tensors: dict[str, Tensor],
    header: Mapping[str, object],
    path: Path,
    precision: Literal["fp32", "bf16"],
) -> tuple[SR3Denoiser, SR3Config]:
    from sfumato.zoo.config import parse_config
    from sfumato.zoo.sr3 import SR3Config, build_sr3

    config = parse_config(header, path, SR3Config)
    return build_sr3(config, tensors, path, precision), config


def _denoiser_of(
    tensors: dict[str, Tensor],
    header: Mapping[str, object],
    path: Path,
    precision: Literal["fp32", "bf16"],
) -> tuple[EDMDenoiser, PriorConfig]:
    import torch

    from sfumato.diffusion.precondition import EDMDenoiser
    from sfumato.io.checkpoints import check_size, load_state
    from sfumato.nn import UNet
    from sfumato.zoo.config import PriorConfig, parse_config

    config = parse_config(header, path, PriorConfig)
    with torch.device("meta"):
        denoiser = EDMDenoiser(UNet(config.network), config.sigma_data, precision)
    check_size(denoiser, tensors, path)
    denoiser = denoiser.to_empty(device="cpu")
    load_state(denoiser, tensors)
    return denoiser, config


def _find(name_or_path: str | Path) -> Path:
    path = _NAMES.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        there = ", ".join(name for name, known in _NAMES.items() if known.is_file())
        raise ModelError(
            f"there is no prior {str(name_or_path)!r}",
            expected=f"{there} or the path of a checkpoint (.safetensors)",
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


def _card_from(training: Mapping[str, object], path: Path) -> str:
    """Make a card for a checkpoint without one, from its record of training."""
    record = json.dumps(training, indent=2) if training else "no record of training"
    return f"# {path.stem}\n\nA checkpoint without a card. From its header:\n\n    {record}\n"


def _first_sentence(text: str) -> str:
    """Return the first sentence of the first paragraph that is no heading."""
    for paragraph in text.split("\n\n"):
        if paragraph.strip() and not paragraph.startswith("#"):
            return " ".join(paragraph.split()).split(". ")[0].rstrip(".")
    return ""
