"""A schedule that was found, stored with its model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from sfumato.errors import OutputError, SettingsError
from sfumato.evaluation.candidates import Candidate
from sfumato.io import atomic_path, load_checkpoint, save_checkpoint
from sfumato.zoo.config import parse_config
from sfumato.zoo.sr3 import SR3Config


def check_place(out: Path) -> None:
    """Refuse a place for a model before any work is done.

    Raises SettingsError for a name that does not end in .safetensors, OutputError where a folder
    stands in the way.
    """
    if out.suffix != ".safetensors":
        raise SettingsError(f"the output {out}", expected="a name that ends in .safetensors")
    if out.is_dir():
        raise OutputError(f"{out} is a folder", expected="the name of a file")


def store_schedule(
    source: Path, out: Path, found: Candidate, record: Mapping[str, object] | None = None
) -> None:
    """Write a copy of an SR3 checkpoint that is sampled by ``found``, with its card beside it.

    The header gets ``sigmas`` and ``eta``, and ``record`` in its record of training under
    "schedule_search"; weights and the rest of the header stay as they are. ``out`` may be
    ``source``.

    Raises ModelError where ``source`` is no SR3 model, OutputError where ``out`` cannot be
    written.
    """
    tensors, header = load_checkpoint(source)
    config = parse_config(header, source, SR3Config)
    header |= {"sigmas": list(found.sigmas), "eta": found.eta}
    if record is not None:
        header["training"] = {**config.training, "schedule_search": dict(record)}
    parse_config(header, out, SR3Config)
    card = source.with_suffix(".md")
    save_checkpoint(out, tensors, header)
    if card.is_file() and not (out.exists() and out.samefile(source)):
        with atomic_path(out.with_suffix(".md")) as temporary:
            shutil.copyfile(card, temporary)
