"""What a network takes, in memory and in time: tried out on a tile or two."""

from __future__ import annotations

import resource
import sys
import time
import weakref
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from sfumato.diffusion import Conditional, denoise, linearised
from sfumato.diffusion.collaborative import collaborative
from sfumato.zoo import Prior

#: A network takes about so much more than its tensors, which are what can be counted.
_WORKSPACE = 1.8
#: Sides in pixels: of the tile that a network's memory is counted on, of the largest one timed.
_COUNTED, _TIMED = 128, 512


@final
class Trial:
    """What a prior takes for a tile: tried out for about a second, once for each size of tile.

    With ``once`` only the first size is tried, and others are scaled by their pixels.
    """

    def __init__(self, prior: Prior, device: str = "cpu", *, once: bool = False) -> None:
        self._denoiser, self._device, self._once = prior.denoiser, torch.device(device), once
        #: The one size that the network sees, if there is but one.
        self._side = prior.tile if prior.fixed_size else None
        self._seconds: dict[tuple[int, int, int, int], float] = {}
        self._bytes: dict[int, float] = {}
        #: What the program itself takes, with the prior.
        self.program_bytes = resident_bytes()

    def bytes_per_pixel(self, passes: int = 0) -> float:
        """Return what the network takes for each pixel of a tile, counted on a small one."""
        if passes not in self._bytes:
            live, side = LiveTensors(), self._side or _COUNTED
            with live:
                self._evaluate(side, side, 1, passes)
            self._bytes[passes] = _WORKSPACE * live.peak_bytes / side**2
        return self._bytes[passes]

    @property
    def weights_bytes(self) -> int:
        """What the network itself takes."""
        return sum(w.nbytes for net in networks_of(self._denoiser) for w in net.parameters())

    def seconds(self, height: int, width: int, batch: int = 1, passes: int = 0) -> float:
        """Return the seconds of one evaluation of a tile, of ``batch`` that are done together.

        With so many ``passes`` back through the network.
        """
        # One small tile does not keep a GPU busy; a CPU it does.
        batch = 1 if self._device.type == "cpu" else batch
        if self._side:
            height = width = self._side
        size = min(height, _TIMED), min(width, _TIMED), batch, passes
        if self._once and self._seconds:
            size = next(iter(self._seconds))
        if size not in self._seconds:
            self._seconds[size] = self._time(*size)
        share: float = height * width / (size[0] * size[1])
        return share * self._seconds[size]

    def filter_seconds(self, height: int, width: int) -> float:
        """Return the seconds of collaborative filtering of a tile."""
        side = min(height, width, _TIMED)
        x = torch.full((1, 3, side, side), 0.1, device=self._device)
        began = time.perf_counter()
        _ = collaborative(x, x, 0.1).cpu()
        return (time.perf_counter() - began) * height * width / side**2

    def _time(self, height: int, width: int, batch: int, passes: int) -> float:
        """Evaluate until a second is over; the first time does not count if there is another."""
        took: list[float] = []
        while sum(took) < 1 and len(took) < 10:
            began = time.perf_counter()
            self._evaluate(height, width, batch, passes)
            took.append(time.perf_counter() - began)
        counted = took[1:] or took
        each: int = getattr(self._denoiser, "evaluations", 1)
        return sum(counted) / len(counted) / batch / each

    def _evaluate(self, height: int, width: int, batch: int, passes: int) -> None:
        x = torch.full((batch, 3, height, width), 0.1, device=self._device)
        D, c = self._denoiser, x if isinstance(self._denoiser, Conditional) else None
        if passes:
            x_0, pull = linearised(lambda x_t, sigma: denoise(D, x_t, sigma, c), x, 1.0)
            for _ in range(passes):
                pull(x_0)
        else:
            denoise(D, x, 1.0, c)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def networks_of(denoiser: object) -> list[torch.nn.Module]:
    """Return the networks in a denoiser, also where guidance is wrapped around it."""
    if isinstance(denoiser, torch.nn.Module):
        return [denoiser]
    inner = [getattr(denoiser, name, None) for name in ("denoiser", "classifier")]
    return [net for part in inner if part is not None for net in networks_of(part)]


def resident_bytes() -> int:
    """Return the most memory that this process has had so far."""
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak << 10


@final
class LiveTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that are made within ``with`` and still there.

    >>> with LiveTensors() as live:
    ...     for _ in range(3):
    ...         x = torch.zeros(1000) + 1
    >>> live.peak_bytes
    12000
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = self._bytes = 0
        self._known: dict[int, object] = {}

    @override
    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        """Compute, and count what is new."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, n_bytes = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone(_: object) -> None:
            self._bytes -= n_bytes
            del self._known[key]

        self._known[key] = weakref.ref(storage, gone)
        self._bytes += n_bytes
        self.peak_bytes = max(self.peak_bytes, self._bytes)
