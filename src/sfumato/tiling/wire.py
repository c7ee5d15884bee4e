"""What goes to another process and back: objects, and of their tensors no more than is seen."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes: TypeAlias = NDArray[np.uint8]

#: How one tensor is put together again: its number, dtype, shape, strides; whether it moves along.
_Key: TypeAlias = tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...], bool]


@dataclass(frozen=True)
class Packed:
    """An object as a stream of bytes, and beside it the bytes of its tensors."""

    stream: bytes
    tensors: tuple[Bytes, ...]

    def equals(self, other: Packed) -> bool:
        """Whether both are copies of equal objects."""
        return (
            self.stream == other.stream
            and len(self.tensors) == len(other.tensors)
            and all(map(np.array_equal, self.tensors, other.tensors))
        )


def pack(value: object, home: str = "cpu") -> Packed:
    """Copy an object with its tensors, of a view no more than is seen of it.

    Tensors on the device of ``home`` will move along to that of the receiver. Those on the CPU
    stay on the CPU where ``home`` is another one. Raises what pickle raises where the object holds
    what cannot be sent, as functions within functions.

    >>> whole = torch.zeros(1000, 1000)
    >>> [t.nbytes for t in pack(whole[:10, :10]).tensors]
    [400]
    """
    stream = io.BytesIO()
    pickler = _Pickler(stream, home)
    pickler.dump(value)
    return Packed(stream.getvalue(), tuple(pickler.tensors))


def unpack(packed: Packed, device: str = "cpu") -> Any:  # noqa: ANN401
    """Return the object, with the tensors that move along on ``device``.

    The order of their elements in memory is kept, and they begin where torch has tensors begin:
    both can decide bits.

    >>> unpack(pack({"x": torch.arange(3)}))
    {'x': tensor([0, 1, 2])}
    """
    return _Unpickler(packed, device).load()


class _Pickler(pickle.Pickler):
    """Numbers the tensors; by itself pickle would take along all the memory behind a view."""

    def __init__(self, stream: io.BytesIO, home: str) -> None:
        super().__init__(stream, protocol=5)
        self.tensors: list[Bytes] = []
        self._home = torch.device(home)
        # With the tensor itself, so that no other one gets its id.
        self._keys: dict[int, tuple[_Key, Tensor]] = {}

    def persistent_id(self, value: object) -> _Key | None:
        if type(value) is not Tensor or value.layout != torch.strided:
            return None
        if id(value) not in self._keys:
            follows = value.device.type != "cpu" or self._home.type == "cpu"
            dense = value.detach().resolve_conj().resolve_neg().clone().cpu()
            n, shape = len(self.tensors), tuple(dense.shape)
            self._keys[id(value)] = (n, dense.dtype, shape, dense.stride(), follows), value
            self.tensors.append(_memory(dense))
        return self._keys[id(value)][0]


class _Unpickler(pickle.Unpickler):
    def __init__(self, packed: Packed, device: str) -> None:
        super().__init__(io.BytesIO(packed.stream))
        self._bytes = packed.tensors
        self._device = device
        self._made: dict[int, Tensor] = {}

    def persistent_load(self, key: _Key) -> Tensor:
        n, dtype, shape, strides, follows = key
        if n not in self._made:
            t = torch.empty_strided(shape, strides, dtype=dtype)
            _memory(t)[:] = self._bytes[n]
            self._made[n] = t.to(self._device) if follows else t
        return self._made[n]


def _memory(dense: Tensor) -> Bytes:
    """Return the memory of a tensor without gaps."""
    seen: Bytes = dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy()
    return seen
