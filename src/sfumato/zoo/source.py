"""Where a model is loaded from: a file or a folder, and what can be told of it at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, final

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sfumato.diffusion.arithmetic import Precision
    from sfumato.zoo.model import Prior


@final
@dataclass(frozen=True)
class Source:
    """A file or folder that is there, and what it holds; everything is read once, when asked for.

    ``name`` is what the user called it.
    """

    path: Path
    name: str

    @cached_property
    def header(self) -> Mapping[str, object] | None:
        """The configuration in a checkpoint of ours; None for what is of another program.

        Raises ModelError where a safetensors file is damaged.
        """
        from sfumato.io.checkpoints import FORMAT, load_header

        own = self.metadata is not None and self.metadata.get("format") == FORMAT
        return load_header(self.path) if own else None

    @cached_property
    def metadata(self) -> Mapping[str, str] | None:
        """The texts in the header of a safetensors file; None for what is none."""
        from sfumato.io.checkpoints import load_metadata

        return load_metadata(self.path) if self.is_safetensors else None

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each tensor in a file, by name; of a folder and other files none.

        Raises ModelError where the file is damaged, or a pickle of something else.
        """
        from sfumato.io.checkpoints import load_shapes

        if self.is_safetensors:
            return load_shapes(self.path)
        return {name: tuple(t.shape) for name, t in self._pickled.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a file, on the CPU in their stored dtypes; they may still lie in it.

        Raises ModelError as ``shapes``.
        """
        from sfumato.io.checkpoints import load_tensors

        return load_tensors(self.path) if self.is_safetensors else dict(self._pickled)

    @cached_property
    def is_safetensors(self) -> bool:
        """Whether it is a file that begins as safetensors do: a length, then JSON."""
        if not self.path.is_file():
            return False
        with self.path.open("rb") as file:
            return file.read(9)[8:] == b"{"

    @cached_property
    def is_pickle(self) -> bool:
        """Whether it is a file that begins as those of ``torch.save`` do."""
        from sfumato.io.pickles import is_pickle

        return is_pickle(self.path)

    @cached_property
    def _pickled(self) -> Mapping[str, Tensor]:
        from sfumato.io.pickles import load_pickle

        return load_pickle(self.path, mapped=True) if self.is_pickle else {}

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the file; of a folder that of its files, by name."""
        if self.path.is_file():
            return _sha256(self.path)
        files = sorted(p for p in self.path.rglob("*") if p.is_file())
        told = [f"{p.relative_to(self.path).as_posix()} {_sha256(p)}\n" for p in files]
        return hashlib.sha256("".join(told).encode()).hexdigest()

    @property
    def card(self) -> str:
        """The card beside the file, or in the folder; or nothing."""
        folder = self.path.is_dir()
        beside = self.path / "README.md" if folder else self.path.with_suffix(".md")
        return beside.read_text(encoding="utf-8") if beside.is_file() else ""


class Format(Protocol):
    """One form in which models are published: how to know it, and how to load it.

    A module is one, with these names in it.
    """

    #: What it is, for messages: "a prior of ... (.pt)".
    WHAT: str

    def matches(self, source: Source) -> bool:
        """Tell whether the source is of this form, from names and shapes; reads no weights."""
        ...

    def side(self, source: Source) -> int:
        """Return the side of the images that the model was made for, in pixels."""
        ...

    def load(self, source: Source, device: torch.device, precision: Precision) -> Prior:
        """Return the model on ``device``, without gradients to weights; raises ModelError."""
        ...


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
