"""``sfumato models``: what there is, and the cards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.saying import guarded, say

models_app = typer.Typer(no_args_is_help=True)


CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", help="The hub's cache. Default: that of its own programs."),
]


@models_app.command(name="list")
@guarded
def list_models(
    cache: CacheOption = None,
) -> None:
    """List the models at hand: those of the package, and those in the hub's cache.

    Name, size, parameters, tile in pixels, sizes that the network sees, licence, summary.
    """
    from sfumato.zoo.listing import list_models as listed

    for m in listed(cache):
        n = "?" if m.n_parameters is None else f"{m.n_parameters / 1e6:.1f}"
        say(
            f"{m.name}  {m.size_bytes / 1e6:.1f} MB  {n} M parameters  tile {m.tile}  "
            f"sizes: {m.sizes}  {m.licence}  {m.summary}"
        )


@models_app.command()
@guarded
def info(
    model: Annotated[
        str, typer.Argument(help="Name or path, or hf:OWNER/REPO on the hub.")
    ] = "embedded",
) -> None:
    """Print a model's figures and its card."""
    from sfumato.zoo import is_embedded, load_prior
    from sfumato.zoo.formats import format_of
    from sfumato.zoo.listing import OWN_LICENCE
    from sfumato.zoo.source import Source

    prior = load_prior(model)
    own = OWN_LICENCE if is_embedded(prior.source) else "not stated"
    say(f"{prior.source}")
    say(f"kind     {prior.kind or format_of(Source(prior.source, model)).WHAT}")
    say(f"licence  {prior.licence or own}")
    say(f"sha256   {prior.digest}")
    say(f"network  {prior.n_parameters / 1e6:.1f} M parameters, tile {prior.tile}")
    say(f"sizes    {prior.sizes}")
    say(f"noise    up to sigma {prior.sigma_max:.4g} on [-1, 1]{_in_255ths(prior.sigma_max)}")
    if (task := prior.super_resolution) is not None:
        answers = "samples and a regression" if task.regression else "samples"
        kernels = f"{task.kernel} and means" if task.pooled else task.kernel
        say(f"SR3      {task.scale}x, kernel {kernels}, {answers}; {len(task.sigmas)} steps")
    if prior.classes:
        say("classes  " + ", ".join(prior.classes))
    say("")
    say(prior.card)


def _in_255ths(sigma: float) -> str:
    return f", {127.5 * sigma:.3g}/255" if sigma < 2 else ""


@models_app.command()
@guarded
def download(
    name: Annotated[str, typer.Argument(help="OWNER/REPO on the Hugging Face hub.")],
    cache: CacheOption = None,
) -> None:
    """Fetch a model from the hub: JSON and safetensors, pickles only where there is nothing else.

    Then -n hf:OWNER/REPO uses it, also without a network. With --cache it is another folder that
    models are fetched into: -n takes the path that is printed.
    """
    from sfumato.zoo.hub import HubName, fetch

    asked = HubName.parse(name)
    say(f"{asked}: {fetch(asked, cache)}")


@models_app.command()
@guarded
def convert(
    checkpoint: Annotated[
        Path, typer.Argument(help="A .pt of guided-diffusion, or a ..._gen.pth of SR3.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model, *.safetensors.")],
    options: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="SR3: the .json that it was trained by. Guided-diffusion: what its tensors do "
            "not say, by the names of its flags (num_heads, noise_schedule, ...).",
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            "-s",
            "--scale",
            min=1,
            help="SR3: how many times larger it makes pictures, if not said.",
        ),
    ] = None,
) -> None:
    """Convert a checkpoint of guided-diffusion or of the public SR3; no code in it is run.

    What it is is seen from its tensors. The model gives the same numbers as the program that it
    was made by: -n OUTPUT uses it, or --classifier OUTPUT.
    """
    from sfumato.io import save_checkpoint
    from sfumato.zoo.convert import converted

    _check_name(output)
    done = converted(checkpoint, options, scale=scale)
    save_checkpoint(output, done.tensors, done.config)
    n = sum(t.numel() for t in done.tensors.values())
    say(f"{output}: {n / 1e6:.1f} M parameters, {done.summary}")


@models_app.command()
@guarded
def mean(
    models: Annotated[list[Path], typer.Argument(help="Of one form: *.safetensors, at least 2.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model, *.safetensors.")],
    weight: Annotated[
        list[float] | None, typer.Option(help="Of each model, in their order. Default: all one.")
    ] = None,
) -> None:
    """Average the weights of models that were trained on from the same ones.

    It is often better than each of them (model soups, arXiv 2203.05482).
    """
    from sfumato.io import save_checkpoint
    from sfumato.zoo.mean import mean_of

    _check_name(output)
    save_checkpoint(output, *mean_of(models, weight))
    say(f"{output}: the mean of {len(models)} models")


def _check_name(output: Path) -> None:
    from sfumato.errors import SettingsError

    if output.suffix != ".safetensors":
        raise SettingsError(f"the output {output}", expected="a name that ends in .safetensors")
