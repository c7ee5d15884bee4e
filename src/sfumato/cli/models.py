"""``sfumato models``: what there is, and the cards."""

from __future__ import annotations

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
    say("")
    say(prior.card)
