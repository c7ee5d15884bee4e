"""How many tiles a device takes at once, and the network's own, fixed batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.diffusion import Denoiser, denoise
from sfumato.diffusion.arithmetic import Kernels, use_kernels

#: A GPU gets more tiles at once as long as less than this share of its memory is used.
_PLENTY = 0.4
#: Tiles at once that a GPU does not get more of by itself.
_MOST = 64
#: The network's batches on a GPU, and tiles at once on a CPU.
_MICRO_BATCH, _ON_CPU = 4, 1


def micro_batch_on(device: str | torch.device) -> int:
    """Return how many tiles the network sees at once, always, so that bits do not depend on more.

    On a CPU one tile keeps all cores busy.
    """
    return 1 if torch.device(device).type == "cpu" else _MICRO_BATCH


class InMicroBatches:
    """A denoiser that sees exactly ``size`` images at once; a last batch is filled up.

    Kernels of a GPU depend on the size of a batch, and bits on the kernel: with one size only, an
    image has the same bits whatever it was batched with. ``condition`` holds an image for each;
    ``kernels`` are those that compute the network.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        size: int,
        condition: Images | None = None,
        kernels: Kernels = "eager",
    ) -> None:
        self.denoiser = denoiser
        self.size = size
        self.condition = condition
        self.kernels: Kernels = kernels

    def given(self, condition: Images | None) -> InMicroBatches:
        """Return the same with a condition, for batches of as many images."""
        return InMicroBatches(self.denoiser, self.size, condition, self.kernels)

    def __call__(self, x_t: Images, sigma: float) -> Images:
        """Estimate ``x_0``."""
        estimates = []
        for k in range(0, len(x_t), self.size):
            part = x_t[k : k + self.size]
            c = None if self.condition is None else self._full(self.condition[k : k + self.size])
            with use_kernels(self.kernels):
                full = denoise(self.denoiser, self._full(part), sigma, c)
            estimates.append(full[: len(part)])
        return torch.cat(estimates) if len(estimates) > 1 else estimates[0]

    def _full(self, part: Tensor) -> Tensor:
        short = self.size - len(part)
        return torch.cat([part, part[-1:].expand(short, -1, -1, -1)]) if short else part


@dataclass
class Room:
    """How many tiles a device takes at once: more while there is plenty of memory, else fewer.

    ``asked`` is what the user wants; None finds out. It never changes a result.

    >>> room = Room("cpu", None)
    >>> room.halve(4)
    >>> room.most
    2
    """

    device: str
    asked: int | None

    def __post_init__(self) -> None:
        on_cpu = torch.device(self.device).type == "cpu"
        self.most = self.asked or (_ON_CPU if on_cpu else _MICRO_BATCH)
        self._limit = self.most if self.asked or on_cpu else _MOST

    def fitted(self) -> None:
        """Note that a batch went well."""
        if self.most < self._limit and _memory_used(self.device) < _PLENTY:
            self.most = min(2 * self.most, self._limit)

    def halve(self, n: int) -> None:
        """Note that ``n`` tiles at once were too many."""
        self.most = self._limit = max(1, n // 2)


def _memory_used(device: str) -> float:
    """Return which share of a GPU's memory is in use, by anybody."""
    free, total = torch.cuda.mem_get_info(device)
    return 1 - free / total
