"""Classifiers of noisy images, as guided-diffusion (ADM) publishes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.errors import ModelError
from sfumato.zoo import adm
from sfumato.zoo.model import Classifier
from sfumato.zoo.prior import AskedPrecision, as_device
from sfumato.zoo.source import Source

if TYPE_CHECKING:
    import torch

    from sfumato.zoo.adm_layout import ADMForm
    from sfumato.zoo.adm_options import ADMOptions


def load_classifier(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    precision: AskedPrecision = "auto",
) -> Classifier:
    """Load ``256x256_classifier.pt`` or one like it, as published or converted.

    Raises ModelError where it is missing, damaged or no classifier.
    """
    from sfumato.diffusion.arithmetic import best_precision
    from sfumato.diffusion.classifier import NoisyClassifier

    source = Source(Path(path), str(path))
    if not source.path.exists():
        raise ModelError(f"there is no classifier {path}", do="check the name")
    if not adm.matches(source):
        raise ModelError(
            f"{path} is no classifier",
            expected="one of guided-diffusion, as 256x256_classifier.pt",
        )
    form, options = adm.read(source)
    if not form.is_classifier:
        raise ModelError(f"{path} is no classifier", do="give it as --model")
    where = as_device(device)
    network = NoisyClassifier(
        _network(source, form, options),
        options.alpha_bar(),
        side=form.side,
        precision=best_precision(where) if precision == "auto" else precision,
        time_scale=options.time_scale,
    )
    return Classifier(
        network.to(where).eval().requires_grad_(False),
        options.classes or (),
        adm.digest_of(source, options),
        source.path,
    )


def _network(source: Source, form: ADMForm, options: ADMOptions) -> torch.nn.Module:
    import torch

    from sfumato.io.checkpoints import load_state
    from sfumato.nn import ADMClassifier, ADMClassifierConfig
    from sfumato.nn.memory import given_memory

    if form.resize != "resnet" or options.num_head_channels is None:
        raise ModelError(
            f"{source.path} is another classifier than the published ones",
            expected="residual blocks that resize, and num_head_channels",
        )
    config = ADMClassifierConfig(
        width=form.width,
        channels=form.channels,
        blocks=form.blocks,
        attention=form.attention,
        n_classes=form.n_classes or 0,
        side=form.side,
        head_width=options.num_head_channels,
        scale_shift=form.scale_shift,
    )
    with torch.device("meta"):
        network = ADMClassifier(config)
    network = given_memory(network)
    load_state(network, adm.tensors_of(source))
    return network
