"""The user's weights of networks that measures are defined by: tensors only, never a program.

Read are safetensors, and state dicts as ``torch.save`` writes them, of which only tensors are
read. TorchScript files are refused: they are programs, if restricted ones, and a program from
elsewhere should not decide a number of ours; nor does torch support them any longer. A network
that has no published state dict can be used from Python, where any callable will do.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from sfumato.errors import ModelError
from sfumato.zoo.source import Source


def read_weights(path: Path, what: str) -> dict[str, Tensor]:
    """Return the tensors of a file by name; ``what`` says what it should hold.

    Raises ModelError for what is no such file, or holds more than tensors.
    """
    from sfumato.io.checkpoints import load_tensors
    from sfumato.io.pickles import load_pickle

    if not path.is_file():
        raise ModelError(f"there is no file {path}", expected=what, do="check the name")
    if Source(path, str(path)).is_safetensors:
        return load_tensors(path)
    return load_pickle(path, expected=what)
