"""Images in and out, whole or by windows, and unaltered; checkpoints."""

from sfumato.io._write import write_blank
from sfumato.io.canvas import Canvas
from sfumato.io.checkpoints import load_checkpoint, load_header, load_state, save_checkpoint
from sfumato.io.images import (
    LIMIT_PIXELS,
    MaskWindows,
    Picture,
    atomic_path,
    check_output,
    digest,
    find_pictures,
    open_mask,
    read_mask,
    read_measurement,
    read_picture,
    write_picture,
)
from sfumato.io.masters import check_master, write_master
from sfumato.io.windows import PictureWindows, open_windows

__all__ = [
    "LIMIT_PIXELS",
    "Canvas",
    "MaskWindows",
    "Picture",
    "PictureWindows",
    "atomic_path",
    "check_master",
    "check_output",
    "digest",
    "find_pictures",
    "load_checkpoint",
    "load_header",
    "load_state",
    "open_mask",
    "open_windows",
    "read_mask",
    "read_measurement",
    "read_picture",
    "save_checkpoint",
    "write_blank",
    "write_master",
    "write_picture",
]
