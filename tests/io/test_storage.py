"""What lies in a store reads as on disk, and what is put there appears whole or not at all."""

import os
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import OpenImageIO
import pytest
import pyvips
import torch
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import ImageError, OutputError
from sfumato.io import Canvas, open_windows
from sfumato.io.storage import address, check_place, exists, fetch, name_of, put, remove
from sfumato.io.windows import picture_shape

TILES = {"tile": True, "tile_width": 16, "tile_height": 32}


class ForeignError(Exception):
    """An error of a store's own, which is no OSError."""


ForeignError.__module__ = "botocore.exceptions"


class Watched(MemoryFileSystem):
    """A store in memory that counts what is read, and fails when it is told to."""

    protocol = "watched"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    n_bytes = 0
    written: ClassVar[list] = []
    failing: ClassVar[dict] = {}

    def cat_file(self, path, start=None, end=None, **kwargs):
        self._fail("cat_file")
        data = super().cat_file(path, start, end, **kwargs)
        Watched.n_bytes += len(data)
        return data

    def get_file(self, rpath, lpath, **kwargs):
        self._fail("get_file")
        super().get_file(rpath, lpath, **kwargs)
        Watched.n_bytes += Path(lpath).stat().st_size

    def put_file(self, lpath, rpath, **kwargs):
        super().put_file(lpath, rpath, **kwargs)
        Watched.written.append(rpath)
        self._fail("put_file")

    def pipe_file(self, path, value, **kwargs):
        self._fail("pipe_file")
        super().pipe_file(path, value, **kwargs)

    def info(self, path, **kwargs):
        self._fail("info")
        return super().info(path, **kwargs)

    @classmethod
    def _fail(cls, verb):
        if error := cls.failing.get(verb):
            raise error


@pytest.fixture
def watched():
    fsspec.register_implementation("watched", Watched, clobber=True)
    Watched.store.clear()
    Watched.failing.clear()
    Watched.written.clear()
    Watched.n_bytes = 0
    return Watched


@pytest.fixture(params=["memory", "file"])
def bucket(request, tmp_path):
    """Return the address of an empty folder."""
    if request.param == "file":
        (tmp_path / "bucket").mkdir()
        return (tmp_path / "bucket").as_uri()
    return f"memory://{tmp_path.name}"


def listed(place):
    store, there = fsspec.core.url_to_fs(place)
    store.invalidate_cache()
    return sorted(Path(name).name for name in store.find(there)) if store.exists(there) else []


def read(place):
    store, there = fsspec.core.url_to_fs(place)
    return store.cat_file(there)


def message_of(kind, action, *args):
    with pytest.raises(kind) as caught:
        action(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Addresses


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("s3://bucket/a/in.tif", "s3://bucket/a/in.tif"),
        (Path("s3://bucket/a/in.tif"), "s3://bucket/a/in.tif"),
        ("s3://bucket/a//in.tif", "s3://bucket/a//in.tif"),
        (Path("https://example.org/in.tif?v=1"), "https://example.org/in.tif?v=1"),
        (Path("file:///scans/in.tif"), "file:///scans/in.tif"),
        (Path("memory://in.tif"), "memory://in.tif"),
        ("webdav+x://host/in.tif", "webdav+x://host/in.tif"),
        ("in.tif", None),
        (Path("/scans/in.tif"), None),
        ("C:/scans/in.tif", None),
        ("scans:/in.tif", None),
        ("a/s3:/in.tif", None),
        ("", None),
    ],
)
def test_addresses(place, url):
    assert address(place) == url


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("s3://bucket/a/in.tif", "in.tif"),
        (Path("s3://bucket/a/what?.tif"), "what?.tif"),
        ("https://example.org/a/in%201.tif?X-Signature=a/b.c", "in 1.tif"),
        ("https://example.org/", "file"),
        ("https://example.org/a/%2e%2e", "file"),
        ("a/in.tif", "in.tif"),
    ],
)
def test_names(place, name):
    assert name_of(place) == name


# Whole files


def test_there_and_back(bucket, tmp_path):
    path = tmp_path / "in.bin"
    for data in (b"", os.urandom(3_000_000), b"shorter"):
        path.write_bytes(data)
        put(path, f"{bucket}/a/b/in.bin")
        copy = fetch(f"{bucket}/a/b/in.bin", tmp_path / "job")
        assert (copy.name, copy.read_bytes()) == ("in.bin", data)
        assert listed(bucket) == ["in.bin"]
    remove(f"{bucket}/a")
    remove(f"{bucket}/a")
    assert not exists(f"{bucket}/a/b/in.bin")


def test_a_file_is_fetched_once_for_each_version(watched, tmp_path):
    path = tmp_path / "in.bin"
    for data in (b"one", b"two"):
        path.write_bytes(data)
        put(path, "watched://bucket/in.bin")
        for _ in range(3):
            assert fetch("watched://bucket/in.bin", tmp_path / "job").read_bytes() == data
        put(path, "watched://other/in.bin")
        assert exists("watched://other/in.bin")
        fetch("watched://other/in.bin", tmp_path / "job")
    assert watched.n_bytes == 4 * 3
    assert len(list((tmp_path / "job").glob("*/in.bin"))) == 4


def test_paths_of_this_machine_stay(tmp_path):
    assert fetch(tmp_path / "a.png", tmp_path / "job") == tmp_path / "a.png"
    assert not (tmp_path / "job").exists()


def test_what_cannot_be_fetched(bucket, tmp_path):
    put(__file__, f"{bucket}/a/in.bin")
    said = message_of(ImageError, fetch, f"{bucket}/b.tif", tmp_path / "job")
    assert said == f"there is no file {bucket}/b.tif; check the name"
    assert "is a folder; expected a file" in message_of(
        ImageError, fetch, f"{bucket}/a", tmp_path / "job"
    )
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError("Forbidden"), "cannot be read: Forbidden; check the credentials"),
        (
            ForeignError("Unable to locate\ncredentials"),
            "locate credentials; check the credentials",
        ),
        (
            ConnectionResetError(104, "Connection reset"),
            "read: Connection reset; check the network",
        ),
        (ForeignError(), "cannot be read: ForeignError"),
        (TimeoutError(), "cannot be read: TimeoutError"),
    ],
)
def test_a_store_that_fails_while_it_is_read(watched, tmp_path, error, told):
    put(__file__, "watched://bucket/in.tif")
    for verb in ("info", "get_file"):
        watched.failing = {verb: error}
        assert told in message_of(ImageError, fetch, "watched://bucket/in.tif", tmp_path / "job")
        assert not list(tmp_path.rglob("*.tif"))
    watched.failing = {"info": RuntimeError("a mistake of ours")}
    with pytest.raises(RuntimeError):
        fetch("watched://bucket/in.tif", tmp_path / "job")
    watched.failing = {}


def test_a_file_that_comes_in_part(watched, tmp_path, monkeypatch):
    put(__file__, "watched://bucket/in.tif")
    monkeypatch.setattr(watched, "get_file", lambda s, r, path: Path(path).write_bytes(b"II*"))
    said = message_of(ImageError, fetch, "watched://bucket/in.tif", tmp_path / "job")
    assert "cannot be read: 3 of" in said
    assert not list(tmp_path.rglob("*.tif"))


@pytest.mark.parametrize(
    "error", [ForeignError("No credentials"), OSError(28, "No room"), KeyError()]
)
def test_a_store_that_fails_while_it_is_written(watched, tmp_path, error):
    path = tmp_path / "out.tif"
    path.write_bytes(b"earlier")
    put(path, "watched://bucket/out.tif")
    path.write_bytes(b"later")
    watched.failing = {"put_file": error}
    kind = KeyError if isinstance(error, KeyError) else OutputError
    with pytest.raises(kind):
        put(path, "watched://bucket/out.tif")
    watched.failing = {}
    assert listed("watched://bucket") == ["out.tif"]
    assert read("watched://bucket/out.tif") == b"earlier"


def test_outputs_are_refused_in_time(bucket, watched, tmp_path):
    check_place(f"{bucket}/new/out.tif")
    assert listed(bucket) == []
    watched.failing = {"pipe_file": PermissionError("Access Denied")}
    said = message_of(OutputError, check_place, "watched://bucket/out.tif")
    assert said.startswith("watched://bucket/out.tif cannot be written: Access Denied; check the")
    for action in (check_place, partial(put, __file__)):
        said = message_of(OutputError, action, Path("https://example.org/out.tif"))
        assert "https://example.org/out.tif can only be read; expected s3://" in said
        assert "not known: nowhere; expected s3://" in message_of(
            OutputError, action, "nowhere://a"
        )


def test_a_store_whose_package_is_missing(monkeypatch, tmp_path):
    for package, protocol in (("s3fs", "s3"), ("gcsfs", "gs")):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    for kind, action in (
        (ImageError, partial(fetch, "s3://bucket/in.tif", tmp_path)),
        (ImageError, partial(open_windows, "s3://bucket/in.tif")),
        (OutputError, partial(Canvas.open, "s3://bucket/a.zarr")),
        (OutputError, partial(put, __file__, "s3://bucket/in.tif")),
        (OutputError, partial(check_place, "s3://bucket/in.tif")),
    ):
        said = message_of(kind, action)
        assert "s3fs" in said
        assert 'pip install "sfumato[remote]"' in said
    said = message_of(ImageError, fetch, "gs://bucket/in.tif", tmp_path)
    assert said.endswith("gcsfs to access Google Storage; install that package beside sfumato")


# Folders


@pytest.fixture
def canvas(tmp_path):
    canvas = Canvas.create(tmp_path / "a.zarr", (50, 70, 3), 8, (16, 16))
    canvas.write(0, 0, np.arange(50 * 70 * 3, dtype="u1").reshape(50, 70, 3))
    canvas.sync()
    return canvas


def test_a_folder_of_zarr(bucket, tmp_path, canvas):
    put(tmp_path / "a.zarr", f"{bucket}/out.zarr")
    stored = Canvas.open(f"{bucket}/out.zarr").read(0, 0, 50, 70)
    assert np.array_equal(stored, canvas.read(0, 0, 50, 70))
    assert "exists already" in message_of(
        OutputError, put, tmp_path / "a.zarr", f"{bucket}/out.zarr"
    )


def test_a_folder_is_complete_with_its_last_file(watched, tmp_path, canvas):
    put(tmp_path / "a.zarr", "watched://bucket/out.zarr")
    names = [Path(name).name for name in watched.written]
    assert sorted(names[:-1]) == sorted(p.name for p in (tmp_path / "a.zarr").glob("c*"))
    assert listed("watched://bucket/out.zarr")[-1] == "zarr.json"
    watched.failing = {"put_file": ConnectionError("gone")}
    message_of(OutputError, put, tmp_path / "a.zarr", "watched://bucket/other.zarr")
    watched.failing = {}
    assert not exists("watched://bucket/other.zarr")


def test_what_a_kill_left_of_a_folder_is_completed(bucket, tmp_path, canvas):
    put(tmp_path / "a.zarr", f"{bucket}/out.zarr")
    for name in ("zarr.json", "c.0.0.0"):
        remove(f"{bucket}/out.zarr/{name}")
    put(tmp_path / "a.zarr", f"{bucket}/out.zarr")
    stored = Canvas.open(f"{bucket}/out.zarr").read(0, 0, 50, 70)
    assert np.array_equal(stored, canvas.read(0, 0, 50, 70))
    put(__file__, f"{bucket}/other.zarr/letter.txt")
    assert "exists already" in message_of(
        OutputError, put, tmp_path / "a.zarr", f"{bucket}/other.zarr"
    )
    assert listed(f"{bucket}/other.zarr") == ["letter.txt"]


def test_a_canvas_in_a_store_that_fails(watched):
    canvas = Canvas.create("watched://bucket/a.zarr", (50, 70, 3), 8, (16, 16))
    canvas.write(0, 0, np.full((50, 70, 3), 7, "u1"))
    watched.failing = {"pipe_file": ForeignError("Unable to locate credentials")}
    said = message_of(OutputError, canvas.sync)
    assert "watched://bucket/a.zarr cannot be written: Unable to locate credentials" in said
    watched.failing = {}
    canvas.sync()
    canvas = Canvas.open("watched://bucket/a.zarr")
    watched.failing = {"cat_file": ForeignError("Unable to locate credentials")}
    said = message_of(ImageError, canvas.read, 0, 0, 50, 70)
    assert "watched://bucket/a.zarr cannot be read: Unable to locate credentials" in said
    assert "cannot be read" in message_of(ImageError, Canvas.open, "watched://bucket/a.zarr")
    watched.failing = {}
    assert canvas.read(0, 0, 50, 70).min() == 7


# Windows


def noise(channels=3, height=170, width=153, bits=8):
    generator = np.random.default_rng(channels)
    return generator.integers(0, 2**bits, (height, width, channels)).astype(f"u{bits // 8}")


def write_directory_first(path):
    height, width, channels = noise().shape
    spec = OpenImageIO.ImageSpec(width, height, channels, "uint8")
    spec.tile_width = spec.tile_height = 16
    spec["compression"] = "none"
    output = OpenImageIO.ImageOutput.create("tiff")
    assert output.open(path, spec)
    assert output.write_image(noise())
    assert output.close()


def makers():
    rgb, deep = (pyvips.Image.new_from_array(noise(bits=bits)) for bits in (8, 16))
    turned = rgb.copy()
    turned.set_type(pyvips.GValue.gint_type, "orientation", 6)
    return {
        "raw.tif": lambda p: rgb.tiffsave(p, **TILES),
        "big.tif": lambda p: deep.tiffsave(p, bigtiff=True, compression="deflate", **TILES),
        "jpeg.tif": lambda p: rgb.tiffsave(p, compression="jpeg", **TILES),
        "pyramid.tif": lambda p: rgb.tiffsave(p, pyramid=True, compression="lzw", **TILES),
        "turned.tif": lambda p: turned.tiffsave(p, **TILES),
        "first.tif": write_directory_first,
        "strips.tif": rgb.tiffsave,
        "a.png": rgb.pngsave,
        "a.jpg": rgb.jpegsave,
        "a.webp": rgb.webpsave,
        "a.npy": lambda p: np.save(p, noise().astype("f4")),
    }


MAKERS = makers()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Return the windows of each file, here and in a store whose parts come in small blocks."""
    folder = tmp_path_factory.mktemp("pairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfumato.io._parts._BLOCK", 700)
        patch.setattr("sfumato.io._parts._MOST_BLOCKS", 3)
        opened = {}
        for name, make in MAKERS.items():
            make(str(folder / name))
            put(folder / name, f"memory://pairs/{name}")
            opened[name] = open_windows(folder / name), open_windows(f"memory://pairs/{name}")
        yield opened


@given(data=st.data(), name=st.sampled_from(sorted(MAKERS)))
def test_windows_are_those_of_the_file(pairs, data, name):
    here, there = pairs[name]
    top = data.draw(st.integers(0, here.height - 1))
    left = data.draw(st.integers(0, here.width - 1))
    high = data.draw(st.integers(1, min(60, here.height - top)))
    wide = data.draw(st.integers(1, min(60, here.width - left)))
    assert torch.equal(there.read(top, left, high, wide), here.read(top, left, high, wide))


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_all_else_is_that_of_the_file_too(pairs, name):
    here, there = pairs[name]
    for attribute in ("channels", "height", "width", "bits", "icc", "exif", "format", "notes"):
        assert getattr(here, attribute) == getattr(there, attribute)
    assert picture_shape(Path(f"memory://pairs/{name}")) == (
        here.channels,
        here.height,
        here.width,
    )
    every = (0, 0, here.height, here.width)
    assert torch.equal(there.read(*every), here.read(*every))


def test_only_the_wanted_tiles_are_fetched(watched, tmp_path):
    path = str(tmp_path / "a.tif")
    pyvips.Image.new_from_array(noise(height=3000, width=2000)).tiffsave(
        path, tile=True, tile_width=256, tile_height=256
    )
    put(path, "watched://bucket/a.tif")
    assert picture_shape("watched://bucket/a.tif") == (3, 3000, 2000)
    assert watched.n_bytes <= 3 * 2**18
    windows = open_windows("watched://bucket/a.tif", scratch=tmp_path / "scratch")
    watched.n_bytes = 0
    for _ in range(3):
        windows.read(1300, 600, 100, 100)
    assert 256 * 256 * 3 <= watched.n_bytes <= 2 * 2**18
    del windows
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("name", ["raw.tif", "first.tif", "strips.tif", "a.png", "a.npy"])
def test_cut_files_are_refused_alike(tmp_path, name):
    path, place = tmp_path / name, f"memory://cut/{name}"
    MAKERS[name](str(path))
    data = path.read_bytes()
    for n_kept in (0, 5, 20, len(data) // 3, len(data) - 7):
        path.write_bytes(data[:n_kept])
        put(path, place)
        here = message_of(ImageError, open_windows, path)
        assert message_of(ImageError, open_windows, place) == here.replace(str(path), place)


def test_a_store_that_fails_between_windows(watched, tmp_path):
    MAKERS["raw.tif"](str(tmp_path / "a.tif"))
    put(tmp_path / "a.tif", "watched://bucket/a.tif")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfumato.io._parts._BLOCK", 700)
        windows = open_windows("watched://bucket/a.tif")
        watched.failing = {"cat_file": ForeignError("Token expired")}
        said = message_of(ImageError, windows.read, 100, 100, 20, 20)
        assert said == "watched://bucket/a.tif cannot be read: Token expired"
        watched.failing = {}
        expected = open_windows(tmp_path / "a.tif").read(100, 100, 20, 20)
        assert torch.equal(windows.read(100, 100, 20, 20), expected)


# The web


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, as a whole."""

    def log_message(self, *args):
        pass


class Ranged(Quiet):
    """Serves parts of files."""

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file() or "Range" not in self.headers:
            super().do_GET()
            return
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = path.read_bytes()[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@contextmanager
def serving(folder, handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("handler", [Quiet, Ranged])
@pytest.mark.parametrize("name", ["raw.tif", "strips.tif", "a.png"])
def test_windows_from_the_web(tmp_path, handler, name):
    pytest.importorskip("aiohttp")
    (tmp_path / "www").mkdir()
    MAKERS[name](str(tmp_path / "www" / name))
    here = open_windows(tmp_path / "www" / name)
    with serving(tmp_path / "www", handler) as url:
        there = open_windows(f"{url}/{name}")
        for window in ((140, 100, 20, 20), (0, 0, 170, 153)):
            assert torch.equal(there.read(*window), here.read(*window))
        for _ in range(2):
            copy = fetch(Path(f"{url}/{name}?a=b"), tmp_path / "job")
            assert copy.read_bytes() == (tmp_path / "www" / name).read_bytes()
        for place in (f"{url}/none.tif", Path(f"{url}/none.tif")):
            said = message_of(ImageError, fetch, place, tmp_path / "job")
            assert said == f"there is no file {url}/none.tif; check the name"
    assert "cannot be read" in message_of(ImageError, fetch, f"{url}/{name}", tmp_path / "job")
