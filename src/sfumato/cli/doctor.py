"""``sfumato doctor``: what this machine has, what is chosen, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from sfumato.cli.running import guarded, say


@guarded
def doctor(
    measure: Annotated[
        bool, typer.Option("--measure", help="Time an evaluation of the network, too.")
    ] = False,
    model: Annotated[str, typer.Option("-n", "--model", help="Name or path.")] = "embedded",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
) -> None:
    """Say what this machine has, what will be used of it, and why."""
    from sfumato.pipeline import doctor as surgery

    wrong = 0
    for finding in surgery.examine():
        mark = "!" if finding.wrong else " "
        why = f"  ({finding.why})" if finding.why else ""
        say(f"{mark} {finding.about}: {finding.found}{why}")
        wrong += finding.wrong
    if measure:
        timed, chosen = surgery.measure(model, device=device)
        for one in timed:
            auto = ", which --precision auto takes" if one.precision == chosen else ""
            say(
                f"  {model} on {device}, {one.side} x {one.side}, {one.precision}: "
                f"{one.milliseconds:.0f} ms an evaluation{auto}"
            )
    if wrong:
        say(f"{wrong} to be mended, marked with !")
        raise typer.Exit(1)
