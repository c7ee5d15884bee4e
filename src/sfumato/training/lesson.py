"""What a run asks of the thing that it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import JsonValue
from torch import Tensor, nn

from sfumato.training.source import Source


class Lesson(ABC):
    """A network to begin with, a loss for each step, and what becomes of the network.

    Everything random is a function of the seed, the step and the example (``Draws``).
    """

    #: Names the files of its runs.
    kind: str
    #: The photographs to learn from.
    source: Source
    #: How many there are to validate on.
    n_holdout: int

    @abstractmethod
    def model(self) -> nn.Module:
        """Return a denoiser on the CPU, its network as ``net``, as the settings have it start."""

    @abstractmethod
    def begin(self, step: int) -> int:
        """Make ready for a step; return how many examples it has."""

    @abstractmethod
    def loss(self, model: nn.Module, step: int, first: int, count: int) -> Tensor:
        """Return the mean loss of ``count`` of the step's examples, from ``first`` on."""

    def end(self, step: int, add: Callable[[Tensor], Tensor]) -> None:
        """Note that all examples of a step were seen, in this process or in another.

        ``add`` returns the sum of all processes' tensors; where one calls it, all must.
        """
        del step, add

    def state(self) -> dict[str, Tensor]:
        """Return what a resume needs beside weights: tensors that no step is a function of."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` returned."""
        del tensors

    @abstractmethod
    def figures(self, average: nn.Module) -> dict[str, float]:
        """Measure the averaged network on held-out photographs; nothing where there are none."""

    def sheet(self, average: nn.Module) -> Tensor | None:
        """Show what the averaged network does: (3, height, width) in [0, 1], or None."""
        del average
        return None

    @abstractmethod
    def export(self, average: nn.Module, path: Path, record: dict[str, JsonValue]) -> None:
        """Write the averaged network as a model that can be used."""
