"""The models that come with the package, by their names."""

from __future__ import annotations

from pathlib import Path

#: The name of the prior that comes with the package.
EMBEDDED = "embedded"
#: That of the SR3 model, 4x, that comes with it.
SR3 = "sr3"

_WEIGHTS = Path(__file__).parent / "weights"
NAMES = {
    EMBEDDED: _WEIGHTS / "prior.safetensors",
    SR3: _WEIGHTS / "sr3.safetensors",
}


def file_of(name_or_path: str | Path) -> Path:
    """Return the file of a model of the package, or the path itself.

    >>> file_of("sr3").name, file_of("runs/own.safetensors")
    ('sr3.safetensors', PosixPath('runs/own.safetensors'))
    """
    return NAMES.get(str(name_or_path), Path(name_or_path))
