"""What is asked of those who are compared, and what they answer."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from sfumato.errors import SettingsError, ShapeError
from sfumato.evaluation.measure import Picture
from sfumato.operators import (
    AveragePool,
    Bicubic,
    BlockSensing,
    Convolution,
    Identity,
    Mask,
    Operator,
    WalshHadamard,
    links,
    parse,
)

#: Operators that leave a picture as people know them, smaller, blurred or with holes.
_ENLARGED = (AveragePool, Bicubic)


@final
@dataclass(frozen=True, eq=False)
class Posed:
    """A picture to be restored: ``y`` was made of an ``x`` of shape ``shape`` by ``degradation``.

    ``y`` is (channels, height, width) on the [0, 1] scale, of 8 bits where it is a picture;
    ``seed`` decides all noise; ``picture`` is the name of the picture, and ``folder`` that of the
    folder it lies in, which is its class in ImageNet.
    """

    y: Tensor
    shape: tuple[int, int, int]
    degradation: str
    picture: str
    seed: int
    folder: str = ""

    @cached_property
    def A(self) -> Operator:
        """The operator, bound to the size of the picture."""
        return parse(self.degradation).operator(self.shape)

    @property
    def noise(self) -> float:
        """The standard deviation of the noise, on the [0, 1] scale."""
        return parse(self.degradation).noise

    @property
    def is_picture(self) -> bool:
        """Whether the measurement can be looked at: coefficients cannot."""
        return not any(isinstance(P, WalshHadamard | BlockSensing) for P in links(self.A))

    def alone(self, *kinds: type[Operator]) -> Operator | None:
        """Return the operator if it is one of these and nothing else, else None."""
        parts = [P for P in links(self.A) if not isinstance(P, Identity)]
        return parts[0] if len(parts) == 1 and isinstance(parts[0], kinds) else None

    @property
    def scale(self) -> int:
        """How many times larger the picture was: 1 where it kept its size."""
        return self.A.ratio

    def enlargement(self) -> int:
        """Return by how much the picture was made smaller, if nothing else was done to it.

        Raises SettingsError where that is not so.
        """
        if self.alone(*_ENLARGED) is None or self.scale == 1:
            raise self.cannot("a picture that was made smaller")
        return self.scale

    def blur(self) -> Convolution:
        """Return the convolution, if nothing else was done; SettingsError else."""
        A = self.alone(Convolution)
        if not isinstance(A, Convolution):
            raise self.cannot("a blurred picture")
        return A

    def known(self) -> Tensor:
        """Return which pixels are known (1, height, width), if others were lost and no more.

        Raises SettingsError where that is not so.
        """
        A = self.alone(Mask)
        if not isinstance(A, Mask) or self.noise:
            raise self.cannot("a picture with holes and without noise")
        return A.known[:1]

    def cannot(self, expected: str) -> SettingsError:
        """Return the error of one who cannot do this task."""
        return SettingsError(self.degradation, expected=expected)


@final
@dataclass(frozen=True, eq=False)
class Answer:
    """A restored picture (channels, height, width) in [0, 1].

    ``evaluations`` counts those of a network for a tile; ``tiles`` are side and overlap, in
    pixels, where there is more than one tile.
    """

    x: Picture
    evaluations: int | None = None
    tiles: tuple[int, int] | None = None


class Contender(ABC):
    """One who is compared: ``name`` is that of a folder, ``caption`` is for people.

    ``tasks`` are the names of those it is asked for; none stands for all. ``samples`` is how many
    answers, by seeds of their own, are wanted.
    """

    name: str
    caption: str
    tasks: tuple[str, ...] = ()
    samples: int = 1

    @abstractmethod
    def identity(self, picture: str) -> Mapping[str, object]:
        """Return all that decides the result of a picture, but for what is asked: plain values."""

    @abstractmethod
    def answer(self, posed: Posed) -> Answer:
        """Restore; SettingsError, DegradationError, ShapeError or ImageError say why not."""


def pose(degradation: str, name: str, x: Tensor, seed: int) -> Posed:
    """Measure a picture:  ``y = A x + n``,  of 8 bits where it is a picture; noise by ``seed``.

    >>> pose("average_pool:4", "photo", torch.rand(3, 8, 12), 0).y.shape
    torch.Size([3, 2, 3])
    """
    words, shape = parse(degradation), (x.shape[0], x.shape[1], x.shape[2])
    y = words.operator(shape)(x[None])[0]
    if words.noise:
        g = torch.Generator().manual_seed(seed)
        y = y + words.noise * torch.randn(y.shape, generator=g)
    posed = Posed(y, shape, degradation, name, seed)
    return replace(posed, y=eight_bits(y)) if posed.is_picture else posed


def eight_bits(x: Tensor) -> Tensor:
    """Clip to [0, 1], and round to 8 bits."""
    return (x.clamp(0, 1) * 255).round() / 255


def as_shaped(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return a picture with the channels of ``shape``: grey repeated, or colour averaged.

    Raises ShapeError where its size is another.
    """
    if tuple(x.shape[1:]) != shape[1:]:
        raise ShapeError(
            f"a result of {x.shape[2]} x {x.shape[1]} pixels",
            expected=f"{shape[2]} x {shape[1]}, the size of the photograph",
        )
    return x.mean(0, keepdim=True) if shape[0] == 1 else x.expand(shape[0], -1, -1)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_pixels(x: Tensor) -> str:
    """Return the SHA-256 of a picture's shape and 8-bit values.

    >>> digest_of_pixels(torch.zeros(1, 2, 3)) == digest_of_pixels(torch.zeros(1, 3, 2))
    False
    """
    values = (x * 255).round().to(torch.uint8).contiguous().numpy().tobytes()
    return hashlib.sha256(str(tuple(x.shape)).encode() + values).hexdigest()
