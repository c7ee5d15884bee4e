"""What this machine has, what will be used of it, and why."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from sfumato._version import __version__
from sfumato.diffusion.arithmetic import (
    PRECISIONS,
    Precision,
    best_precision,
    is_native,
    supports,
)
from sfumato.errors import SettingsError
from sfumato.pipeline.kernels import measure_kernels, remember, time_evaluation
from sfumato.pipeline.memory import available_bytes
from sfumato.tiling import micro_batch_on
from sfumato.zoo import list_priors, load_prior
from sfumato.zoo.prior import as_device

#: What an extra brings, by a module of it.
EXTRAS = {
    "lpips": ("stlpips_pytorch", "the perceptual distance of benchmarks and searches"),
    "models": ("diffusers", "models of guided-diffusion and diffusers"),
    "ray": ("ray", "workers on other machines"),
    "remote": ("s3fs", "pictures in buckets and at addresses"),
    "train": ("accelerate", "training on several GPUs, datasets, TensorBoard"),
}

_PARTS = ("numpy", "pyvips", "pyvips-binary", "OpenImageIO", "zarr", "safetensors")


@dataclass(frozen=True)
class Finding:
    """One line: what it is about, what was found, and why it matters or was chosen.

    ``wrong`` marks what should be mended.
    """

    about: str
    found: str
    why: str = ""
    wrong: bool = False


def examine(folder: Path | None = None) -> Iterator[Finding]:
    """Look at programs, devices, arithmetic, memory, extras and models, one after the other."""
    yield Finding(
        "sfumato", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    )
    yield Finding("torch", torch.__version__, _cuda())
    versions = {name: _version(name) for name in _PARTS}
    yield Finding(
        "parts",
        ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items()),
        wrong=not all(versions.values()),
    )
    yield from _devices()
    free = _disk(folder or Path.cwd())
    yield Finding("disk", f"{free / 1e9:.1f} GB free in {folder or Path.cwd()}")
    for extra, (module, use) in EXTRAS.items():
        if find_spec(module):
            yield Finding(f"extra {extra}", "installed", use)
        else:
            do = f'for {use}: pip install "sfumato[{extra}]"'
            yield Finding(f"extra {extra}", "not installed", do)
    yield from _models()


def _version(package: str) -> str:
    """Return the version of an installed package, "" where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cuda() -> str:
    built = torch.version.cuda
    if built is None:
        return "built for CPUs only; a torch built for CUDA uses NVIDIA GPUs"
    return f"built for CUDA {built}, which sees {torch.cuda.device_count()} GPUs"


def _devices() -> Iterator[Finding]:
    names = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    for name in names:
        device = torch.device(name)
        free = available_bytes(name)
        if device.type == "cpu":
            threads, cores = torch.get_num_threads(), os.cpu_count() or 1
            found = f"{_processor()}, {cores} cores, {free / 1e9:.1f} GB free"
            why = f"{threads} threads for an evaluation (OMP_NUM_THREADS says otherwise)"
            yield Finding(name, found, why, wrong=threads > cores)
        else:
            found = f"{torch.cuda.get_device_name(device)}, {free / 1e9:.1f} GB free"
            yield Finding(name, found, "use it with --device cuda")
        yield _precision(device)
        n = micro_batch_on(name)
        why = "one keeps all cores busy" if device.type == "cpu" else "bits depend on it: fixed"
        yield Finding(f"{name}, network sees", f"{n} tile{'s' * (n > 1)} at once", why)


def _precision(device: torch.device) -> Finding:
    chosen = best_precision(device)
    if chosen == "bf16":
        why = "computed natively here, which is faster; --precision fp32 for all digits"
    elif supports(device, "bf16"):
        why = "bfloat16 would be emulated, and slower"
    else:
        why = "this device has no bfloat16"
    return Finding(f"{device}, precision", chosen, why)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _disk(folder: Path) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def _models() -> Iterator[Finding]:
    known = list_priors()
    if not known:
        yield Finding("models", "none", "the package came without its weights", wrong=True)
    for summary in known:
        yield Finding(f"model {summary.name}", f"{summary.size_bytes / 1e6:.1f} MB")


@dataclass(frozen=True)
class Timed:
    """Milliseconds of one evaluation of a tile of ``side`` pixels, in one arithmetic.

    ``compiled`` are those of compiled kernels, or None where ``why`` says that there are none;
    making them took ``compiling`` seconds.
    """

    precision: Precision
    side: int
    eager: float
    compiled: float | None = None
    compiling: float = 0.0
    why: str = ""


def measure(
    model: str, *, device: str = "cpu", side: int | None = None, compiled: bool = False
) -> Iterator[Timed]:
    """Time an evaluation of a tile in each arithmetic that the device has.

    With ``compiled`` in the chosen one by compiled kernels, too: that is remembered, and decides
    what ``--kernels auto`` takes from then on. Raises SettingsError.
    """
    where = as_device(device)
    for precision in PRECISIONS:
        if not is_native(where, precision):
            continue
        prior = load_prior(model, device=device, precision=precision)
        n, chosen = side or prior.tile, precision == best_precision(where)
        eager = time_evaluation(prior, n) * 1e3
        if not (compiled and chosen):
            yield Timed(precision, n, eager)
            continue
        try:
            paying = measure_kernels(prior, n)
        except SettingsError as error:
            yield Timed(precision, n, eager, why=str(error))
            continue
        remember(paying, prior, n)
        yield Timed(precision, n, 1e3 * paying.eager, 1e3 * paying.compiled, paying.compiling)
