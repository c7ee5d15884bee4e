"""Models in this project's own files: priors, SR3 models, generators, converted SR3 models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.zoo.model import Prior, SuperResolution
from sfumato.zoo.source import Source

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sfumato.diffusion.arithmetic import Precision
    from sfumato.diffusion.precondition import EDMDenoiser
    from sfumato.diffusion.sr3 import SR3Denoiser
    from sfumato.zoo.config import PriorConfig
    from sfumato.zoo.generator import GeneratorConfig
    from sfumato.zoo.sr3 import SR3Config

WHAT = "a checkpoint of sfumato (.safetensors)"


def matches(source: Source) -> bool:
    """Tell whether the file is one of ours."""
    return source.header is not None


def side(source: Source) -> int:
    """Return the side of the images that a model was made for, in pixels, from its header."""
    header = source.header or {}
    said = header.get("size") or header.get("tile")
    return said if isinstance(said, int) else 512


def load(source: Source, device: torch.device, precision: Precision) -> Prior:
    """Return the model that the header describes; raises ModelError."""
    from sfumato.io.checkpoints import load_checkpoint

    tensors, header = load_checkpoint(source.path)
    if header.get("kind") == "refinement":
        from sfumato.zoo.refinement import load_refinement

        return load_refinement(
            tensors,
            header,
            source.path,
            name=source.name,
            device=device,
            digest=source.digest,
            card=source.card,
            precision=precision,
        )
    denoiser: EDMDenoiser | SR3Denoiser
    config: PriorConfig | SR3Config | GeneratorConfig
    classes: tuple[str, ...] = ()
    collaborative = False
    if header.get("kind") == "sr3":
        denoiser, config = sr3_of(tensors, header, source.path, precision)
        stride = denoiser.stride
    elif header.get("kind") == "generator":
        denoiser, config = generator_of(tensors, header, source.path, precision)
        stride, classes = config.network.stride, config.classes
    else:
        denoiser, config = denoiser_of(tensors, header, source.path, precision)
        stride, collaborative = config.network.stride, True
    denoiser = denoiser.to(device).eval().requires_grad_(False)
    return Prior(
        name=source.name,
        denoiser=denoiser,
        digest=source.digest,
        tile=config.tile,
        stride=stride,
        sigma_max=config.sigma_max,
        precision=denoiser.precision,
        n_parameters=sum(p.numel() for p in denoiser.parameters()),
        card=source.card or _card_from(config.training, source.path),
        source=source.path,
        super_resolution=_super_resolution(denoiser, config),
        classes=classes,
        collaborative=collaborative,
    )


def generator_of(
    tensors: dict[str, Tensor],
    header: Mapping[str, object],
    path: Path,
    precision: Precision,
) -> tuple[EDMDenoiser, GeneratorConfig]:
    """Return the denoiser of the generator in a file, on the CPU, and what its header says."""
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
        pooled=config.pooled,
    )


def sr3_of(
    tensors: dict[str, Tensor],
    header: Mapping[str, object],
    path: Path,
    precision: Precision,
) -> tuple[SR3Denoiser, SR3Config]:
    """Return the denoiser of the SR3 model in a file, on the CPU, and what its header says."""
    from sfumato.zoo.config import parse_config
    from sfumato.zoo.sr3 import SR3Config, build_sr3

    config = parse_config(header, path, SR3Config)
    return build_sr3(config, tensors, path, precision), config


def denoiser_of(
    tensors: dict[str, Tensor],
    header: Mapping[str, object],
    path: Path,
    precision: Precision,
) -> tuple[EDMDenoiser, PriorConfig]:
    """Return the denoiser of the prior in a file, on the CPU, and what its header says."""
    import torch

    from sfumato.diffusion.precondition import EDMDenoiser
    from sfumato.io.checkpoints import check_size, load_state
    from sfumato.nn import UNet
    from sfumato.nn.memory import given_memory
    from sfumato.zoo.config import PriorConfig, parse_config

    config = parse_config(header, path, PriorConfig)
    with torch.device("meta"):
        denoiser = EDMDenoiser(UNet(config.network), config.sigma_data, precision)
    check_size(denoiser, tensors, path)
    denoiser = given_memory(denoiser)
    load_state(denoiser, tensors)
    return denoiser, config


def _card_from(training: Mapping[str, object], path: Path) -> str:
    """Make a card for a checkpoint without one, from its record of training."""
    record = json.dumps(training, indent=2) if training else "no record of training"
    return f"# {path.stem}\n\nA checkpoint without a card. From its header:\n\n    {record}\n"
