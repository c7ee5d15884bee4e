"""The measures of one result, by their words: ``psnr:border=4``, ``ssim-y``, ``consistency``.

Every one is a function of what is shown (`Shown`) and says in its protocol exactly what it does.
Pictures are taken as their files have them, on [0, 1] and in float64; a grey one beside a colour
one is taken for all three channels. Numbers of sets of pictures are in `set_measures`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor

from sfumato.errors import ImageError, SettingsError, ShapeError
from sfumato.evaluation.measure import Better, Measure, Need, Picture, Shown
from sfumato.metrics import (
    SeamReport,
    ShiftTolerantLPIPS,
    colour_bias,
    diversity,
    pairwise,
    psnr,
    psnr_luma,
    seam_report,
    ssim,
    to_luma,
)
from sfumato.metrics.perceptual import Network
from sfumato.operators import parse
from sfumato.pipeline.problem import by_windows, make_problem
from sfumato.pipeline.resolve import MARGIN, Resolved
from sfumato.tiling import TilePlan

#: A number of a result and its reference, whose last argument is the border that is cut off.
Compared: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]

_CUT = "{border} pixels cut off each side"
_GREY_Y = (
    "Y of BT.601 in studio swing (16 to 235 of 255), not rounded (MATLAB's rgb2ycbcr of doubles; "
    "that of 8-bit files rounds); a grey picture counts as red = green = blue"
)


@final
@dataclass(frozen=True)
class _Kind:
    """A measure whose border is still open. ``crops`` says whether it has one."""

    name: str
    of: Callable[[Shown, int], float]
    protocol: str
    unit: str = ""
    better: Better = "higher"
    digits: int = 2
    needs: tuple[Need, ...] = ("reference",)
    crops: bool = False
    bytes_per_pixel: int = 520

    def measure(self, border: int = 0) -> Measure:
        """Return the measure with its border."""
        cut = _CUT.format(border=border) if border else "all pixels count"
        return Measure(
            name=self.name,
            of=lambda shown: self.of(checked(shown), border),
            protocol=f"{self.protocol}; {cut}" if self.crops else self.protocol,
            unit=self.unit,
            better=self.better,
            digits=self.digits,
            needs=frozenset(self.needs),
            bytes_per_pixel=self.bytes_per_pixel,
        )


def measure_of(text: str, *, border: int = 0) -> Measure:
    """Return the measure of a word, as ``psnr`` or ``psnr:border=4``.

    ``border`` is that of words that name none.

    Raises SettingsError for unknown words and options, and a border where there is none to cut.

    >>> measure_of("psnr-y:border=4").name
    'PSNR-Y'
    """
    word, _, rest = text.strip().partition(":")
    kind = _KINDS.get(word.lower())
    if kind is None:
        raise SettingsError(f"the measure '{word}'", expected=f"one of {', '.join(_KINDS)}")
    if not rest:
        return kind.measure(border if kind.crops else 0)
    option, _, value = rest.partition("=")
    if not kind.crops or option != "border" or not (value.isascii() and value.isdigit()):
        raise SettingsError(
            f"the measure '{text.strip()}'",
            expected=f"{word}:border=N with a whole N" if kind.crops else f"{word} alone",
        )
    return kind.measure(int(value))


def measures_of(text: str, *, border: int = 0) -> tuple[Measure, ...]:
    """Return the measures of words with commas or spaces between them.

    Where two have one name, it is told apart by what was asked for.

    Raises SettingsError as `measure_of`, and for a word that comes twice.

    >>> [m.name for m in measures_of("psnr, ssim-y")]
    ['PSNR', 'SSIM-Y']
    >>> [m.name for m in measures_of("psnr psnr:border=4")]
    ['PSNR', 'PSNR (border=4)']
    """
    found: dict[str, Measure] = {}
    for word in text.replace(",", " ").split():
        measure = measure_of(word, border=border)
        if measure.name in found and ":" in word:
            measure = replace(measure, name=f"{measure.name} ({word.partition(':')[2]})")
        if measure.name in found:
            raise SettingsError(f"the measure {word} twice", expected="each once")
        found[measure.name] = measure
    return tuple(found.values())


def checked(shown: Shown) -> Shown:
    """Return what is shown; raises ImageError for NaN and infinity in any of it."""
    known: Mapping[str, Picture | None] = {
        "the result": shown.result,
        "the reference": shown.reference,
        "the measurement": shown.measurement,
        **{f"sample {k + 1}": x for k, x in enumerate(shown.samples)},
    }
    for what, x in known.items():
        if x is not None and not bool(torch.isfinite(x).all()):
            raise ImageError(f"NaN or infinity in {what}", expected="finite numbers")
    return shown


def alike(a: Picture, b: Picture) -> tuple[Tensor, Tensor]:
    """Return two pictures in float64 with as many channels: grey is taken for all three.

    Raises ShapeError where heights or widths differ.
    """
    if a.shape[1:] != b.shape[1:]:
        raise ShapeError(
            f"{a.shape[2]} x {a.shape[1]} pixels beside {b.shape[2]} x {b.shape[1]}",
            expected="two pictures of one size",
        )
    channels = max(len(a), len(b))
    x, y = (p.double().expand(channels, -1, -1) for p in (a, b))
    return x, y


def compared(of: Compared) -> Callable[[Shown, int], float]:
    """Return a measure of a result and its reference, `alike`, by a function of the two."""

    def value(shown: Shown, border: int) -> float:
        x, y = alike(shown.result, _known(shown.reference, "a reference"))
        return float(of(x, y, border))

    return value


def _known(value: Picture | None, what: str) -> Picture:
    if value is None:
        raise SettingsError(f"a result without {what}", expected="one to compare it with")
    return value


def _colour(x: Tensor) -> Tensor:
    return x.expand(3, -1, -1)


def _ssim_luma(a: Tensor, b: Tensor, border: int) -> Tensor:
    return ssim(to_luma(_colour(a)), to_luma(_colour(b)), border=border)


@cache
def _perceptual(network: Network = "alex") -> ShiftTolerantLPIPS:
    return ShiftTolerantLPIPS(network=network)


def _rmse(shown: Shown, border: int) -> float:
    """``√ mean (A x − y)²`` over what was measured, for values in [0, 1]."""
    y = _known(shown.measurement, "the measurement")
    if shown.degradation is None:
        raise SettingsError("a measurement without its degradation", expected="the text of A")
    problem = make_problem(y, parse(shown.degradation))
    channels, *size = problem.A.in_shape
    if list(shown.result.shape[1:]) != size or len(shown.result) not in (1, channels):
        raise ShapeError(
            f"a result of shape {tuple(shown.result.shape)}",
            expected=f"{problem.A.in_shape}, of which {problem.A} makes the measurement",
        )
    return problem.residual_rmse(shown.result.expand(1, *problem.A.in_shape))


def _seam(shown: Shown) -> SeamReport:
    if shown.tiles is None:
        raise SettingsError("a result without its tiles", expected="their side and overlap")
    _, height, width = shown.result.shape
    tile, overlap = shown.tiles
    stride, phase, least = 1, 1, 0
    if shown.degradation is not None and shown.measurement is not None:
        y = shown.measurement.shape
        degradation = parse(shown.degradation)
        A = degradation.operator(degradation.source_shape((y[0], y[1], y[2])))
        phase = max(1, A.ratio)
        if by_windows(A):
            stride, least = A.locality.stride, Resolved.least_margin(A)
    margin = max(least, min(MARGIN, overlap // 2) // stride * stride)
    plan = TilePlan(height, width, tile, overlap, stride, margin=margin, corners=least > 0)
    return seam_report(shown.result, plan.borders(), phase)


def _of_seam(part: Literal["score", "low", "high"]) -> Callable[[Shown, int], float]:
    def value(shown: Shown, border: int) -> float:
        found: float | None = getattr(_seam(shown), part)
        return float("nan") if found is None else found

    return value


def _all_samples(shown: Shown) -> Tensor:
    different = [x for x in shown.samples if x.shape != shown.result.shape]
    if different or not shown.samples:
        raise ShapeError(
            f"samples of shapes {sorted({tuple(x.shape) for x in shown.samples})}",
            expected=f"one or more of the result's shape, {tuple(shown.result.shape)}",
        )
    return torch.stack([shown.result, *shown.samples]).double()


_SEAM = (
    "mean absolute jump over the borders of tiles, laid as a restoration in raster order lays its "
    "finest level, over that of the lines 3 to 6 pixels beside"
)
_BAND = (
    "of the 95 % band of the seam score: that of 200 grids shifted by multiples of the scale, "
    "seed 0"
)
_ST = "shift-tolerant LPIPS of stlpips_pytorch 0.0.2 ({}, vST0.0), which is not LPIPS"

_KINDS: dict[str, _Kind] = {
    "psnr": _Kind(
        "PSNR",
        compared(lambda a, b, border: psnr(a, b, border=border)),
        "10 log10(1 / mean (x − r)²), mean over pixels and channels of RGB on [0, 1]",
        unit="dB",
        crops=True,
    ),
    "psnr-y": _Kind(
        "PSNR-Y",
        compared(lambda a, b, border: psnr_luma(_colour(a), _colour(b), border=border)),
        f"PSNR of {_GREY_Y}; the peak is 255",
        unit="dB",
        crops=True,
    ),
    "ssim": _Kind(
        "SSIM",
        compared(lambda a, b, border: ssim(a, b, border=border)),
        "SSIM of Wang et al. 2004: Gaussian of sigma 1.5 in 11 x 11 pixels, K1 = 0.01, K2 = 0.03, "
        "L = 1, places whose window lies inside, mean of RGB",
        digits=4,
        crops=True,
    ),
    "ssim-y": _Kind(
        "SSIM-Y",
        compared(_ssim_luma),
        f"SSIM of Wang et al. 2004 (Gaussian of sigma 1.5 in 11 x 11 pixels, inside only) of "
        f"{_GREY_Y}",
        digits=4,
        crops=True,
    ),
    "stlpips": _Kind(
        "ST-LPIPS",
        compared(lambda a, b, _: _perceptual()(a.float(), b.float())),
        _ST.format("AlexNet"),
        better="lower",
        digits=4,
        bytes_per_pixel=1100,
    ),
    "stlpips-vgg": _Kind(
        "ST-LPIPS (VGG-16)",
        compared(lambda a, b, _: _perceptual("vgg")(a.float(), b.float())),
        _ST.format("VGG-16"),
        better="lower",
        digits=4,
        bytes_per_pixel=2300,
    ),
    "colour-bias": _Kind(
        "colour bias",
        compared(lambda a, b, _: 255 * colour_bias(a, b)),
        "root mean square over the channels of the mean difference of result and reference",
        unit="of 255",
        better="lower",
    ),
    "consistency": _Kind(
        "consistency",
        lambda shown, border: 1e5 * _rmse(shown, border) ** 2,
        "MSE of A x against the measured values y on [0, 1], times 1e5 (the unit of SR3's tables, "
        "whose downsampling is not published: here A is the stated degradation, without noise)",
        unit="1e-5",
        better="lower",
        needs=("measurement",),
    ),
    "rmse-ax": _Kind(
        "RMSE of A x",
        lambda shown, border: 255 * _rmse(shown, border),
        "root mean square of A x − y over the measured values, A without noise; the noise of y "
        "counts",
        unit="of 255",
        better="lower",
        digits=3,
        needs=("measurement",),
    ),
    "seam": _Kind("seam", _of_seam("score"), _SEAM, better="neither", digits=3, needs=("tiles",)),
    "seam-low": _Kind(
        "seam band, low",
        _of_seam("low"),
        f"lower end {_BAND}",
        better="neither",
        digits=3,
        needs=("tiles",),
    ),
    "seam-high": _Kind(
        "seam band, high",
        _of_seam("high"),
        f"upper end {_BAND}",
        better="neither",
        digits=3,
        needs=("tiles",),
    ),
    "diversity": _Kind(
        "diversity",
        lambda shown, border: 255 * float(diversity(_all_samples(shown))),
        "standard deviation over the samples (n − 1), mean over pixels and channels",
        unit="of 255",
        better="neither",
        needs=("samples",),
    ),
    "diversity-stlpips": _Kind(
        "ST-LPIPS diversity",
        lambda shown, border: float(pairwise(_perceptual(), _all_samples(shown).float())),
        f"mean over all pairs of samples of {_ST.format('AlexNet')}",
        better="neither",
        digits=4,
        needs=("samples",),
        bytes_per_pixel=1100,
    ),
}

#: Every measure with no border cut, by its word.
MEASURES: dict[str, Measure] = {word: kind.measure() for word, kind in _KINDS.items()}
