"""The text form of a degradation: ``"grayscale | average_pool:2 | mask:m.png | noise:0.02"``."""

from __future__ import annotations

import atexit
import difflib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

from torch import Tensor

from sfumato._typing import Shape
from sfumato.errors import DegradationError
from sfumato.io import open_mask, read_picture
from sfumato.io.storage import address, fetch
from sfumato.operators import kernels
from sfumato.operators.base import Operator
from sfumato.operators.bicubic import Bicubic
from sfumato.operators.composition import compose
from sfumato.operators.compressed import BlockSensing, WalshHadamard
from sfumato.operators.convolution import Convolution
from sfumato.operators.grayscale import BT601, Grayscale
from sfumato.operators.hints import GrayscaleWithHints
from sfumato.operators.pixelwise import (
    Identity,
    Mask,
    Nothing,
    box_mask,
    random_mask,
    scratch_mask,
)
from sfumato.operators.pool import AveragePool


def _same(shape: Shape) -> Shape:
    return shape


@dataclass(frozen=True)
class Link:
    """One word of a degradation, not yet bound to a size.

    ``bind`` makes the operator for images of a shape; ``source`` says of what shape the image was,
    given the shape of its measurement.
    """

    text: str
    bind: Callable[[Shape], Operator]
    source: Callable[[Shape], Shape] = _same
    #: Colours of painted strokes (3, height, width), for the one word that has them.
    strokes: Tensor | None = field(default=None, repr=False, compare=False)
    #: The file that the word names.
    file: Path | None = None
    #: Whether it is a mask of which nothing is missing.
    empty: bool = False


@dataclass(frozen=True)
class Degradation:
    """What happened to the picture: operators from left to right, then noise.

    ``noise`` is its standard deviation, on the [0, 1] scale.
    """

    links: tuple[Link, ...]
    noise: float = 0.0

    def strokes(self) -> Tensor | None:
        """Return the colours of painted strokes (3, height, width), where there are any."""
        return next((link.strokes for link in self.links if link.strokes is not None), None)

    def operator(self, shape: Shape) -> Operator:
        """Bind to images of ``shape`` (channels, height, width).

        Turning grey acts on channels and all other words act on each channel alike, so it commutes
        with them; it is put first, where its pseudo-inverse factors out.
        """
        parts: list[Operator] = []
        for link in sorted(self.links, key=lambda k: not k.text.startswith("grayscale")):
            parts.append(link.bind(parts[-1].out_shape if parts else shape))
        return compose(*parts)

    def finer(self, times: int) -> Degradation:
        """Return what happened to an image ``times`` as wide and high whose means are this one's.

        >>> str(parse("bicubic:2 | noise:0.1").finer(2))
        'average_pool:2 | bicubic:2 | noise:0.1'
        """
        means = parse(f"average_pool:{times}").links if times > 1 else ()
        return replace(self, links=means + self.links)

    def source_shape(self, measured: Shape, channels: int = 3) -> Shape:
        """Return the shape of the image that a measurement of shape ``measured`` came from."""
        shape = measured
        for link in reversed(self.links):
            shape = link.source(shape)
        return (channels, *shape[1:])

    def __str__(self) -> str:
        """Write it as it is parsed."""
        words = [link.text for link in self.links]
        return " | ".join([*words, f"noise:{self.noise:g}"] if self.noise else words)


def parse(text: str, *, base: Path | None = None) -> Degradation:
    """Parse a degradation, read from left to right.

    File names are relative to ``base`` (the working directory if None).

    Raises DegradationError for unknown words, missing or impossible numbers, and files that cannot
    be read.

    >>> str(parse("grayscale | average_pool:2 | noise:0.02"))
    'grayscale | average_pool:2 | noise:0.02'
    >>> parse("average_pool:4").source_shape((3, 10, 20))
    (3, 40, 80)
    """
    links: list[Link] = []
    noise: float | None = None
    for part in text.split("|"):
        word, _, rest = part.strip().partition(":")
        args = _Arguments(part.strip(), rest.split(":") if rest else [], base or Path())
        if noise is not None:
            raise DegradationError(
                f"'{part.strip()}' after noise",
                expected="noise as the last word",
                do="move it to the end",
            )
        if word == "noise":
            noise = args.number(0, "standard deviation", low=0.0, high=10.0)
            args.end(1)
        else:
            links.append(_find(word)(args))
    if len(links) > 1 and any(link.strokes is not None for link in links):
        raise DegradationError(
            f"'{text}'", expected="grayscale_hints alone, or with noise", do="restore in two steps"
        )
    return Degradation(
        tuple(links) or (_identity(_Arguments("identity", [], Path())),), noise or 0.0
    )


def _find(word: str) -> Callable[[_Arguments], Link]:
    if word in WORDS:
        return WORDS[word]
    near = difflib.get_close_matches(word, [*WORDS, "noise"], n=1)
    raise DegradationError(
        f"the degradation word '{word}'",
        expected="one of " + ", ".join(sorted([*WORDS, "noise"])),
        do=f"did you mean '{near[0]}'?" if near else "",
    )


@dataclass(frozen=True)
class _Arguments:
    """The arguments of one word, each checked as it is asked for."""

    text: str
    values: list[str]
    base: Path

    def number(
        self, i: int, name: str, *, low: float, high: float = 1e6, default: float | None = None
    ) -> float:
        if i >= len(self.values) and default is not None:
            return default
        raw = self.values[i] if i < len(self.values) else ""
        try:
            value = float(raw)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise DegradationError(
                f"'{self.text}'" + (f" with {name} '{raw}'" if raw else f" without its {name}"),
                expected=f"a {name} from {low:g} to {high:g}",
            )
        return value

    def integer(
        self, i: int, name: str, *, low: int, high: int = 1 << 20, default: int | None = None
    ) -> int:
        value = self.number(i, name, low=low, high=high, default=default)
        if value != int(value):
            raise DegradationError(
                f"'{self.text}' with {name} '{self.values[i]}'", expected="a whole number"
            )
        return int(value)

    def path(self) -> Path:
        if not self.values:
            raise DegradationError(
                f"'{self.text}' without a file", expected="the name of a picture"
            )
        place = ":".join(self.values)
        return fetch(place, fetched_to()) if address(place) else self.base / place

    def end(self, n: int) -> None:
        if len(self.values) > n:
            raise DegradationError(
                f"'{self.text}'", expected=f"at most {n} numbers after the word"
            )


@cache
def fetched_to() -> str:
    """Return the folder of what is fetched, which goes with the process."""
    folder = tempfile.mkdtemp(prefix="sfumato-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _times(factor: int, shape: Shape) -> Shape:
    return (shape[0], shape[1] * factor, shape[2] * factor)


def _pool(args: _Arguments) -> Link:
    factor = args.integer(0, "factor", low=1, high=4096)
    args.end(1)
    return Link(args.text, lambda shape: AveragePool(shape, factor), partial(_times, factor))


def _bicubic(args: _Arguments) -> Link:
    factor = args.integer(0, "factor", low=1, high=256)
    args.end(1)
    return Link(args.text, lambda shape: Bicubic(shape, factor), partial(_times, factor))


def _grayscale(args: _Arguments) -> Link:
    weights = BT601
    if args.values:
        r, g, b = (args.number(i, "weight", low=-10, high=10) for i in range(3))
        weights = (r, g, b)
    args.end(3)
    return Link(args.text, lambda shape: Grayscale(shape, weights), lambda shape: (3, *shape[1:]))


def _hints(args: _Arguments) -> Link:
    painted, colours = read_strokes(args.path())
    return Link(
        args.text,
        lambda shape: GrayscaleWithHints(shape, painted),
        strokes=colours,
        file=args.path(),
    )


def _mask(args: _Arguments) -> Link:
    known = open_mask(path := args.path())
    return Link(
        args.text,
        lambda shape: Mask(shape, known, name=args.text),
        file=path,
        empty=known.empty,
    )


def _random_mask(args: _Arguments) -> Link:
    keep, seed = (
        args.number(0, "share kept", low=1e-6, high=1),
        args.integer(1, "seed", low=0, default=0),
    )
    args.end(2)
    return Link(args.text, lambda shape: random_mask(shape, keep, seed))


def _box_mask(args: _Arguments) -> Link:
    share = args.number(0, "share of the sides", low=1e-3, high=0.999)
    args.end(1)
    return Link(args.text, lambda shape: box_mask(shape, share))


def _scratch_mask(args: _Arguments) -> Link:
    n, seed = (
        args.integer(0, "number of scratches", low=1, high=10_000),
        args.integer(1, "seed", low=0, default=0),
    )
    args.end(2)
    return Link(args.text, lambda shape: scratch_mask(shape, n, seed))


def _identity(args: _Arguments) -> Link:
    args.end(0)
    return Link("identity", Identity)


def _nothing(args: _Arguments) -> Link:
    args.end(0)
    return Link("nothing", Nothing)


def _gaussian(args: _Arguments) -> Link:
    sigma = args.number(0, "sigma in pixels", low=0.05, high=200)
    args.end(1)
    kernel = kernels.gaussian_kernel(sigma)
    return Link(args.text, lambda shape: Convolution(shape, kernel, name=args.text))


def _anisotropic(args: _Arguments) -> Link:
    s1, s2 = (args.number(i, "sigma in pixels", low=0.05, high=200) for i in range(2))
    angle = args.number(2, "angle in degrees", low=-360, high=360, default=0.0)
    args.end(3)
    kernel = kernels.anisotropic_gaussian_kernel(s1, s2, angle)
    return Link(args.text, lambda shape: Convolution(shape, kernel, name=args.text))


def _uniform(args: _Arguments) -> Link:
    size = args.integer(0, "size in pixels", low=1, high=1001)
    args.end(1)
    kernel = kernels.uniform_kernel(size)
    return Link(args.text, lambda shape: Convolution(shape, kernel, name=args.text))


def _motion(args: _Arguments) -> Link:
    length = args.number(0, "length in pixels", low=1, high=1000)
    angle = args.number(1, "angle in degrees", low=-360, high=360, default=0.0)
    args.end(2)
    kernel = kernels.motion_kernel(length, angle)
    return Link(args.text, lambda shape: Convolution(shape, kernel, name=args.text))


def _kernel(args: _Arguments) -> Link:
    kernel = kernels.read_kernel(args.path())
    return Link(
        args.text, lambda shape: Convolution(shape, kernel, name=args.text), file=args.path()
    )


def _sensing(kind: type[WalshHadamard] | type[BlockSensing], args: _Arguments) -> Link:
    ratio = args.number(0, "ratio", low=1e-6, high=1)
    block, seed = (
        args.integer(1, "block", low=0, default=32),
        args.integer(2, "seed", low=0, default=0),
    )
    args.end(3)
    return Link(args.text, lambda shape: kind(shape, ratio, block=block, seed=seed))


def read_strokes(path: Path) -> tuple[Tensor, Tensor]:
    """Read painted strokes: where they are, and their colours.

    The shapes are (1, height, width) and (3, height, width). A stroke is what is opaque; in a
    picture without alpha, what is coloured (its channels differ by more than 8/255).
    """
    picture = read_picture(path)
    colours = picture.pixels.expand(3, -1, -1)
    if picture.alpha is not None and bool((picture.alpha <= 0.5).any()):
        painted = picture.alpha > 0.5
    else:
        painted = (colours.amax(0) - colours.amin(0) > 8 / 255)[None]
    if not bool(painted.any()):
        raise DegradationError(
            f"{path} without strokes", expected="colour on a transparent, black or grey ground"
        )
    return painted.float(), colours


#: Every word of the text form. An operator of your own adds one line here.
WORDS: dict[str, Callable[[_Arguments], Link]] = {
    "anisotropic_blur": _anisotropic,
    "average_pool": _pool,
    "bicubic": _bicubic,
    "block_sensing": partial(_sensing, BlockSensing),
    "box_mask": _box_mask,
    "gaussian_blur": _gaussian,
    "grayscale": _grayscale,
    "grayscale_hints": _hints,
    "identity": _identity,
    "kernel_blur": _kernel,
    "mask": _mask,
    "motion_blur": _motion,
    "nothing": _nothing,
    "random_mask": _random_mask,
    "scratch_mask": _scratch_mask,
    "uniform_blur": _uniform,
    "walsh_hadamard": partial(_sensing, WalshHadamard),
}


def as_degradation(degradation: str | Degradation) -> Degradation:
    """Parse a text, and leave a degradation as it is."""
    return parse(degradation) if isinstance(degradation, str) else degradation


def blur_word(blur: str) -> str:
    """Translate the short form of ``deblur --blur`` to a degradation word.

    >>> blur_word("gaussian:2.0"), blur_word("motion:15:30"), blur_word("KERNEL.png")
    ('gaussian_blur:2.0', 'motion_blur:15:30', 'kernel_blur:KERNEL.png')
    """
    kind, _, rest = blur.partition(":")
    if kind in ("gaussian", "anisotropic", "uniform", "motion"):
        return f"{kind}_blur:{rest}"
    if Path(blur).suffix:
        return f"kernel_blur:{blur}"
    raise DegradationError(
        f"the blur '{blur}'",
        expected="gaussian:SIGMA, uniform:SIZE, motion:LENGTH:ANGLE, anisotropic:S1:S2:ANGLE "
        "or a picture of the kernel",
    )
