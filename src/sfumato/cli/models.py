"""``sfumato models``: what there is, and the cards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.running import guarded, say

models_app = typer.Typer(no_args_is_help=True, help="The priors at hand.")


@models_app.command(name="list")
@guarded
def list_models() -> None:
    """List the priors by name."""
    from sfumato.zoo import list_priors

    for prior in list_priors():
        say(f"{prior.name}  {prior.size_bytes / 1e6:.1f} MB  {prior.summary}")


@models_app.command()
@guarded
def info(
    model: Annotated[str, typer.Argument(help="Name or path.")] = "embedded",
) -> None:
    """Print a prior's figures and its card."""
    from sfumato.zoo import load_prior

    prior = load_prior(model)
    say(f"{prior.source}")
    say(f"sha256 {prior.digest}")
    say(f"{prior.n_parameters / 1e6:.1f} M parameters, tile {prior.tile}, sides of any length")
    if (task := prior.super_resolution) is not None:
        answers = "samples and a regression" if task.regression else "samples"
        say(f"SR3: {task.scale}x, kernel {task.kernel}, {answers}; {len(task.sigmas)} steps")
    if prior.classes:
        say("classes: " + ", ".join(prior.classes))
    say("")
    say(prior.card)


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
    from sfumato.errors import SettingsError
    from sfumato.io import save_checkpoint
    from sfumato.zoo.convert import converted

    if output.suffix != ".safetensors":
        raise SettingsError(f"the output {output}", expected="a name that ends in .safetensors")
    done = converted(checkpoint, options, scale=scale)
    save_checkpoint(output, done.tensors, done.config)
    n = sum(t.numel() for t in done.tensors.values())
    say(f"{output}: {n / 1e6:.1f} M parameters, {done.summary}")
