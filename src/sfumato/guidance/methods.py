"""All methods by name: what each asks for, and how it is made.

To add one, write its guidance in a file of its own, and an entry of ``METHODS`` here
(docs/methods.md). Its text form is ``NAME`` or ``NAME:OPTION=VALUE,OPTION=VALUE``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, final

from sfumato.diffusion.guidance import Guidance
from sfumato.errors import SettingsError
from sfumato.guidance.ddnm import DDNM, rounds_spread
from sfumato.guidance.ddnm_plus import DDNMPlus
from sfumato.guidance.ddrm import DDRM
from sfumato.guidance.diffpir import DiffPIR
from sfumato.guidance.flow import Flow
from sfumato.guidance.measurement import Measurement
from sfumato.guidance.posterior import DPS, MMPS, PiGDM
from sfumato.guidance.proximal import Proximal
from sfumato.guidance.replacement import Replacement

_ALL = ("ddim", "ddpm", "sr3", "dpm-solver++", "rounds")
_WITH_NOISE = ("ddim", "ddpm", "sr3")


@dataclass(frozen=True)
class Option:
    """A number that a method takes: its default, and the range that it must lie in."""

    default: float
    low: float
    high: float
    whole: bool = False

    def read(self, name: str, text: str) -> float:
        """Return the value of ``text``; SettingsError where it is none."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            kind = "a whole number" if self.whole else "a number"
            raise SettingsError(
                f"{name}={text}", expected=f"{kind} from {self.low:g} to {self.high:g}"
            )
        return value


#: Makes the guidance of a measurement, given options and whether the sampler puts no noise back.
Maker: TypeAlias = Callable[[Measurement, Mapping[str, float], bool], Guidance]


@dataclass(frozen=True)
class Method:
    """A method: how it is made, and what it can be used for.

    ``exact`` and ``noisy``: whether it takes measurements without noise, and with noise.
    ``svd``: whether it needs the operator's singular values; ``alone``: whether it takes pictures
    with noise alone. ``samplers`` are those that it goes with. ``passes(options)`` counts passes
    back through the network at a step. ``travel`` is the time travel (length, times) that belongs
    to it, and ``stays`` counts steps at the first noise level before the walk goes down.
    """

    name: str
    make: Maker
    exact: bool = True
    noisy: bool = True
    svd: bool = False
    alone: bool = False
    samplers: tuple[str, ...] = _ALL
    options: Mapping[str, Option] = field(default_factory=dict)
    passes: Callable[[Mapping[str, float]], int] = lambda options: 0
    travel: tuple[int, int] = (1, 1)
    stays: int = 0


def _ddnm(m: Measurement, options: Mapping[str, float], rounds: bool) -> Guidance:
    return DDNM(m, rounds_spread(m.A) if rounds else 0.0)


def _proximal(m: Measurement, options: Mapping[str, float], rounds: bool) -> Guidance:
    return Proximal(m, final=rounds)


def _diffpir(m: Measurement, options: Mapping[str, float], rounds: bool) -> Guidance:
    return DiffPIR(m, lam=options["lambda"])


def _plain(make: Callable[..., Guidance]) -> Maker:
    """Make by the measurement and the options alone."""

    def maker(m: Measurement, options: Mapping[str, float], rounds: bool) -> Guidance:
        return make(m, **options)

    return maker


def _pigdm(m: Measurement, options: Mapping[str, float], rounds: bool) -> Guidance:
    return PiGDM(m, adaptive=bool(options["adaptive"]), context=options["context"])


def _mmps(m: Measurement, options: Mapping[str, float], rounds: bool) -> Guidance:
    return MMPS(m, iterations=int(options["iterations"]))


def _nothing(m: Measurement, options: Mapping[str, float], rounds: bool) -> Guidance:
    return Guidance()


_SHARE = Option(1.0, 0.0, 1.0)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("ddnm", _ddnm, noisy=False),
        Method(
            "ddnm+",
            _plain(DDNMPlus),
            exact=False,
            svd=True,
            samplers=_WITH_NOISE,
            options={"eta_y": _SHARE},
        ),
        Method("proximal", _proximal, exact=False, samplers=(*_WITH_NOISE, "rounds")),
        Method(
            "ddrm",
            _plain(DDRM),
            svd=True,
            samplers=_WITH_NOISE,
            options={"eta_b": _SHARE, "eta_y": _SHARE},
        ),
        Method(
            "ilvr",
            _plain(Replacement),
            noisy=False,
            samplers=_WITH_NOISE,
            options={"until": Option(0.0, 0.0, 160.0)},
        ),
        Method("repaint", _plain(Replacement), noisy=False, samplers=_WITH_NOISE, travel=(10, 3)),
        Method("diffpir", _diffpir, options={"lambda": Option(7.0, 0.0, 1e6)}),
        Method(
            "dps",
            _plain(DPS),
            options={"zeta": Option(10.0, 0.0, 1e6), "context": Option(0.0, 0.0, 100.0)},
            passes=lambda options: 1,
        ),
        Method(
            "pigdm",
            _pigdm,
            options={
                "adaptive": Option(1, 0, 1, whole=True),
                "context": Option(0.0, 0.0, 100.0),
            },
            passes=lambda options: 1,
        ),
        Method(
            "mmps",
            _mmps,
            options={"iterations": Option(2, 1, 100, whole=True)},
            passes=lambda options: int(options["iterations"]) + 1,
        ),
        Method("flow", _plain(Flow), exact=False, samplers=("dpm-solver++",), alone=True, stays=1),
        Method("none", _nothing),
    )
}


@final
@dataclass(frozen=True)
class Chosen:
    """A method with its options, as ``parse_method`` reads it.

    >>> str(parse_method("mmps:iterations=3"))
    'mmps:iterations=3'
    """

    method: Method
    options: Mapping[str, float]

    def __str__(self) -> str:
        """Return the text form, with all options."""
        said = ",".join(f"{name}={value:g}" for name, value in self.options.items())
        return f"{self.method.name}:{said}" if said else self.method.name

    @property
    def passes(self) -> int:
        """Passes back through the network at each step."""
        return self.method.passes(self.options)

    def guidance(self, m: Measurement, *, rounds: bool = False) -> Guidance:
        """Make the guidance of a measurement; ``rounds``: with a sampler without noise."""
        return self.method.make(m, self.options, rounds)

    def check(self, sampler: str, *, noisy: bool, stated: bool) -> None:
        """Raise SettingsError where it does not go with a sampler, or with such a measurement.

        ``stated`` tells noise that was stated from rounding, which any method may ignore.
        """
        method = self.method
        if noisy and stated and not method.noisy:
            able = ", ".join(name for name, other in METHODS.items() if other.noisy)
            raise SettingsError(
                f"method {method.name} with measurement noise",
                expected=f"one of {able}",
                do="leave out --method",
            )
        if not noisy and not method.exact:
            raise SettingsError(
                f"method {method.name} without measurement noise",
                expected="ddnm, or a noise level",
            )
        if sampler not in method.samplers:
            raise SettingsError(
                f"method {method.name} with sampler {sampler}",
                expected=", ".join(method.samplers),
            )


def parse_method(text: str) -> Chosen:
    """Read the text form of a method; SettingsError says what is wrong with it.

    >>> parse_method("dsp")
    Traceback (most recent call last):
    sfumato.errors.SettingsError: method dsp; expected one of ddnm, ddnm+, proximal, ddrm, ilvr, \
repaint, diffpir, dps, pigdm, mmps, flow, none; did you mean dps?
    """
    name, _, rest = text.partition(":")
    method = METHODS.get(name)
    if method is None:
        near = difflib.get_close_matches(name, METHODS, n=1)
        raise SettingsError(
            f"method {name}",
            expected=f"one of {', '.join(METHODS)}",
            do=f"did you mean {near[0]}?" if near else "",
        )
    options = {name: option.default for name, option in method.options.items()}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if key not in options:
            raise SettingsError(
                f"option {key} of method {name}", expected=", ".join(options) or "no option"
            )
        options[key] = method.options[key].read(f"{name}:{key}", value)
    return Chosen(method, options)
