"""Checkpoints of guided-diffusion (ADM), as published or converted, as priors.

Reference: Dhariwal and Nichol 2021, arXiv 2105.05233; github.com/openai/guided-diffusion (MIT).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.errors import ModelError
from sfumato.zoo.model import Prior
from sfumato.zoo.source import Source

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sfumato.diffusion.arithmetic import Precision
    from sfumato.zoo.adm_layout import ADMForm
    from sfumato.zoo.adm_options import ADMOptions

WHAT = "a checkpoint of guided-diffusion (.pt)"
KIND = "adm"
_COLOURS = 3


def matches(source: Source) -> bool:
    """Tell whether the tensors are named as theirs, or were converted from there."""
    from sfumato.zoo.adm_layout import looks_like_adm

    if source.header is not None:
        return source.header.get("kind") == KIND
    return looks_like_adm(source.shapes)


def side(source: Source) -> int:
    """Return the side of the images that the model was made for, in pixels."""
    return read(source)[1].image_size or 0


def read(source: Source, options: Path | None = None) -> tuple[ADMForm, ADMOptions]:
    """Return the form of a network and how it was trained, of all but its weights.

    ``options`` is JSON to be read instead of the one beside the file. Raises ModelError.
    """
    from sfumato.zoo.adm_layout import plain_name, read_form
    from sfumato.zoo.adm_options import ADMOptions, parse_options, read_options

    beside = source.path.with_suffix(".json")
    if options is not None:
        said = read_options(options)
    elif source.header is not None:
        said = parse_options(source.header.get("options"), source.path)
    else:
        said = read_options(beside) if beside.is_file() else ADMOptions()
    shapes = {plain_name(name): shape for name, shape in source.shapes.items()}
    form = read_form(shapes, source.path)
    settled = said.settled(form)
    if settled.classes is not None and len(settled.classes) != form.n_classes:
        raise ModelError(
            f"{len(settled.classes)} names of classes for {source.path}",
            expected=f"{form.n_classes or 'none: it knows no classes'}",
        )
    return form, settled


def tensors_of(source: Source) -> dict[str, Tensor]:
    """Return the tensors under the published names; they may still lie in the file.

    Raises ModelError where weights are infinite or no numbers.
    """
    from sfumato.io.pickles import some
    from sfumato.zoo.adm_layout import plain_name

    tensors = {plain_name(name): t for name, t in source.tensors.items()}
    broken = [name for name, t in tensors.items() if not bool(t.isfinite().all())]
    if broken:
        raise ModelError(
            f"{source.path} holds weights that are no numbers: {some(broken)}", do="fetch it again"
        )
    return tensors


def convert(
    source: Source, options: Path | None = None
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Return the tensors and the configuration that ``save_checkpoint`` takes.

    The tensors keep their names; of the configuration every choice is made.
    """
    _, settled = read(source, options)
    tensors = {name: t.clone() for name, t in tensors_of(source).items()}
    return tensors, {"kind": KIND, "options": settled.model_dump(mode="json")}


def load(source: Source, device: torch.device, precision: Precision) -> Prior:
    """Return the model; raises ModelError where it is damaged or no prior."""
    from sfumato.diffusion.parameterisation import VariancePreserving
    from sfumato.diffusion.published import PublishedDenoiser
    from sfumato.zoo.adm_network import build_adm

    form, options = read(source)
    _check_prior(form, source.path)
    parameterisation = VariancePreserving(
        options.alpha_bar(),
        "x_0" if options.predict_xstart else "eps",
        time_scale=options.time_scale,
    )
    denoiser = PublishedDenoiser(
        build_adm(form, options, tensors_of(source), precision),
        parameterisation,
        stride=form.stride,
        precision=precision,
        n_labels=form.n_classes or 0,
    )
    denoiser = denoiser.to(device).eval().requires_grad_(False)
    image_size = options.image_size or form.side
    return Prior(
        name=source.name,
        denoiser=denoiser,
        digest=digest_of(source, options),
        tile=-(-image_size // form.stride) * form.stride,
        stride=form.stride,
        sigma_max=parameterisation.sigma_max,
        precision=precision,
        n_parameters=sum(p.numel() for p in denoiser.parameters()),
        card=source.card or _card(source, form, options),
        source=source.path,
        classes=options.classes or (),
    )


def _check_prior(form: ADMForm, path: Path) -> None:
    if form.is_classifier:
        raise ModelError(
            f"{path} is a classifier", expected="a model of images", do="give it as --classifier"
        )
    if form.inputs != _COLOURS or form.outputs not in (_COLOURS, 2 * _COLOURS):
        what = ", an upsampler" if form.inputs == 2 * _COLOURS else ""
        raise ModelError(
            f"{path} is a network of {form.inputs} channels to {form.outputs}{what}",
            expected="one of 3 to 3 or 6: a model of images from nothing",
        )


def digest_of(source: Source, options: ADMOptions) -> str:
    """Return a digest of the file and of what it was said to be: other options, other model."""
    import hashlib

    said = options.model_dump_json(exclude={"training", "classes"})
    return hashlib.sha256(f"{source.digest} {said}".encode()).hexdigest()


def _card(source: Source, form: ADMForm, options: ADMOptions) -> str:
    """Say what was read from the tensors, and what was taken for granted."""
    heads = (
        f"{options.num_heads} heads"
        if options.num_heads
        else f"heads of {options.num_head_channels} channels"
    )
    order = "queries, keys, values" if options.use_new_attention_order else "head by head"
    places = [str(form.side >> k) for k, a in enumerate(form.attention) if a]
    return (
        f"# {source.path.stem}\n\n"
        "A checkpoint of guided-diffusion without a card. From its tensors: channels "
        f"{', '.join(map(str, form.channels))}; {form.blocks} blocks a level; attention at "
        f"{', '.join(places) or 'the middle only'}; "
        f"{f'{form.n_classes} classes' if form.n_classes else 'no classes'}; "
        f"{'a learned variance, left aside' if form.outputs > _COLOURS else 'no variance'}"
        ".\n\nNot in the tensors, but as published or said in the JSON beside it: "
        f"{options.image_size} x {options.image_size} pixels; {heads}, {order}; "
        f"the {options.noise_schedule} schedule of {options.diffusion_steps} steps.\n"
    )
