"""Files in object stores and on the web, by fsspec: fetched and put, whole or not at all.

An address is what fsspec knows: ``s3://bucket/key``, ``gs://…``, ``az://…``, ``memory://…``, and,
for reading only, ``https://…``. Who may use it, and where the service is, the environment says, as
each store has its own way (S3: ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ``~/.aws``).
"""

import errno
import hashlib
import re
import secrets
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from sfumato.errors import ImageError, OutputError, SfumatoError
from sfumato.io._atomic import atomic_path

if TYPE_CHECKING:
    #: An fsspec file system; fsspec has no types.
    _Store: TypeAlias = Any

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_WEB = ("http", "https")
#: There a file appears when it is complete; in all others it gets its name at the end.
_OBJECTS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss")
_SQUASHED = re.compile(rf"({'|'.join((*_OBJECTS, *_WEB, 'memory', 'file'))}):/(?!/)")
#: What a store says of the version of a file, by the names that it may have.
_MARKS = frozenset(
    {"etag", "generation", "lastmodified", "last_modified", "last-modified", "updated", "mtime"}
    | {"created"}
)
#: Packages whose errors are those of a store or of the way to it.
_PACKAGES = frozenset(
    {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google"}
    | {"ocifs", "ossfs", "paramiko", "requests", "s3fs"}
)
#: How the names of files begin that are being written.
HIDDEN = ".sfumato-"
#: No room on this machine.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def address(place: str | Path) -> str | None:
    """Return the address that a text stands for; None for a place on this machine.

    A `Path` makes ``s3:/bucket/key`` of ``s3://bucket/key``: for the usual kinds of address that
    is undone. Keys with empty parts (``a//b``) must come as texts.

    Example:
        >>> address("s3://bucket/in.tif"), address(Path("s3://bucket/in.tif")), address("in.tif")
        ('s3://bucket/in.tif', 's3://bucket/in.tif', None)
    """
    text = str(place)
    if _ADDRESS.match(text):
        return text
    if found := _SQUASHED.match(text):
        slashes = ":///" if found[1] == "file" else "://"
        return found[1] + slashes + text[found.end() :]
    return None


def shown(place: str | Path) -> str:
    """Return a place as people write it.

    Example:
        >>> shown(Path("s3://bucket/in.tif")), shown(Path("in.tif"))
        ('s3://bucket/in.tif', 'in.tif')
    """
    return address(place) or str(place)


def name_of(place: str | Path) -> str:
    """Return the last part of an address or a path.

    Example:
        >>> name_of("https://example.org/scans/in%201.tif?version=3")
        'in 1.tif'
    """
    url = address(place) or str(place)
    path = unquote(urlsplit(url).path) if _protocol(url) in _WEB else url.partition("://")[2]
    name = Path(path or url).name
    return name if name.strip(".") else "file"


def fetch(place: str | Path, folder: str | Path) -> Path:
    """Copy a file into the folder, and return where it is there; a path here is returned as it is.

    The copy lies in a folder named after address and version: a second call finds it, and one
    after the file has changed makes another.

    Raises:
        ImageError: no such file or bucket, no permission, no way there.
        OutputError: no room in the folder; no such kind of address.

    Example:
        >>> put("photo.png", "memory://bucket/in.png")
        >>> fetch("memory://bucket/in.png", "job").name
        'in.png'
    """
    url = address(place)
    if url is None:
        return Path(place)
    with reaching(url, ImageError):
        store, there = _connect(url)
        info = _info(store, there)
    version = [f"{mark}={info[mark]}" for mark in sorted(_MARKS) if info.get(mark)]
    text = "\n".join([url, str(info.get("size")), *version])
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    target = Path(folder) / key / name_of(url)
    if version and target.exists():
        return target
    with atomic_path(target) as temporary, reaching(url, ImageError, here=FULL):
        _get(store, there, temporary, info.get("size"))
    return target


def put(path: str | Path, place: str | Path) -> None:
    """Copy a file, or a folder of Zarr, to an address, where it appears whole or not at all.

    Object stores show a file when it is complete; elsewhere it is given its name at the end. Of a
    folder ``zarr.json`` comes last, without which the rest is no array; after a failure the rest
    is removed. Missing folders are made. A file that stands there is replaced, a folder is not.

    Raises:
        OutputError: no such bucket, no permission, no way there, no room; a folder stands there.

    Example:
        >>> put("photo.png", "memory://bucket/out.png")
        >>> exists("memory://bucket/out.png")
        True
    """
    path, url = Path(path), _url(place)
    path.stat()  # what is missing here is no matter of the store
    _refuse_reading_only(url)
    with reaching(url, OutputError):
        store, there = _connect(url)
        if path.is_dir():
            _put_folder(store, path, there, url)
        else:
            _put_file(store, path, there, url)


def check_place(place: str | Path) -> None:
    """Refuse now what `put` would refuse hours later: an empty file is put there, and removed.

    Raises:
        OutputError: as `put`; an address that can only be read.

    Example:
        >>> check_place("memory://bucket/out.png")
    """
    url = _url(place)
    _refuse_reading_only(url)
    with reaching(url, OutputError):
        store, there = _connect(url)
        probe = _hidden(there)
        _make_folder(store, probe.rpartition("/")[0], url)
        store.pipe_file(probe, b"")
        with suppress(PermissionError):  # some may write, but not remove
            store.rm_file(probe)


def make_folder(place: str | Path) -> None:
    """Make a folder at an address, with those above it, where there are folders.

    Raises:
        OutputError: as `put`.

    Example:
        >>> make_folder("memory://bucket/a/b")
    """
    url = _url(place)
    with reaching(url, OutputError):
        store, there = _connect(url)
        _make_folder(store, there, url)


def exists(place: str | Path) -> bool:
    """Say whether there is a file or folder at an address.

    Raises:
        ImageError: no permission, no way there.

    Example:
        >>> exists("memory://bucket/nothing")
        False
    """
    url = _url(place)
    with reaching(url, ImageError):
        store, there = _connect(url)
        store.invalidate_cache()
        return bool(store.exists(there))


def remove(place: str | Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing where there is none.

    Raises:
        OutputError: no permission, no way there.

    Example:
        >>> put("photo.png", "memory://bucket/old.png")
        >>> remove("memory://bucket/old.png")
        >>> exists("memory://bucket/old.png")
        False
    """
    url = _url(place)
    with reaching(url, OutputError):
        store, there = _connect(url)
        store.invalidate_cache()
        with suppress(FileNotFoundError):
            store.rm(there, recursive=True)


@contextmanager
def reaching(
    url: str,
    kind: type[SfumatoError],
    *,
    here: Container[int] = (),
    but: type[Exception] = SfumatoError,
) -> Iterator[None]:
    """Say in one line what a store refuses; all but errors numbered ``here``, and of a type.

    Raises:
        SfumatoError: of the kind.
    """
    try:
        yield
    except (SfumatoError, but):
        raise
    except ImportError as error:
        ours = _protocol(url) in ("s3", "s3a", *_WEB)
        do = 'pip install "sfumato[remote]"' if ours else "install that package beside sfumato"
        raise kind(f"{url} cannot be reached: {error}", do=do) from error
    except Exception as error:
        # What a store raises is of its own packages, which are not imported here.
        if getattr(error, "errno", None) in here or not _of_a_store(error):
            raise
        what = _behind(error)
        raise kind(_told(url, what, kind), do=_advice(what)) from error


def _behind(error: Exception) -> Exception:
    """Return what happened: of the web, fsspec says after any failure that there is no file."""
    cause = error.__cause__
    if not isinstance(cause, Exception) or not _is_of(cause, "aiohttp"):
        return error
    return error if getattr(cause, "status", 0) in (404, 410) else cause


def _of_a_store(error: Exception) -> bool:
    return isinstance(error, OSError) or _is_of(error, *_PACKAGES)


def _is_of(error: Exception, *packages: str) -> bool:
    return any(kind.__module__.partition(".")[0] in packages for kind in type(error).__mro__)


def _told(url: str, error: Exception, kind: type[SfumatoError]) -> str:
    reading = kind is ImageError
    if isinstance(error, FileNotFoundError):
        return f"there is no file {url}" if reading else f"there is no such place as {url}"
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    verb = "read" if reading else "written"
    return f"{url} cannot be {verb}: {reason or type(error).__name__}"


def _advice(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "check the name"
    if isinstance(error, PermissionError) or "redential" in type(error).__name__ + str(error):
        return "check the credentials of the store, and what they allow"
    away = isinstance(error, ConnectionError | TimeoutError) or "Connect" in type(error).__name__
    return "check the network, and try again" if away else ""


def _url(place: str | Path) -> str:
    return address(place) or Path(place).absolute().as_uri()


def _refuse_reading_only(url: str) -> None:
    if _protocol(url) in _WEB:
        raise OutputError(f"{url} can only be read", expected="s3://, gs:// or az:// for outputs")


def _protocol(url: str) -> str:
    return url.partition("://")[0].lower()


def _connect(url: str) -> "tuple[_Store, str]":
    """Return the file system of an address, and the path in it."""
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    try:
        store, there = url_to_fs(url)
    except ValueError as error:
        raise OutputError(
            f"{url} cannot be reached: {error}", expected="s3://, gs://, az:// or https://"
        ) from error
    return store, str(there)


def _info(store: "_Store", there: str) -> dict[str, Any]:
    """Return what is known of a file; the names are in small letters."""
    store.invalidate_cache()
    info = {str(name).lower(): value for name, value in store.info(there).items()}
    if info.get("type") == "directory":
        raise ImageError(f"{store.unstrip_protocol(there)} is a folder", expected="a file")
    return info


def _get(store: "_Store", there: str, path: Path, size: int | None) -> None:
    store.get_file(there, str(path))
    if size is not None and path.stat().st_size != size:
        raise ConnectionError(f"{path.stat().st_size} of {size} bytes came")


def _hidden(there: str) -> str:
    parent, slash, name = there.rpartition("/")
    return f"{parent}{slash}{HIDDEN}{secrets.token_hex(8)}.part{Path(name).suffix}"


def _make_folder(store: "_Store", there: str, url: str) -> None:
    """Make a folder, where there are folders."""
    if _protocol(url) not in _OBJECTS:
        store.makedirs(there, exist_ok=True)


def _put_file(store: "_Store", path: Path, there: str, url: str) -> None:
    if _protocol(url) in _OBJECTS:
        store.put_file(str(path), there)
        return
    _make_folder(store, there.rpartition("/")[0], url)
    hidden = _hidden(there)
    try:
        store.put_file(str(path), hidden)
        stored, size = _info(store, hidden).get("size"), path.stat().st_size
        if stored != size:
            raise ConnectionError(f"{stored} of {size} bytes arrived")
        store.mv(hidden, there)
    except BaseException:
        with suppress(FileNotFoundError):
            store.rm_file(hidden)
        raise


def _put_folder(store: "_Store", folder: Path, there: str, url: str) -> None:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / "zarr.json")
    names = [f"{there}/{p.relative_to(folder).as_posix()}" for p in paths]
    store.invalidate_cache()
    if not set(store.find(there)) <= set(names):  # else it is what a kill left behind, or nothing
        raise OutputError(f"{url} exists already", do="choose another name, or remove it")
    try:
        for parent in {name.rpartition("/")[0] for name in names}:
            _make_folder(store, parent, url)
        store.put([str(p) for p in paths], names)
        _put_file(store, folder / "zarr.json", f"{there}/zarr.json", url)
    except BaseException:
        with suppress(FileNotFoundError):
            store.rm(there, recursive=True)
        raise
