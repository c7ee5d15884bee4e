"""The layers of the classifiers by whose features pictures are compared, as a program of words.

- ``conv:NAME:STRIDE:PADDING``: a convolution with the weights of that name.
- ``relu``; ``max:SIDE:STRIDE``: the maximum over squares.
- ``blur``: every second value after a binomial low-pass filter, with reflections beyond the edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from sfumato.errors import ShapeError
from sfumato.metrics._pictures import Pictures

#: Channel means and deviations of natural pictures in [-1, 1], as LPIPS has them.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


@final
@dataclass(frozen=True)
class Form:
    """A trunk: ``layers`` are programs, the output of each is compared.

    ``prefix`` stands before the names of weights; ``smallest_side`` is that of a picture, below
    which a layer is left with nothing.
    """

    title: str
    layers: tuple[str, ...]
    smallest_side: int
    prefix: str = ""

    @property
    def convolutions(self) -> list[str]:
        """The names of all convolutions, in order."""
        words = (word for layer in self.layers for word in layer.split())
        return [word.split(":")[1] for word in words if word.startswith("conv:")]

    @property
    def taps(self) -> list[str]:
        """The name of the last convolution of each layer."""
        return [Form("", (layer,), 0).convolutions[-1] for layer in self.layers]


def _vgg(names: tuple[tuple[str, ...], ...], pool: str) -> tuple[str, ...]:
    convolved = [" ".join(f"conv:{name}:1:1 relu" for name in layer) for layer in names]
    return convolved[0], *(f"{pool} {layer}" for layer in convolved[1:])


FORMS = {
    "alex": Form(
        "AlexNet",
        (
            "conv:features.0:4:2 relu",
            "max:3:2 conv:features.3:1:2 relu",
            "max:3:2 conv:features.6:1:1 relu",
            "conv:features.8:1:1 relu",
            "conv:features.10:1:1 relu",
        ),
        smallest_side=31,
    ),
    "vgg": Form(
        "VGG-16",
        _vgg(
            tuple(
                tuple(f"features.{k}" for k in layer)
                for layer in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
            ),
            "max:2:2",
        ),
        smallest_side=16,
    ),
    "st-alex": Form(
        "AlexNet",
        (
            "conv:slice1.0:1:2 blur relu",
            "max:3:1 blur conv:slice2.5:1:2 relu",
            "max:3:1 blur conv:slice3.9:1:1 relu",
            "conv:slice4.11:1:1 relu",
            "conv:slice5.13:1:1 relu",
        ),
        smallest_side=21,
        prefix="net.",
    ),
    "st-vgg": Form(
        "VGG-16",
        _vgg(
            (
                ("slice1.0", "slice1.2"),
                ("slice2.6", "slice2.8"),
                ("slice3.12", "slice3.14", "slice3.16"),
                ("slice4.20", "slice4.22", "slice4.24"),
                ("slice5.28", "slice5.30", "slice5.32"),
            ),
            "max:2:1 blur",
        ),
        smallest_side=18,
        prefix="net.",
    ),
}


def features(
    pictures: Pictures, form: Form, state: Mapping[str, tuple[Tensor, Tensor]]
) -> Iterator[Tensor]:
    """Yield the features of each layer, (batch, channels, height, width), of pictures in [0, 1].

    ``state`` holds weight and bias of each convolution; they follow dtype and device of the
    pictures. Raises ShapeError for channels other than 1 or 3, and for pictures that are too
    small.
    """
    channels, height, width = pictures.shape[-3:]
    least = form.smallest_side
    if channels not in (1, 3) or min(height, width) < least:
        raise ShapeError(
            f"{channels} channels of {height} x {width} pixels",
            expected=f"1 or 3 channels of at least {least} x {least} for LPIPS",
        )
    rgb = pictures.expand(*pictures.shape[:-3], 3, height, width)
    x = rgb.reshape(-1, 3, height, width)
    shift, scale = (x.new_tensor(v).view(3, 1, 1) for v in (SHIFT, SCALE))
    x = (2 * x - 1 - shift) / scale
    for layer in form.layers:
        for word in layer.split():
            x = _step(x, word, state)
        yield x


def _step(x: Tensor, word: str, state: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
    kind, *rest = word.split(":")
    if kind == "conv":
        weight, bias = (t.to(x) for t in state[rest[0]])
        return functional.conv2d(x, weight, bias, stride=int(rest[1]), padding=int(rest[2]))
    if kind == "max":
        return functional.max_pool2d(x, int(rest[0]), stride=int(rest[1]))
    return functional.relu(x) if kind == "relu" else _halve(x)


def _halve(x: Tensor) -> Tensor:
    """Take every second value after a binomial low-pass filter, two pixels reflected around."""
    channels = x.shape[1]
    binomial = x.new_tensor([1.0, 2.0, 1.0]) / 4
    kernel = torch.outer(binomial, binomial).expand(channels, 1, 3, 3)
    padded = functional.pad(x, (2, 2, 2, 2), mode="reflect")
    return functional.conv2d(padded, kernel, stride=2, groups=channels)


def unit(x: Tensor) -> Tensor:
    """Scale the vector of channels at each place to length 1; a vector of zeros stays.

    >>> unit(torch.tensor([[[[3.0]], [[4.0]]]])).flatten()
    tensor([0.6000, 0.8000])
    """
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / (length + 1e-10)
