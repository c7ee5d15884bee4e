"""Sfumato: faithful restoration of images of any size with diffusion models.

>>> import sfumato
>>> sorted(n for n in sfumato.__all__ if n.islower() and n[0] != "_")
['load_prior', 'parse', 'read_picture', 'restore', 'stream', 'write_picture']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sfumato._version import __version__
from sfumato.errors import SfumatoError

if TYPE_CHECKING:
    from sfumato.io import Picture, read_picture, write_picture
    from sfumato.operators import Degradation, Operator, parse
    from sfumato.pipeline import Result, Settings, restore, stream
    from sfumato.zoo import Prior, load_prior

__all__ = [
    "Degradation",
    "Operator",
    "Picture",
    "Prior",
    "Result",
    "Settings",
    "SfumatoError",
    "__version__",
    "load_prior",
    "parse",
    "read_picture",
    "restore",
    "stream",
    "write_picture",
]

_HOME = {
    "Degradation": "operators",
    "Operator": "operators",
    "Picture": "io",
    "Prior": "zoo",
    "Result": "pipeline",
    "Settings": "pipeline",
    "load_prior": "zoo",
    "parse": "operators",
    "read_picture": "io",
    "restore": "pipeline",
    "stream": "pipeline",
    "write_picture": "io",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for, so that ``import sfumato`` is fast."""
    if name not in _HOME:
        raise AttributeError(f"module 'sfumato' has no attribute '{name}'")
    return getattr(import_module(f"sfumato.{_HOME[name]}"), name)
