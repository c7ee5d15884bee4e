"""What a restoration by an SR3 model has of its own: its task, schedule and regression."""

from __future__ import annotations

from typing import final

from sfumato._typing import Images
from sfumato.diffusion import Denoiser, repeated, resampled, upsampled
from sfumato.diffusion.sr3 import Enlarge
from sfumato.errors import SettingsError, ShapeError
from sfumato.operators import AveragePool, Bicubic, Degradation, Operator, links
from sfumato.pipeline.augment import ORIENTATIONS, averaged
from sfumato.pipeline.presets import Preset
from sfumato.pipeline.problem import Source
from sfumato.pipeline.settings import Objective, Settings
from sfumato.zoo import EMBEDDED, SR3, SuperResolution

#: What the embedded SR3 model does better than the embedded prior (benchmarks/quality.py).
_ITS_TASKS = (["bicubic:2"], ["average_pool:2"], ["bicubic:4"], ["average_pool:4"])
#: Orientations of a regression whose means are asked for: more are not seen in these.
_ORIENTATIONS_OF_MEANS = 4


def embedded_for(degradation: Degradation, settings: Settings) -> str:
    """Return the name of the model of the package that is taken if none is asked for.

    It is the SR3 model for what that does better, 2x and 4x by either kernel without noise, and
    the prior for all else, and where the settings ask for what only a prior does: a method,
    rounds, levels, many steps to least error.

    >>> from sfumato.operators import parse
    >>> embedded_for(parse("bicubic:4"), Settings(seed=3))
    'sr3'
    >>> embedded_for(parse("bicubic:4"), Settings(method="diffpir"))
    'embedded'
    >>> embedded_for(parse("noise:0.1"), Settings())
    'embedded'
    """
    s = settings
    its_own = [link.text for link in degradation.links] in _ITS_TASKS and not degradation.noise
    zero_shot = s.method not in (None, "none") or s.sampler == "rounds" or (s.levels or 1) > 1
    walked = s.sampler or s.schedule or (s.steps or 1) > ORIENTATIONS
    if zero_shot or (s.objective == "distortion" and walked):
        return EMBEDDED
    return SR3 if its_own else EMBEDDED


def check_fits(name: str, model: SuperResolution, source: Source) -> None:
    """Refuse a problem that an SR3 model was not trained for."""
    small = all(isinstance(A, Bicubic | AveragePool) for A in links(source.A))
    if not small or source.A.ratio != model.scale:
        scale = model.scale
        factors = [n for n in range(min(2, scale), scale + 1) if scale % n == 0]
        raise SettingsError(
            f"{source.A} with {name}, an SR3 model",
            expected="super-resolution by " + " or ".join(map(str, factors)),
            do=f"use upscale -s {model.scale}, or another model",
        )


def sr3_preset(
    model: SuperResolution, objective: Objective, s: Settings, source: Source
) -> tuple[Preset, tuple[float, ...]]:
    """Return how an SR3 model is used: its regression, or a walk through its own schedule.

    The steps of a regression are the orientations that it is the mean of. A schedule for another
    number of steps than the model's own runs through the same noise levels. With supersampling
    half of the steps will do: what the last ones make is finer than the means.
    """
    supersampling = source.supersampling
    if objective == "distortion":
        if model.regression is None:
            raise SettingsError(
                "objective distortion with an SR3 model that knows no regression",
                expected="perception",
            )
        n = s.steps or (ORIENTATIONS if supersampling == 1 else _ORIENTATIONS_OF_MEANS)
        if s.sampler not in (None, "rounds") or n > ORIENTATIONS or s.schedule:
            raise SettingsError(
                f"{n} steps of {s.sampler or 'a schedule'} for a regression",
                expected=f"up to {ORIENTATIONS} evaluations, each in another orientation",
                do="use --objective perception for samples",
            )
        return Preset("rounds", n, 1.0, 1.0), (1.0,)
    if not model.samples:
        raise SettingsError("samples of a regression model", expected="--objective distortion")
    if s.schedule and s.steps not in (None, len(s.schedule)):
        raise SettingsError(
            f"{s.steps} steps and a schedule of {len(s.schedule)}", expected="one of them"
        )
    if s.sampler == "rounds":
        raise SettingsError("sampler rounds with an SR3 model", expected="sr3, ddim, ddpm, ...")
    n = len(model.sigmas)
    steps = s.steps or (n if supersampling == 1 else (n + 1) // 2)
    schedule = s.schedule or resampled(model.sigmas, steps)
    if s.start_noise is not None:
        first = 2 * s.start_noise
        schedule = (first, *(sigma for sigma in schedule if sigma < first))
    eta = {} if model.eta is None else {"eta": model.eta}
    first, last = schedule[0], schedule[-1]
    known = model.relative or s.start_noise is not None
    return Preset(model.sampler, len(schedule), first, last, known_start=known, **eta), schedule


def enlarged_by(model: SuperResolution, A: Operator) -> Enlarge:
    """Return how the model is shown what ``A`` has measured: interpolated, or as blocks."""
    means = all(isinstance(part, AveragePool) for part in links(A))
    return repeated if model.pooled and means else upsampled


@final
class Regression:
    """The model's answer without an image, as a denoiser.

    It is the mean of the answers in the first ``evaluations`` of eight orientations.
    """

    def __init__(self, model: SuperResolution, evaluations: int = 1) -> None:
        self.model = model
        self.evaluations = evaluations

    def given(self, condition: Images) -> Denoiser:
        """Return the denoiser of images with this condition."""
        regression = self.model.regression
        assert regression is not None, "the settings were checked"

        def denoiser(x_t: Images, sigma: float) -> Images:
            return averaged(regression, condition, self.evaluations)

        return denoiser

    def __call__(self, x_t: Images, sigma: float) -> Images:
        """Refuse: there is nothing to look at."""
        raise ShapeError("a regression without a condition", expected="the small picture")
