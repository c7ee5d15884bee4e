"""The table of the forms in which models come: what a file or folder is, and who loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.errors import ModelError

if TYPE_CHECKING:
    from sfumato.zoo.source import Format, Source


def formats() -> list[Format]:
    """Return the forms, in the order in which they are asked; each is a module."""
    from sfumato.zoo import adm, diffusers_folder, gaussian, native

    known: list[Format] = [adm, native, diffusers_folder, gaussian]
    return known


def format_of(source: Source) -> Format:
    """Return the form that a file or folder has.

    Raises ModelError where it is damaged, or none that is known.
    """
    known = formats()
    found = next((form for form in known if form.matches(source)), None)
    if found is None:
        raise _unknown(source, [form.WHAT for form in known])
    return found


def _unknown(source: Source, known: list[str]) -> ModelError:
    from sfumato.io.checkpoints import load_header
    from sfumato.io.pickles import some

    if source.path.is_file() and not (source.is_safetensors or source.is_pickle):
        load_header(source.path)  # which says what is wrong with it
    told = f"tensors of another program: {some(source.shapes)}" if source.shapes else "no model"
    return ModelError(
        f"{source.path} holds {told}",
        expected=" or ".join(known),
        do="convert it first, if it is an SR3 model: sfumato models convert",
    )
