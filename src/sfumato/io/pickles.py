"""Checkpoints as ``torch.save`` writes them, of which only tensors are read: no code is run."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from sfumato.errors import ModelError

_SHOWN = 5
_COUNTER = "num_batches_tracked"
#: What torch.load raises for files that are none of its own, besides UnpicklingError.
_DAMAGES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def load_pickle(
    path: str | Path,
    *,
    expected: str = "a state dict, as torch.save writes it",
    mapped: bool = False,
    wrapped: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """Read the tensors of a state dict by name, on the CPU in their stored dtypes.

    Of the pickle only what tensors are made of is read. Counters of batches, which torch's batch
    normalisation keeps beside its weights, are left out.

    Args:
        path: the file.
        expected: what to say that it should have been, where it holds more than tensors.
        mapped: leave the tensors in the file until they are looked at, if it is a zip archive,
            as ``torch.save`` has written since 2020; then nobody may write to it meanwhile.
        wrapped: names under which the state dict may lie in another one; the first counts.

    Raises:
        ModelError: no such file; damaged, cut short; it would run code, or holds no tensors of
            floating-point numbers alone.
    """
    path = Path(path)
    if _is_program(path):
        raise ModelError(
            f"{path} is a TorchScript program, which is code: it was not read",
            expected=expected,
            do="save its state_dict instead, as safetensors",
        )
    try:
        with warnings.catch_warnings():
            # Of unusual pickles, of which what can be read is checked below.
            warnings.simplefilter("ignore")
            state = torch.load(
                path, map_location="cpu", weights_only=True, mmap=mapped and _zipped(path)
            )
    except FileNotFoundError as error:
        raise ModelError(f"there is no checkpoint {path}", do="check the name") from error
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise ModelError(
                f"{path} holds more than tensors, which could run any code: it was not read",
                expected=expected,
                do="do not trust its source",
            ) from error
        # torch's own message recommends to let the file run its code.
        raise _damaged(path, "what it holds makes no sense") from error
    except _DAMAGES as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise _damaged(path, first) from error
    if not isinstance(state, dict) or not state:
        raise ModelError(f"{path} holds a {type(state).__name__}", expected="a dictionary")
    state = next((state[k] for k in wrapped if isinstance(state.get(k), dict)), state)
    state = {n: t for n, t in state.items() if not str(n).endswith(_COUNTER)}
    if "optimizer" in state:
        raise ModelError(f"{path} is the state of an optimiser", expected="the model beside it")
    odd = [str(n) for n, t in state.items() if not isinstance(n, str) or not _is_plain(t)]
    if odd:
        raise ModelError(f"{path} holds things that are no weights: {some(odd)}")
    return state


def is_pickle(path: Path) -> bool:
    """Tell by its first bytes whether a file may be one of ``torch.save``; False if unreadable."""
    head = _head(path)
    # A zip archive, or a bare pickle (protocol 2 to 5): all that torch.save has written for years.
    return head.startswith(b"PK") or (head[:1] == b"\x80" and 2 <= head[1] <= 5)


def some(names: Iterable[str]) -> str:
    """Name a few, and how many there are besides.

    >>> some("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    listed = list(names)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _is_program(path: Path) -> bool:
    """Tell by the names in an archive whether ``torch.jit.save`` wrote it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _zipped(path: Path) -> bool:
    return _head(path).startswith(b"PK")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4).ljust(4, b"\0")
    except OSError:
        return b"\0"


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.is_floating_point()
        and value.device.type == "cpu"
    )


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path} is damaged, cut short or no checkpoint: {reason}", do="fetch it again"
    )
