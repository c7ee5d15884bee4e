"""What this machine has, what will be used of it, and why."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from sfumato._version import __version__
from sfumato.diffusion import denoise
from sfumato.diffusion.precondition import best_precision, supports_bf16
from sfumato.pipeline.memory import available_bytes
from sfumato.tiling import micro_batch_on
from sfumato.zoo import Prior, list_priors, load_prior

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
    elif supports_bf16(device):
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
    """Milliseconds of one evaluation of a tile of ``side`` pixels, in one arithmetic."""

    precision: str
    side: int
    milliseconds: float


def measure(
    model: str, *, device: str = "cpu", side: int | None = None, repeats: int = 3
) -> tuple[list[Timed], str]:
    """Time an evaluation of a tile in each arithmetic of the device, the best of ``repeats``.

    Returns the times, and the arithmetic that ``--precision auto`` takes.
    """
    where = torch.device(device)
    timed = []
    for precision in ("fp32", "bf16"):
        if precision == "bf16" and not supports_bf16(where):
            continue
        prior = load_prior(model, device=device, precision=precision)
        n = side or prior.tile
        timed.append(Timed(precision, n, 1e3 * _evaluation(prior, n, where, repeats)))
    return timed, best_precision(where)


def _evaluation(prior: Prior, side: int, device: torch.device, repeats: int) -> float:
    x = torch.zeros((1, 3, side, side), device=device)
    condition = x if prior.super_resolution is not None else None
    took = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        denoise(prior.denoiser, x, min(1.0, prior.sigma_max), condition)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - began)
    return min(took[1:])
