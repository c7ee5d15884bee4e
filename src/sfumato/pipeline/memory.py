"""What a restoration in memory needs, and what there is: told before anything starts."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

from sfumato._typing import Shape
from sfumato.errors import ImageError
from sfumato.operators import Degradation
from sfumato.pipeline.problem import by_windows

#: Of images that are worked on, about so many are in memory at once, as float32 of their size;
#: and of their measurement, where it is inverted exactly and where it carries noise.
IMAGES, MEASUREMENTS, NOISY_MEASUREMENTS = 12, 8, 14

#: The least that is taken of what is reckoned, on the pictures that were compared.
_AT_LEAST = 0.7
#: Files that tell what a container may have, and has: of cgroups, version 2.
_LIMIT, _USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
_SYSTEM = Path("/proc/meminfo")


def images_bytes(image: Shape, measured: Shape, *, noisy: bool) -> float:
    """Return about how many bytes the images take while one of that size is restored."""
    images, measurements = math.prod(image), math.prod(measured)
    return 4.0 * (IMAGES * images + (NOISY_MEASUREMENTS if noisy else MEASUREMENTS) * measurements)


def available_bytes(device: str | torch.device = "cpu") -> float:
    """Return how many bytes there are to be had; without end where the system does not tell."""
    if torch.device(device).type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    found = [math.inf]
    lines = dict(line.split(":", 1) for line in _read(_SYSTEM).splitlines() if ":" in line)
    if "MemAvailable" in lines:
        kilobytes = [lines.get(k, "0").split()[0] for k in ("MemAvailable", "SwapFree")]
        found.append(sum(map(float, kilobytes)) * 1024)
    elif "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE"))
    limit, used = _read(_LIMIT).strip(), _read(_USED).strip()
    if limit.isdigit() and used.isdigit():
        found.append(float(limit) - float(used))
    return min(found)


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except OSError:
        return ""


def check_memory(
    y: Shape,
    degradation: Degradation,
    *,
    limit_pixels: int,
    samples: int = 1,
    device: str = "cpu",
    supersampling: int = 1,
) -> None:
    """Refuse a picture that cannot be restored in memory, before it is decoded.

    ``y`` is its shape. The line says what it would need, and what to choose instead. With several
    samples all but one are kept as they are finished. See ``Source`` for ``supersampling``.

    Raises ImageError.
    """
    channels, height, width = degradation.source_shape(y)
    image = (max(channels, 3), height, width)
    strokes = degradation.strokes() is not None
    A = None if strokes else degradation.operator((channels, height, width))
    noisy = degradation.noise > 0 or (A is not None and A.amplifies)
    restored = (image[0], supersampling * height, supersampling * width)
    need = images_bytes(restored, (3, *y[1:]), noisy=noisy)
    need += 4.0 * (samples - 1) * math.prod(image)
    there = available_bytes(device)
    too_many = height * width > limit_pixels
    if not too_many and _AT_LEAST * need <= there:
        return
    tiles = A is not None and samples == 1 and by_windows(A, asked=True)
    instead = ["--stitch mask-shift, which holds a few tiles at a time"] if tiles else []
    instead += ["one sample at a time (--samples 1, another --seed each)"] if samples > 1 else []
    instead += ["a smaller --scale"] if A is not None and A.ratio > 1 else ["a smaller picture"]
    instead += ["a larger --limit-pixels" if too_many else "a machine with as much"]
    expected = f"at most {limit_pixels:,} pixels" if too_many else f"at most {_gb(there)}"
    raise ImageError(
        f"a result of {width} x {height} pixels, restored as a whole, needs about {_gb(need)} of "
        "memory",
        expected=f"{expected}" + (f" ({_gb(there)} are free)" if too_many else ", which are free"),
        do=f"choose {', or '.join(instead)}",
    )


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if math.isfinite(n_bytes) else "an unknown number of GB"
