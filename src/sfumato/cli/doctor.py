"""``sfumato doctor``: what this machine has, what is chosen, and why."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.saying import guarded, say

if TYPE_CHECKING:
    from sfumato.pipeline.doctor import Timed


@guarded
def doctor(
    measure: Annotated[
        bool, typer.Option("--measure", help="Time the network, and whether compiling it pays.")
    ] = False,
    model: Annotated[str, typer.Option("-n", "--model", help="Name or path.")] = "embedded",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    tile: Annotated[
        int | None, typer.Option("-t", "--tile", min=16, help="Side to measure [the model's].")
    ] = None,
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
        for one in surgery.measure(model, device=device, side=tile, compiled=True):
            say(f"  {model} on {device}, {one.side} x {one.side}, {_times(one)}")
    if wrong:
        say(f"{wrong} to be mended, marked with !")
        raise typer.Exit(1)


def _times(one: Timed) -> str:
    """Say how long an evaluation takes, and what "auto" will make of it."""
    from sfumato.pipeline.kernels import Paying

    text = f"{one.precision}: {one.eager:.0f} ms an evaluation"
    if one.why:
        return f"{text}; {one.why}"
    if one.compiled is None:
        return text
    gain = one.eager - one.compiled
    text += f", {one.compiled:.0f} ms compiled, which took {one.compiling:.0f} s; "
    after = math.ceil(1e3 * one.compiling / gain) if gain > 0 else 0
    if Paying(one.eager, one.compiled, 0.0).kernels(1) == "eager":
        return text + "--kernels auto stays eager for such tiles"
    return text + f"--kernels auto compiles for such tiles, for more than {after} evaluations"
