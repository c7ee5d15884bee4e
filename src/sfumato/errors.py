"""What can go wrong, as one small tree.

::

    SfumatoError
    ├── ImageError (ValueError)        a picture cannot be read or written, or is impossible
    ├── DegradationError (ValueError)  a degradation cannot be parsed, or does not fit the picture
    ├── ShapeError (ValueError)        an array has another shape than the operator needs
    ├── ModelError (ValueError)        a checkpoint is damaged, foreign, or does not fit its header
    ├── SettingsError (ValueError)     settings that contradict each other or the picture
    ├── OutputError (OSError)          the result cannot be put where it was asked for
    ├── JobError (OSError)             a job is another one, in use or damaged, or finds no room
    └── WorkerError (OSError)          workers die before they have finished anything

Every message says what was got, what was expected and what to do about it.
"""


class SfumatoError(Exception):
    """Base of all errors that sfumato raises on purpose."""

    def __init__(self, got: str, *, expected: str = "", do: str = "") -> None:
        """Join ``got``, ``expected`` and ``do`` into one line."""
        parts = [got]
        if expected:
            parts.append(f"expected {expected}")
        if do:
            parts.append(do)
        super().__init__("; ".join(" ".join(p.split()) for p in parts))


class ImageError(SfumatoError, ValueError):
    """A picture cannot be read or written, or has an impossible form."""


class DegradationError(SfumatoError, ValueError):
    """A degradation cannot be parsed, or does not fit the picture."""


class ShapeError(SfumatoError, ValueError):
    """An array has another shape than the operator needs."""


class ModelError(SfumatoError, ValueError):
    """A checkpoint is damaged, foreign, or does not fit its configuration."""


class SettingsError(SfumatoError, ValueError):
    """Settings contradict each other or the picture."""


class OutputError(SfumatoError, OSError):
    """The result cannot be put where it was asked for."""


class JobError(SfumatoError, OSError):
    """A job's folder is another job's, in use or damaged, or cannot be written."""


class WorkerError(SfumatoError, OSError):
    """Workers die, one after the other, before they have finished anything."""
