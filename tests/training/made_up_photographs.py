"""Photographs that need no camera."""

import numpy as np
import pyvips


def draw(height, width, seed):
    """Return waves and noise as (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    rows, cols = (i[..., None] / 9 for i in np.mgrid[:height, :width])
    waves = np.sin(rows * rng.uniform(0.3, 1, 3) + cols * rng.uniform(0.3, 1, 3))
    return np.uint8(np.clip(127.5 + 90 * waves + rng.normal(0, 8, waves.shape), 0, 255))


def write(path, array):
    """Write an array in the format of the path's suffix."""
    pyvips.Image.new_from_array(array).write_to_file(str(path))
    return path
