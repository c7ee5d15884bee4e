"""Whether compiling a network pays, for one shape on one machine: measured once, and remembered.

``torch.compile`` takes a while and brings little to much, by device, network and shape. Nothing
predicts it, so nothing is guessed: "auto" compiles where ``sfumato doctor --measure`` has found
that it is faster for this shape, and the work is long enough to earn back what compiling takes.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from sfumato.diffusion import denoise
from sfumato.diffusion.arithmetic import Kernels, use_kernels
from sfumato.errors import SettingsError
from sfumato.io import atomic_path
from sfumato.tiling import micro_batch_on

if TYPE_CHECKING:
    from sfumato.zoo import Prior

AskedKernels: TypeAlias = Literal["auto", "eager", "compiled"]

#: Compiled kernels must be faster by this share: less is within the noise of a measurement.
_LEAST_GAIN = 0.03


@dataclass(frozen=True)
class Paying:
    """Seconds of an evaluation by both kinds of kernels, and those that compiling took."""

    eager: float
    compiled: float
    compiling: float

    def kernels(self, evaluations: int) -> Kernels:
        """Return what is faster for so many evaluations.

        >>> Paying(eager=0.3, compiled=0.2, compiling=20).kernels(100)
        'eager'
        >>> Paying(eager=0.3, compiled=0.2, compiling=20).kernels(1000)
        'compiled'
        """
        gain = self.eager - self.compiled
        pays = gain > _LEAST_GAIN * self.eager and gain * evaluations > self.compiling
        return "compiled" if pays else "eager"


def choose_kernels(asked: AskedKernels, prior: Prior, side: int, evaluations: int) -> Kernels:
    """Return what computes tiles of ``side`` pixels: what is asked for, or is known to pay."""
    if asked != "auto":
        return asked
    known = recall(prior, side)
    return known.kernels(evaluations) if known else "eager"


def measure_kernels(prior: Prior, side: int, *, repeats: int = 3) -> Paying:
    """Time evaluations of a micro-batch of tiles by both kinds of kernels.

    Raises SettingsError where this machine cannot compile: no C++ compiler, or no Triton.
    """
    eager = time_evaluation(prior, side, repeats=repeats)
    with use_kernels("compiled"):
        began = time.perf_counter()
        try:
            time_evaluation(prior, side, repeats=1)
        except Exception as error:  # of the compiler, which has errors of many kinds
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise SettingsError(
                f"{prior.name} cannot be compiled on {prior.device}: {said[0]}",
                do="use --kernels eager",
            ) from error
        first = time.perf_counter() - began
        compiled = time_evaluation(prior, side, repeats=repeats)
    return Paying(eager, compiled, max(0.0, first - 2 * compiled))


def time_evaluation(prior: Prior, side: int, *, repeats: int = 3) -> float:
    """Return the seconds of an evaluation of a micro-batch: the best of ``repeats`` after one."""
    device = torch.device(prior.device)
    x = torch.zeros((micro_batch_on(device), 3, side, side), device=device)
    condition = x if prior.super_resolution is not None else None
    took = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        with torch.no_grad():
            denoise(prior.denoiser, x, min(1.0, prior.sigma_max), condition)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - began)
    return min(took[1:])


def remember(paying: Paying, prior: Prior, side: int) -> Path:
    """Keep what was measured, for "auto"; return the file. Raises OutputError."""
    path = _file()
    text = json.dumps(_all() | {_key(prior, side): asdict(paying)}, indent=1)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def recall(prior: Prior, side: int) -> Paying | None:
    """Return what was measured for this model, shape and machine, if anything was."""
    found = _all().get(_key(prior, side))
    try:
        return Paying(**found) if isinstance(found, dict) else None
    except TypeError:
        return None  # another version's


def _all() -> dict[str, object]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # what is not known is measured again
    return found if isinstance(found, dict) else {}


def _key(prior: Prior, side: int) -> str:
    where = torch.device(prior.device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else platform.processor()
    threads = torch.get_num_threads() if where.type == "cpu" else 0
    return (
        f"{prior.digest} {prior.precision} {micro_batch_on(where)} x {side} x {side} "
        f"{where.type} {name or platform.machine()} {threads} threads torch {torch.__version__}"
    )


def _file() -> Path:
    folder = os.environ.get("SFUMATO_CACHE")
    if folder:
        return Path(folder) / "kernels.json"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return caches / "sfumato" / "kernels.json"
