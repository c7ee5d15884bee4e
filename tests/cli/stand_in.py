"""What the tests of the command line share: a call, pictures, and formulas in numpy."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyvips
from typer.testing import CliRunner

from sfumato.cli import app

GREY = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Outcome:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


def sfumato(*words):
    """Run the program in this process; no exception but its own exit may leave it."""
    result = CliRunner().invoke(app, [str(w) for w in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def photo(height, width, channels=3, *, seed=0, bits=8):
    """Return soft waves with noise and a hard edge: integers (height, width, channels)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 24
    waves = [np.sin((1 + k) * x + seed) + np.cos((2 - k / 2) * y) for k in range(channels)]
    u = 0.5 + 0.22 * np.stack(waves, 2) + 0.03 * rng.standard_normal((height, width, channels))
    u[:, width // 2 :] = 1 - u[:, width // 2 :] ** 2
    top = 2**bits - 1
    return np.clip(np.rint(u * top), 0, top).astype(np.uint8 if bits == 8 else np.uint16)


def write(path, values, **options):
    """Write integers (height, width, channels) as they are."""
    names = {1: "b-w", 2: "srgb"} if values.itemsize == 1 else {1: "grey16", 2: "rgb16"}
    interpretation = names[1 if values.shape[2] < 3 else 2]
    image = pyvips.Image.new_from_array(values).copy(interpretation=interpretation)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image.write_to_file(str(path), **options)
    return Path(path)


def read(path):
    """Read integers (height, width, channels) as they are stored."""
    image = pyvips.Image.new_from_file(str(path), revalidate=True)
    return image.numpy().reshape(image.height, image.width, image.bands)


def unit(values):
    """Return stored integers as numbers in [0, 1]."""
    return values.astype(np.float64) / np.iinfo(values.dtype).max


def pool(u, s):
    """Return the means of cells of ``s`` x ``s`` pixels."""
    h, w, c = u.shape
    return u.reshape(h // s, s, w // s, s, c).mean((1, 3))


def grey(u):
    """Return BT.601's grey."""
    return (u * GREY).sum(2, keepdims=True)


def rmse(a, b, weight=1.0):
    """Return the RMSE in units of 1/255, over the values whose weight is not 0."""
    w = np.broadcast_to(np.asarray(weight, float), np.broadcast_shapes(a.shape, b.shape)) != 0
    return 255 * float(np.sqrt((((a - b) ** 2) * w).sum() / w.sum()))


def report_of(path):
    """Return the report beside a result."""
    path = Path(path)
    return json.loads(path.with_name(path.name + ".json").read_text())
