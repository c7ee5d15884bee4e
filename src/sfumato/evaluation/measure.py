"""What a measure is: a number of one result, or of a set of them, with its exact protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from jaxtyping import Float
from torch import Tensor

#: (channels, height, width) in [0, 1], 1 or 3 channels; those of a set may differ in shape.
Picture: TypeAlias = Float[Tensor, "_ _ _"]
Better: TypeAlias = Literal["higher", "lower", "neither"]
Need: TypeAlias = Literal["reference", "measurement", "tiles", "samples", "label"]


@final
@dataclass(frozen=True, eq=False)
class Shown:
    """What a measure may look at: a ``result`` as its file has it, and what is known about it.

    ``measurement`` is what was restored, ``degradation`` the text form of ``A`` that made it
    (``average_pool:4``); ``tiles`` the side and the overlap of the tiles in pixels; ``samples``
    other results of the same measurement; ``label`` the number of the class that it shows.
    """

    result: Picture
    reference: Picture | None = None
    measurement: Picture | None = None
    degradation: str | None = None
    tiles: tuple[int, int] | None = None
    samples: Sequence[Picture] = ()
    label: int | None = None

    def has(self, need: Need) -> bool:
        """Say whether ``need`` is known."""
        value = getattr(self, need)
        return value is not None and (need != "samples" or len(value) > 0)


@final
@dataclass(frozen=True)
class Measure:
    """A number of one result.

    ``name`` heads its column; ``unit`` may be empty; ``digits`` after the point are worth
    printing; ``protocol`` says in a sentence exactly what is computed, with all that another
    program would have to do the same. ``of`` raises sfumato's errors for what it cannot measure,
    and takes about ``bytes_per_pixel`` of memory.
    """

    name: str
    of: Callable[[Shown], float]
    protocol: str
    unit: str = ""
    better: Better = "higher"
    digits: int = 2
    needs: frozenset[Need] = frozenset({"reference"})
    bytes_per_pixel: int = 520


@final
@dataclass(frozen=True)
class SetMeasure:
    """A number of a set of results and a set of references, as the Fréchet distances are.

    ``compares`` is False where it looks at the results alone, or knows its references.
    """

    name: str
    of: Callable[[Sequence[Picture], Sequence[Picture]], float]
    protocol: str
    unit: str = ""
    better: Better = "lower"
    digits: int = 2
    compares: bool = True
