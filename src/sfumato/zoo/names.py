"""The models that come with the package, by their names."""

from __future__ import annotations

from pathlib import Path

#: The name of the prior that comes with the package.
EMBEDDED = "embedded"
#: That of the SR3 model, 4x, that comes with it.
SR3 = "sr3"
#: That of both as one prior (``sfumato.zoo.pair``).
PAIR = "pair"

_WEIGHTS = Path(__file__).parent / "weights"
NAMES = {
    EMBEDDED: _WEIGHTS / "prior.safetensors",
    SR3: _WEIGHTS / "sr3.safetensors",
    PAIR: _WEIGHTS / "pair.safetensors",
}
#: Models that have no weights but those of others.
_PARTS = {PAIR: (EMBEDDED, SR3)}


def file_of(name_or_path: str | Path, beside: Path | None = None) -> Path:
    """Return the file of a model of the package, or the path itself, from ``beside`` on.

    >>> file_of("sr3").name, file_of("own.safetensors", Path("runs"))
    ('sr3.safetensors', PosixPath('runs/own.safetensors'))
    """
    return NAMES.get(str(name_or_path), (beside or Path()) / name_or_path)


def weights_of(name: str) -> tuple[Path, ...]:
    """Return the files that hold the weights of a model of the package.

    >>> [file.name for file in weights_of("pair")]
    ['prior.safetensors', 'sr3.safetensors']
    """
    return tuple(NAMES[part] for part in _PARTS.get(name, (name,)))
