"""What a search chooses from: schedules of a given number of steps, each with a share of noise.

A model of what the interpolated input lacks (``relative``) begins with little noise, so EDM's
schedules from near the size of that on are tried. Others begin with noise alone: ramps of β, as
SR3's, and steps even in log σ.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from sfumato.diffusion import parse_schedule, resampled
from sfumato.errors import SettingsError
from sfumato.evaluation._order import shuffled
from sfumato.zoo import Prior, SuperResolution

#: Shares of fresh noise; None is SR3's own sampler, whose variance is larger.
ETAS = (None, 0.0, 0.3, 0.5, 0.85, 1.0)

#: First and last noise, and ρ of EDM's schedule; 1000 is even in log σ.
RELATIVE_FIRST, RELATIVE_LAST, RHOS = (
    (0.5, 1.0, 2.0, 4.0, 8.0),
    (0.005, 0.01, 0.02, 0.04),
    (3, 7, 1000),
)
#: First β and last γ of linear ramps; 4.4e-05 is the γ that SR3's training ends at.
BETAS, GAMMAS = (1e-6, 1e-4, 1e-3, 1e-2), (4.4e-5, 4e-4, 4e-3)
#: First and last noise of steps even in log σ.
FIRST, LAST = (150, 50, 15), (0.01, 0.03)

_ORDER = 2
#: A model is asked about more noise than it knows by so much at most: that is rounding.
_ABOVE = 1.001


@dataclass(frozen=True)
class Candidate:
    """Noise levels (all but the last, which is 0), and the share of fresh noise with them.

    ``schedule`` is how people write it, for ``parse_schedule``. ``eta`` None is SR3's own sampler.
    """

    schedule: str
    sigmas: tuple[float, ...]
    eta: float | None

    @property
    def sampler(self) -> str:
        """Name what ``eta`` says.

        >>> Candidate("1", (1.0,), 0.5).sampler
        'ddim 0.5'
        """
        return "sr3" if self.eta is None else f"ddim {self.eta:g}"


def own_candidate(model: SuperResolution, n_steps: int) -> Candidate:
    """Return what the model is sampled with so far, at so many steps.

    Raises SettingsError for a model converted from another program, which has a sampler of its
    own and no place for a schedule.
    """
    if model.sampler not in ("sr3", "ddim"):
        raise SettingsError(
            f"a model that is sampled by {model.sampler}, as another program does",
            expected="an SR3 model of sfumato",
            do="try schedules for it with upscale --schedule",
        )
    return Candidate("its own", resampled(model.sigmas, n_steps), model.eta)


def candidates(prior: Prior, n_steps: int, *, seed: int = 0) -> list[Candidate]:
    """List what is to be tried: the model's own first, the rest in an order decided by ``seed``.

    All that the tables above name, crossed, within the noise that the model knows. Of one step the
    share of noise makes no difference.

    Raises SettingsError for a model that is no SR3 model of sfumato, and below one step.

    References: EDM, arXiv 2206.00364, eq. 5; SR3, arXiv 2104.07636, section 2.4.
    """
    if (model := prior.super_resolution) is None:
        raise SettingsError(f"the model {prior.name}", expected="an SR3 model")
    if n_steps < 1:
        raise SettingsError(f"{n_steps} steps", expected="at least 1")
    own = own_candidate(model, n_steps)
    most = _ABOVE * max(prior.sigma_max, model.sigmas[0])
    found: dict[tuple[tuple[float, ...], float | None], Candidate] = {}
    etas = ETAS if n_steps > 1 else ETAS[:1]
    for text, eta in product(_schedules(model.relative, n_steps), etas):
        sigmas = parse_schedule(text)
        if sigmas[0] <= most and (sigmas, eta) != (own.sigmas, own.eta):
            found.setdefault((sigmas, eta), Candidate(text, sigmas, eta))
    others = list(found.values())
    return [own, *(others[k] for k in shuffled(seed, _ORDER, len(others)))]


def _schedules(relative: bool, n: int) -> list[str]:
    if relative:
        return [
            f"karras:{n}:{first:g}:{last:g}:{rho}"
            for first, last, rho in product(RELATIVE_FIRST, RELATIVE_LAST, RHOS)
        ]
    ramps = [
        f"linear:{n}:{beta:g}:{gamma:g}"
        for beta, gamma in product(BETAS, GAMMAS)
        if gamma < (1 - beta) ** n
    ]
    return ramps + [f"karras:{n}:{first:g}:{last:g}:1000" for first, last in product(FIRST, LAST)]
