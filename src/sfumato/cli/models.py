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
        Path, typer.Argument(help="The ..._gen.pth of the public implementation of SR3.")
    ],
    options: Annotated[
        Path, typer.Option("--json", help="The .json that it was trained by, comments and all.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model, *.safetensors.")],
    scale: Annotated[
        int | None,
        typer.Option(
            "-s", "--scale", min=1, help="How many times larger it makes pictures, if not said."
        ),
    ] = None,
) -> None:
    """Convert a checkpoint of the public SR3 implementation; no code in it is run.

    The model gives the same numbers as that program: -n OUTPUT uses it.
    """
    from sfumato.errors import SettingsError
    from sfumato.io import save_checkpoint
    from sfumato.zoo.refinement import convert as converted

    if output.suffix != ".safetensors":
        raise SettingsError(f"the output {output}", expected="a name that ends in .safetensors")
    tensors, config = converted(checkpoint, options)
    said = config["scale"]
    if scale is not None and said not in (None, scale):
        raise SettingsError(f"--scale {scale}", expected=f"{said}, as {options} says")
    config["scale"] = scale or said
    if config["scale"] is None:
        raise SettingsError(
            f"{options} does not say how many times larger it makes pictures", do="give --scale"
        )
    save_checkpoint(output, tensors, config)
    n = sum(t.numel() for t in tensors.values())
    say(f"{output}: {n / 1e6:.1f} M parameters, {config['scale']}x")
