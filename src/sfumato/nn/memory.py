"""Networks that are built without memory, for weights to be put into."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def given_memory(net: M) -> M:
    """Return a network that was built on "meta" with memory on the CPU; it holds anything.

    ``Module.to_empty`` does the same, and imports two seconds of torch that nothing here needs.

    >>> with torch.device("meta"):
    ...     net = nn.Linear(2, 3)
    >>> given_memory(net).weight.shape
    torch.Size([3, 2])
    """
    net._apply(lambda t: torch.empty(t.shape, dtype=t.dtype, device="cpu"))
    return net
