"""The pictures of a study: matched by name, cut alike, and spoilt for checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from sfumato.errors import ImageError
from sfumato.io import find_pictures, read_picture

Colours = Float[Tensor, "3 height width"]
#: Blocks of a spoilt picture in pixels, and the noise on each.
_BLOCK, _NOISE = 16, 0.15


@final
@dataclass(frozen=True)
class Sources:
    """The files of one picture: the photograph, what methods made, and what they made it from."""

    name: str
    reference: Path
    results: Mapping[str, Path]
    input: Path | None = None


@final
@dataclass(frozen=True, eq=False)
class Cut:
    """The same part of each, in colours; ``results`` by the names of methods."""

    reference: Colours
    results: Mapping[str, Colours]
    input: Float[Tensor, "3 rows columns"] | None = None


def match(results: Path, references: Path, inputs: Path | None = None) -> list[Sources]:
    """Find what belongs together: pictures of one name, whatever their format.

    ``results`` holds pictures, or a folder of them for each method. References without a
    result are left out.

    Raises:
        ImageError: a folder without pictures, two pictures of one name, a result without a
            reference or an input, a picture that one method has and another lacks.
    """
    photographs = _by_name(references)
    methods = _methods(results)
    names = sorted(set().union(*methods.values()))
    given = _by_name(inputs) if inputs else {}
    for name in names:
        if name not in photographs:
            raise ImageError(
                f"the result {name} has no photograph in {references}",
                expected="pictures of one name in both",
            )
        for method, found in methods.items():
            if name not in found:
                raise ImageError(
                    f"{method} has no picture {name}, which other methods have",
                    do="add it, or take it from the others",
                )
        if inputs and name not in given:
            raise ImageError(f"{name} has no input in {inputs}", do="add it")
    return [
        Sources(
            name,
            photographs[name],
            {method: found[name] for method, found in methods.items()},
            given.get(name),
        )
        for name in names
    ]


def cut(sources: Sources, side: int) -> Cut:
    """Read the pictures, and cut the middle of at most ``side`` pixels a side out of each.

    An input that is smaller by whole factors is cut to the part that shows the same.

    Raises:
        ImageError: a result of another size than its photograph, an input that cannot be cut.
    """
    reference = _read(sources.reference)
    height, width = reference.shape[1:]
    results = {method: _read(path) for method, path in sources.results.items()}
    for method, result in results.items():
        if result.shape != reference.shape:
            raise ImageError(
                f"{sources.results[method]} of {result.shape[2]} x {result.shape[1]} pixels",
                expected=f"{width} x {height}, the size of {sources.reference}",
            )
    given = _read(sources.input) if sources.input else None
    if height <= side and width <= side:
        return Cut(reference, results, given)
    fy, fx = _factors(sources, reference, given)
    rows, columns = _middle(height, side, fy), _middle(width, side, fx)
    part = None
    if given is not None:
        part = given[
            :, rows.start // fy : rows.stop // fy, columns.start // fx : columns.stop // fx
        ]
    return Cut(
        reference[:, rows, columns],
        {method: result[:, rows, columns] for method, result in results.items()},
        part,
    )


def spoilt(x: Colours, seed: int) -> Colours:
    """Return what nobody who looks takes for a photograph: its blocks, each in a colour askew.

    >>> spoilt(torch.rand(3, 40, 50), seed=1).shape
    torch.Size([3, 40, 50])
    """
    height, width = x.shape[1:]
    rows, columns = max(1, height // _BLOCK), max(1, width // _BLOCK)
    blocks = interpolate(x[None], size=(rows, columns), mode="area")
    g = torch.Generator().manual_seed(seed)
    blocks = (blocks + _NOISE * torch.randn(blocks.shape, generator=g)).clamp(0, 1)
    return interpolate(blocks, size=(height, width), mode="nearest")[0]


def _methods(results: Path) -> dict[str, dict[str, Path]]:
    """Return the pictures of each method."""
    if find_pictures(results):
        return {results.resolve().name: _by_name(results)}
    folders = sorted(p for p in results.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise ImageError(
            f"there are no pictures in {results}",
            expected="pictures, or a folder of them for each method",
        )
    return {folder.name: _by_name(folder) for folder in folders}


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in find_pictures(folder):
        if path.stem in found:
            raise ImageError(
                f"{found[path.stem]} and {path} have one name", do="take one of them away"
            )
        found[path.stem] = path
    if not found:
        raise ImageError(f"there are no pictures in {folder}", expected="a folder of pictures")
    return found


def _read(path: Path) -> Colours:
    pixels = read_picture(path).pixels
    return pixels if pixels.shape[0] == 3 else pixels.expand(3, -1, -1)


def _factors(sources: Sources, reference: Tensor, given: Tensor | None) -> tuple[int, int]:
    if given is None:
        return 1, 1
    factors: Sequence[tuple[int, int]] = [
        divmod(n, m) for n, m in zip(reference.shape[1:], given.shape[1:], strict=True)
    ]
    if any(rest or not factor for factor, rest in factors):
        raise ImageError(
            f"{sources.input} of {given.shape[2]} x {given.shape[1]} pixels, for a picture that "
            "is cut",
            expected=f"a size that divides {reference.shape[2]} x {reference.shape[1]}",
            do="cut the pictures yourself, or take a larger --side",
        )
    return factors[0][0], factors[1][0]


def _middle(n: int, side: int, factor: int) -> slice:
    """Return the middle of ``n`` pixels, at most ``side`` of them, in whole cells of ``factor``.

    >>> _middle(100, 50, 4)
    slice(24, 72, None)
    """
    if n <= side:
        return slice(0, n)
    length = max(factor, side - side % factor)
    start = (n - length) // 2
    start -= start % factor
    return slice(start, start + length)
