"""Images in and out, whole and unaltered; checkpoints."""

from sfumato.io.checkpoints import load_checkpoint, load_state, save_checkpoint
from sfumato.io.images import (
    LIMIT_PIXELS,
    Picture,
    atomic_path,
    check_output,
    digest,
    find_pictures,
    read_mask,
    read_measurement,
    read_picture,
    write_picture,
)

__all__ = [
    "LIMIT_PIXELS",
    "Picture",
    "atomic_path",
    "check_output",
    "digest",
    "find_pictures",
    "load_checkpoint",
    "load_state",
    "read_mask",
    "read_measurement",
    "read_picture",
    "save_checkpoint",
    "write_picture",
]
