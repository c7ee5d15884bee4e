"""Settings of the training of SR3 and of its regression baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal, final

from pydantic import Field, StrictInt, field_validator, model_validator
from torch import Tensor

from sfumato.diffusion import karras, linear_alpha_bar, linear_sigmas
from sfumato.diffusion.schedule import sigma_of
from sfumato.errors import SettingsError
from sfumato.training.settings import Count, Positive, RunSettings, Share, ascending
from sfumato.zoo.sr3 import Network, UNetForm


@final
class SR3Settings(RunSettings):
    """Everything that decides the weights of an SR3 model, but for photographs and machine.

    Task: undo ``kernel`` downsampling by ``scale`` ("bicubic" is antialiased; "average_pool").

    Network: ``network`` is one of the forms of ``sfumato.zoo.sr3``; with ``checkpointing`` its
    features are computed again for the gradient, to save memory. ``prediction`` says what it is
    asked for, ``sigma_data`` the standard deviation of what the interpolated input lacks.

    Noise: ``noise`` "gamma" is the paper's: ``γ ~ Σ_t 1/T U(γ_{t−1}, γ_t)`` for each example, of
    ``n_times`` times and β linear in ``betas_range``; "log-normal" draws ``ln σ`` with
    ``log_sigma_mean`` and ``log_sigma_std``; the default is what suits ``prediction``. ``loss`` is
    "l1" (the paper's choice) or "l2" in the network's own units; ``min_snr`` bounds the weight at
    low noise (arXiv 2303.09556); ``dream`` is the power of DREAM's rectification, 0 for none
    (arXiv 2312.00210).

    Regression: a share ``regression_share`` of the examples has no image beside the condition,
    and squared error: 1 is the paper's regression baseline, anything between trains both in one.

    Input: rounded to 8 bits; a share ``blur_share`` is blurred by a Gaussian with a standard
    deviation within ``blur_sigma`` low-resolution pixels, for cascades (CDM, arXiv 2106.15282). In
    place of a share ``pooled_share`` there are means of pixels, shown as blocks, for one model of
    both kernels that sees which.

    Raises SettingsError where made by ``of``, and pydantic's ValidationError otherwise.
    """

    scale: Annotated[StrictInt, Field(ge=2, le=64)] = 4
    kernel: Literal["bicubic", "average_pool"] = "bicubic"
    network: Network = Field(default_factory=UNetForm)
    checkpointing: bool = False
    prediction: Literal["eps", "v", "x_0", "edm"] = "edm"
    sigma_data: Positive = 0.1

    noise: Literal["gamma", "log-normal"] = "log-normal"
    n_times: Count = 2000
    betas_range: tuple[Positive, Positive] = (1e-6, 1e-2)
    log_sigma_mean: Annotated[float, Field(allow_inf_nan=False)] = -2.0
    log_sigma_std: Positive = 1.4
    loss: Literal["l1", "l2"] = "l2"
    min_snr: Positive | None = None
    dream: Annotated[float, Field(ge=0, le=10)] = 0.0

    regression_share: Share = 0.0
    pooled_share: Share = 0.0
    blur_share: Share = 0.0
    blur_sigma: tuple[Positive, Positive] = (0.4, 1.0)

    @model_validator(mode="before")
    @classmethod
    def _fitting(cls, values: object) -> object:
        """Put in the defaults that go with the scale and with the prediction."""
        if not isinstance(values, Mapping):
            return values
        scale, fitting = values.get("scale", 4), dict(values)
        if isinstance(scale, int) and scale > 0 and not values.get("prepare"):
            sides = (max(1, round(side / scale)) * scale for side in (128, 96, 64))
            fitting.setdefault("crop_cycle", tuple(sides))
        if values.get("prediction", "edm") != "edm":
            fitting.setdefault("noise", "gamma")
        return fitting

    @field_validator("betas_range", "blur_sigma")
    @classmethod
    def _pair(cls, value: tuple[float, float]) -> tuple[float, float]:
        return ascending(value)

    @field_validator("betas_range")
    @classmethod
    def _below_one(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] >= 1:
            raise ValueError(f"a variance of {value[1]}; each is below 1")
        return value

    def check(self) -> None:
        """Raise SettingsError where crops do not fit the scale, or there is no such network."""
        odd = [side for side in self.crop_cycle if side % self.scale]
        if odd:
            raise SettingsError(
                f"crops of {odd[0]} pixels",
                expected=f"multiples of the scale, {self.scale}",
                do="set crop_cycle in a recipe, or --prepare",
            )
        if self.pooled_share and self.kernel == "average_pool":
            raise SettingsError(
                "pooled_share where all pictures are made small by means", do="leave it out"
            )
        if self.dream and self.regression_share == 1:
            raise SettingsError("dream for a regression, which sees no noise", do="leave it out")
        _ = self.network.config
        if self.checkpointing and self.network.form != "sr3":
            raise SettingsError(
                f"checkpointing of the network {self.network.form}",
                expected="it for the paper's network, sr3, only",
            )

    @property
    def _gamma_T(self) -> Tensor:
        """The ``γ`` that the paper's training ends at."""
        return linear_alpha_bar(self.n_times, *self.betas_range)[-1]

    @property
    def sigma_max(self) -> float:
        """The most noise that the model knows: what all but few examples have less of."""
        if self.noise == "gamma":
            return float(sigma_of(self._gamma_T))
        return math.exp(self.log_sigma_mean + 2.5 * self.log_sigma_std)

    @property
    def schedule(self) -> tuple[float, ...]:
        """The noise levels to sample with, from what was trained, until a search finds better.

        For what the input lacks 16 levels from 40 times its standard deviation down to 0.3 of it,
        the best for the embedded model; else 100 of a ramp that is linear in β and ends where the
        training did.
        """
        s = self.sigma_data
        if self.prediction == "edm":
            return tuple(karras(16, min(40 * s, self.sigma_max), 0.3 * s)[:-1])
        if self.noise == "gamma":
            return tuple(linear_sigmas(100, float(self._gamma_T))[:-1])
        return tuple(karras(100, self.sigma_max, self.sigma_max / 1000)[:-1])

    @property
    def eta(self) -> float | None:
        """The share of fresh noise to sample with; None for SR3's own sampler."""
        return 0.3 if self.prediction == "edm" else None

    @property
    def degradation(self) -> str:
        """How the input is made of a photograph, as a degradation word."""
        return f"{self.kernel}:{self.scale}"
