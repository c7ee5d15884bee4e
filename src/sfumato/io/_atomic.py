"""Outputs appear whole or not at all."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sfumato.errors import OutputError, SfumatoError

_ADVICE = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EEXIST: "choose another folder: a file stands in the way",
    errno.ENOTDIR: "choose another folder: a file stands in the way",
}


@contextmanager
def atomic_path(path: str | Path, *, token: str = "") -> Iterator[Path]:
    """Give the path of a hidden, empty file beside ``path``, which replaces it on success.

    Missing folders are made. On an error, or when the program is stopped, the hidden file is
    removed and whatever stood at ``path`` before is left as it was. The data are on the disk
    before the name is. A link is followed; its target is replaced.

    With a ``token`` (hexadecimal digits) the hidden file has the same name each time, so that what
    a kill left behind is written over; for those who alone write to ``path``.

    Raises:
        OutputError: no room, no permission, a folder or a device at ``path``.

    Example:
        >>> with atomic_path("report.json") as temporary:
        ...     n_written = temporary.write_text("{}")
    """
    temporary = None
    try:
        target = output_target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays, because some writers (numpy.save) add their own where it is missing.
        hidden = target.with_name(f".sfumato-{token or secrets.token_hex(8)}.part{target.suffix}")
        anew = os.O_TRUNC | os.O_NOFOLLOW if token else os.O_EXCL
        os.close(os.open(hidden, os.O_CREAT | anew | os.O_WRONLY, 0o666))
        temporary = hidden
        mode = hidden.stat().st_mode
        yield temporary
        _flush(temporary)
        # Some writers (safetensors) put a new file there, which only its owner may read.
        temporary.chmod(stat.S_IMODE(target.stat().st_mode if target.exists() else mode))
        temporary.replace(target)
        if os.name == "posix":
            _flush(target.parent)
    except SfumatoError:
        raise
    except OSError as error:
        if temporary and error.filename not in (None, temporary, str(temporary)):
            raise  # the caller's own, about some other file
        raise _output_error(path, error) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def output_target(path: str | Path) -> Path:
    """Return the file that an output goes to, links followed.

    Raises:
        OutputError: a folder or a device is there.
    """
    try:
        target = Path(os.path.realpath(path))
        other = target.exists() and not target.is_file()
    except OSError as error:
        raise _output_error(path, error) from error
    if other:
        what = "a folder" if target.is_dir() else "a device or a pipe"
        raise OutputError(f"{path} is {what}", expected="the name of a file")
    return target


def check_place(path: str | Path) -> None:
    """Refuse a place where no file can be made; make nothing.

    Raises:
        OutputError: a folder or a device is there, a parent is a file, no permission.
    """
    target = output_target(path)
    folder = next(p for p in target.parents if os.access(p, os.F_OK))
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file", expected="a folder to write to")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} is not writable", do="choose a folder that you may write to")


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk; a full one may only now be noticed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _output_error(path: str | Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"{path} cannot be written: {reason}", do=_ADVICE.get(error.errno or 0, ""))
