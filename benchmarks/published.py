"""The published network of guided-diffusion, computed as its own code does: in torch's functions.

What `adm.py` and `any_size.py` compare with. The formulas are those of the tests; contiguous
tensors, float32, attention as two products.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from adm_reference import Reference

MULT, ATTENTION, STRIDE, HEAD = (1, 1, 2, 2, 4, 4), (8, 16, 32), 32, 64
FORM = {"mult": MULT, "blocks": 2, "attention": ATTENTION}


class Published(Reference):
    """The restated network of the tests, with torch's functions where those are formulas."""

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, 32, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def silu(self, x: Tensor) -> Tensor:
        return F.silu(x)

    def attend(self, qkv: Tensor, heads: int, new_order: bool) -> Tensor:
        b, _, n = qkv.shape
        q, k, v = qkv.reshape(b * heads, -1, n).chunk(3, dim=1)
        scale = q.shape[1] ** -0.25
        weight = torch.einsum("bct,bcs->bts", q * scale, k * scale).softmax(-1)
        return torch.einsum("bts,bcs->bct", weight, v).reshape(b, -1, n)


def published(state: dict[str, Tensor]) -> Published:
    """Return the network of 256x256_diffusion_uncond.pt's form with these weights."""
    return Published(state, **FORM, heads=lambda c: c // HEAD)
