"""A canvas holds what was written, on a disk that is pulled out from under it at any moment."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfumato.errors import ImageError, OutputError
from sfumato.io import Canvas

HEIGHT, WIDTH = 37, 53


def values(height, width, channels=3, bits=8, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(1, 2**bits, (height, width, channels)).astype(f"uint{bits}")


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@st.composite
def windows(draw):
    top, left = draw(st.integers(0, HEIGHT - 1)), draw(st.integers(0, WIDTH - 1))
    high = draw(st.integers(1, HEIGHT - top))
    return top, left, high, draw(st.integers(1, WIDTH - left))


STEPS = st.lists(st.tuples(st.sampled_from(["write", "read", "sync", "open"]), windows()))
CHUNKS = st.sampled_from([(8, 16), (10, 7), (37, 53), (64, 5), (1, 53)])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=STEPS,
    chunk=CHUNKS,
    channels=st.sampled_from([1, 3, 4]),
    bits=st.sampled_from([8, 16]),
    n_kept=st.integers(0, 6),
    remote=st.booleans(),
)
def test_a_canvas_is_an_array(tmp_path_factory, steps, chunk, channels, bits, n_kept, remote):
    folder = tmp_path_factory.mktemp("canvas") / "a.zarr"
    where = f"memory://{folder.parent.name}" if remote else folder
    cache_bytes = n_kept * chunk[0] * chunk[1] * channels * bits // 8
    array = np.zeros((HEIGHT, WIDTH, channels), f"uint{bits}")
    canvas = Canvas.create(where, array.shape, bits, chunk, cache_bytes=cache_bytes)
    for number, (verb, (top, left, high, wide)) in enumerate(steps):
        of_array = array[top : top + high, left : left + wide]
        if verb == "write":
            of_array[:] = values(high, wide, channels, bits, number)
            canvas.write(top, left, of_array.copy())
        elif verb == "read":
            assert np.array_equal(canvas.read(top, left, high, wide), of_array)
        else:
            canvas.sync()
            if verb == "open":
                canvas = Canvas.open(where, writable=True, cache_bytes=cache_bytes)
    assert np.array_equal(canvas.read(0, 0, HEIGHT, WIDTH), array)
    canvas.sync()
    assert np.array_equal(Canvas.open(where).read(0, 0, HEIGHT, WIDTH), array)


def test_what_it_tells_of_itself(tmp_path):
    metadata = {"seed": 3, "name": "a", "levels": [1, 2]}
    Canvas.create(tmp_path / "a.zarr", (5, 7, 3), 16, (4, 100), metadata)
    canvas = Canvas.open(tmp_path / "a.zarr")
    assert (canvas.height, canvas.width, canvas.channels, canvas.bits) == (5, 7, 3, 16)
    assert canvas.chunk == (4, 7)
    assert canvas.metadata == metadata
    assert canvas.read(0, 0, 5, 7).max() == 0


def test_any_program_that_knows_zarr_can_read_it(tmp_path):
    array = values(HEIGHT, WIDTH, bits=16)
    canvas = Canvas.create(tmp_path / "a.zarr", array.shape, 16, (16, 16))
    canvas.write(0, 0, array)
    canvas.sync()
    assert np.array_equal(zarr.open_array(tmp_path / "a.zarr", mode="r")[:], array)
    assert json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["zarr_format"] == 3


def test_an_address_of_a_folder(tmp_path):
    Canvas.create(f"file://{tmp_path}/a.zarr", (5, 7, 3), 8, (4, 4))
    assert Canvas.open(tmp_path / "a.zarr").width == 7


def test_chunks_are_written_once_for_a_row_of_tiles(tmp_path, monkeypatch):
    canvas = Canvas.create(tmp_path / "a.zarr", (64, 64, 3), 8, (16, 16))
    stored = []
    store_one = Canvas._store_one
    monkeypatch.setattr(
        Canvas, "_store_one", lambda s, key: (stored.append(key), store_one(s, key))
    )
    for left in range(0, 48, 4):
        canvas.write(4, left, values(20, 16))
    assert stored == []
    canvas.sync()
    assert sorted(stored) == [(i, j) for i in range(2) for j in range(4)]
    canvas.sync()
    canvas.read(0, 0, 64, 64)
    assert len(stored) == 8


def test_memory_is_bounded(tmp_path):
    canvas = Canvas.create(tmp_path / "a.zarr", (160, 160, 1), 8, (16, 16), cache_bytes=10 * 256)
    canvas.write(0, 0, values(160, 160, 1))
    assert len(canvas._chunks) <= 10
    assert len(files(tmp_path / "a.zarr")) > 90
    canvas.read(0, 0, 160, 160)
    assert len(canvas._chunks) <= 10


# Durability


def test_sync_waits_for_the_disk(tmp_path, monkeypatch):
    """Each file is flushed before it gets its name, and each name after."""
    canvas = Canvas.create(tmp_path / "a.zarr", (32, 32, 3), 8, (16, 16))
    flushed = []
    fsync = os.fsync

    def spy(descriptor):
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    canvas.write(0, 0, values(20, 20))
    assert flushed == []
    canvas.sync()
    assert len([p for p in flushed if ".part" in p.name]) == 4
    assert flushed.count(tmp_path / "a.zarr") == 4
    assert files(tmp_path / "a.zarr") == [f"c.{i}.{j}.0" for i in (0, 1) for j in (0, 1)] + [
        "zarr.json"
    ]


def test_a_full_disk_damages_nothing_and_can_be_tried_again(tmp_path, monkeypatch):
    canvas = Canvas.create(tmp_path / "a.zarr", (32, 32, 3), 8, (16, 16), cache_bytes=0)
    first, second = values(32, 32), values(32, 32, seed=1)
    canvas.write(0, 0, first)
    canvas.sync()
    full = True
    fsync = os.fsync

    def spy(descriptor):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        canvas.write(0, 0, second)
    with pytest.raises(OutputError, match="No space"):
        canvas.sync()
    assert np.array_equal(Canvas.open(tmp_path / "a.zarr").read(0, 0, 32, 32), first)
    full = False
    canvas.write(0, 0, second)
    canvas.sync()
    assert np.array_equal(Canvas.open(tmp_path / "a.zarr").read(0, 0, 32, 32), second)
    assert len(files(tmp_path / "a.zarr")) == 5


# One process imports, and forks the writers, each of which writes until it is killed.
# (The canvas alone, without torch: `sfumato.io` is put there empty.)
WRITERS = """
import os, random, signal, sys, time, types
from pathlib import Path
import numpy as np
import sfumato
sys.modules["sfumato.io"] = package = types.ModuleType("sfumato.io")
package.__path__ = [str(Path(sfumato.__file__).with_name("io"))]
from sfumato.io.canvas import Canvas

def writer(folder, seed):
    canvas = Canvas.open(folder / "a.zarr", writable=True, cache_bytes=20_000)
    log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    random.seed(seed)
    for number in range(1, 100_000):
        top, left = random.randrange(100), random.randrange(100)
        canvas.write(top, left, np.full((60, 60, 3), number % 65536, np.uint16))
        canvas.sync()
        os.write(log, b"%d %d\\n" % (top, left))

for seed in range(int(sys.argv[2])):
    folder = Path(sys.argv[1], str(seed))
    pid = os.fork()
    if pid == 0:
        try:
            writer(folder, seed)
        finally:
            os._exit(1)
    while not (folder / "log").exists() or (folder / "log").stat().st_size < 40:
        time.sleep(0.01)
    time.sleep(0.003 * random.Random(seed).randrange(100))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


def test_a_kill_damages_nothing_that_was_synced(tmp_path):
    n_rounds = 5
    for seed in range(n_rounds):
        Canvas.create(tmp_path / str(seed) / "a.zarr", (160, 160, 3), 16, (48, 48))
    command = [sys.executable, "-c", WRITERS, str(tmp_path), str(n_rounds)]
    subprocess.run(command, check=True, timeout=100)
    for seed in range(n_rounds):
        expected = np.zeros((160, 160, 3), np.uint16)
        lines = (tmp_path / str(seed) / "log").read_text().splitlines()
        for number, line in enumerate(lines, 1):
            top, left = map(int, line.split())
            expected[top : top + 60, left : left + 60] = number
        canvas = Canvas.open(tmp_path / str(seed) / "a.zarr", writable=True)
        after = canvas.read(0, 0, 160, 160)
        # One window was on its way.
        assert np.isin(after[after != expected], len(lines) + 1).all()
        names = files(tmp_path / str(seed) / "a.zarr")
        assert not [name for name in names if name.startswith(".")]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    Canvas.create(tmp_path / "a.zarr", (5, 7, 3), 8, (4, 4))
    (tmp_path / "a.zarr" / ".sfumato-0123456789abcdef.part.0").write_bytes(b"half")
    Canvas.open(tmp_path / "a.zarr")
    assert len(files(tmp_path / "a.zarr")) == 2
    Canvas.open(tmp_path / "a.zarr", writable=True)
    assert files(tmp_path / "a.zarr") == ["zarr.json"]


# What is refused


@pytest.fixture
def canvas(tmp_path):
    canvas = Canvas.create(tmp_path / "a.zarr", (HEIGHT, WIDTH, 3), 8, (16, 16))
    canvas.write(0, 0, values(HEIGHT, WIDTH))
    canvas.sync()
    return canvas


@pytest.mark.parametrize(
    ("shape", "bits", "chunk"),
    [((0, 5, 3), 8, (4, 4)), ((5, 5, 3), 12, (4, 4)), ((5, 5, 3), 8, (4, 0))],
)
def test_impossible_canvases(tmp_path, shape, bits, chunk):
    with pytest.raises(ImageError, match="expected positive numbers, and 8 or 16 bits"):
        Canvas.create(tmp_path / "b.zarr", shape, bits, chunk)
    assert files(tmp_path) == []


@pytest.mark.parametrize("metadata", [{"a": {1, 2}}, {"a": float("nan")}])
def test_metadata_are_json(tmp_path, metadata):
    with pytest.raises(ImageError, match="no JSON"):
        Canvas.create(tmp_path / "b.zarr", (5, 5, 3), 8, (4, 4), metadata)


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, 49, 5, 5), (33, 0, 5, 5), (0, 0, 0, 5)])
def test_windows_lie_inside(canvas, window):
    with pytest.raises(ImageError, match="expected one inside the canvas of 53 × 37"):
        canvas.read(*window)
    with pytest.raises(ImageError, match="expected one inside"):
        canvas.write(*window[:2], np.zeros((*window[2:], 3), np.uint8))


@pytest.mark.parametrize(
    "array", [np.zeros((5, 5, 1), "u1"), np.zeros((5, 5, 3), "u2"), np.zeros((5, 5), "u1")]
)
def test_other_arrays(canvas, array):
    with pytest.raises(ImageError, match=r"expected uint8, \(height, width, 3\)"):
        canvas.write(0, 0, array)


def test_places_where_no_canvas_can_be(tmp_path, canvas, monkeypatch):
    del canvas
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    for name in ("a.zarr", "a.zarr/zarr.json"):
        with pytest.raises(OutputError, match="exists already; choose another name"):
            Canvas.create(tmp_path / name, (5, 5, 3), 8, (4, 4))
    with pytest.raises(OutputError, match="in the way"):
        Canvas.create(tmp_path / "a.zarr" / "zarr.json" / "b.zarr", (5, 5, 3), 8, (4, 4))
    Canvas.create("memory://twice", (5, 5, 3), 8, (4, 4))
    with pytest.raises(OutputError, match="exists already; choose another address"):
        Canvas.create("memory://twice", (5, 5, 3), 8, (4, 4))
    for address in ("nowhere://a", "s3://bucket/a"):
        with pytest.raises(OutputError, match=r"cannot be reached: .*(not known|s3fs)"):
            Canvas.create(address, (5, 5, 3), 8, (4, 4))


def test_what_is_no_canvas(tmp_path):
    for where in (tmp_path, tmp_path / "b", "memory://nothing"):
        with pytest.raises(ImageError, match="there is no canvas"):
            Canvas.open(where)
    zarr.create_array(str(tmp_path / "c"), shape=(4, 4), dtype="f4")
    with pytest.raises(ImageError, match=r"is an array of float32, shape \(4, 4\)"):
        Canvas.open(tmp_path / "c", writable=True)


def test_a_canvas_for_reading_is_not_written(tmp_path, canvas):
    del canvas
    with pytest.raises(OutputError, match="open for reading only"):
        Canvas.open(tmp_path / "a.zarr").write(0, 0, values(5, 5))


@pytest.mark.parametrize("n_kept", [0, 3, 100, -1])
def test_damaged_chunks_are_noticed(tmp_path, canvas, n_kept):
    del canvas
    path = tmp_path / "a.zarr" / "c.1.1.0"
    path.write_bytes(path.read_bytes()[:n_kept])
    canvas = Canvas.open(tmp_path / "a.zarr", writable=True)
    with pytest.raises(ImageError, match=r"a\.zarr is damaged"):
        canvas.read(0, 0, HEIGHT, WIDTH)
    with pytest.raises(ImageError, match=r"a\.zarr is damaged"):
        canvas.write(16, 16, values(5, 5))
    canvas.write(16, 16, values(16, 16))
    canvas.sync()
    assert np.array_equal(canvas.read(16, 16, 16, 16), values(16, 16))


@pytest.mark.parametrize("text", ["", "{}", '{"zarr_format": 3, "node_type": "array"}', "[]"])
def test_damaged_headers_are_noticed(tmp_path, canvas, text):
    del canvas
    (tmp_path / "a.zarr" / "zarr.json").write_text(text)
    with pytest.raises(ImageError, match=r"a\.zarr is damaged or no canvas"):
        Canvas.open(tmp_path / "a.zarr")
