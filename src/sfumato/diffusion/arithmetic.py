"""How a network is computed: in which numbers, by which kernels. Both decide bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from sfumato.errors import ModelError, SettingsError

#: "bf16" and "fp16" run the network, and nothing else, in 16 bits by autocast.
Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
#: "compiled" are those that ``torch.compile`` makes for a shape, at its first evaluation.
Kernels: TypeAlias = Literal["eager", "compiled"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
#: The type that autocast computes in; "fp32" has none.
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: Shapes that one network is compiled for; torch would leave what is above 8 uncompiled.
_MOST_SHAPES = 64

_kernels: ContextVar[Kernels] = ContextVar("kernels", default="eager")


def supports(device: torch.device, precision: Precision) -> bool:
    """Whether a network can be computed in ``precision`` on ``device`` (not whether it is fast).

    >>> supports(torch.device("cpu"), "bf16")
    True
    """
    if precision == "bf16" and device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type in ("cpu", "cuda")


def is_native(device: torch.device, precision: Precision) -> bool:
    """Whether ``device`` computes in ``precision`` without emulating it."""
    if device.type != "cpu" or precision == "fp32":
        return supports(device, precision)
    if precision == "bf16":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


def best_precision(device: torch.device) -> Precision:
    """Return "bf16" where ``device`` computes in it natively, else "fp32".

    Never "fp16": what is above 65,504 overflows, and few networks were made for that.
    """
    return "bf16" if is_native(device, "bf16") else "fp32"


def check_precision(device: torch.device, precision: Precision) -> None:
    """Raise SettingsError where a network cannot be computed in ``precision`` on ``device``."""
    if precision not in PRECISIONS:
        raise SettingsError(f"precision {precision!r}", expected=", ".join(PRECISIONS))
    if not supports(device, precision):
        raise SettingsError(f"{precision} on {device}", do="use fp32 there")


@contextmanager
def use_kernels(kernels: Kernels) -> Iterator[None]:
    """Let networks be computed by such kernels within, in this thread.

    >>> with use_kernels("eager"):
    ...     pass
    """
    token = _kernels.set(kernels)
    try:
        yield
    finally:
        _kernels.reset(token)


def compute(net: nn.Module, precision: Precision, *inputs: Tensor, **named: Tensor) -> Tensor:
    """Return ``net(*inputs, **named)`` in float32, computed in ``precision``.

    Raises SettingsError where the device cannot, and ModelError where "fp16" overflows.
    """
    device = inputs[0].device
    check_precision(device, precision)
    half = HALVES.get(precision)
    with torch.autocast(device.type, half, enabled=half is not None):
        answer: Tensor = _call(net, *inputs, **named)
    if half is torch.float16 and not bool(answer.isfinite().all()):
        raise ModelError("the network overflows in fp16", do="use --precision bf16 or fp32")
    return answer.float()


def _call(net: nn.Module, *inputs: Tensor, **named: Tensor) -> Tensor:
    if _kernels.get() == "eager":
        call = net if net._compiled_call_impl is None else net.forward
        return call(*inputs, **named)  # type: ignore[no-any-return]
    import torch._dynamo

    if net._compiled_call_impl is None:
        net.compile(dynamic=False)
    # Beyond its limit torch would go on with other kernels, and other bits, without a word.
    with torch._dynamo.config.patch(
        recompile_limit=_MOST_SHAPES, fail_on_recompile_limit_hit=True
    ):
        return net(*inputs, **named)  # type: ignore[no-any-return]
