"""Whether an optional library is there."""

from importlib.util import find_spec


def installed(package: str) -> bool:
    """Tell whether a library is installed; a folder of its name in the way is none.

    >>> installed("torch"), installed("no_such_library")
    (True, False)
    """
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
