"""SR3: a denoiser that sees the small picture, made large, beside the noisy one.

``y`` is what is given, interpolated to the size of the result; ``c`` below. The network is
told ``c`` and the noise level, and what it says becomes an estimate of ``x_0`` by one formula::

    x̂_0 = o + c_skip (x_t − o) + c_out F(c_in (x_t − o), c, level)

=========== ===== ==================== ===================== =====================
prediction  o     c_skip               c_out                 c_in
=========== ===== ==================== ===================== =====================
eps         0     1                    −σ                    1/√(1 + σ²)
v           0     1/(1 + σ²)           −σ/√(1 + σ²)          1/√(1 + σ²)
x_0         0     0                    1                     1/√(1 + σ²)
edm         c     s²/(σ² + s²)         σ s/√(σ² + s²)        1/√(σ² + s²)
=========== ===== ==================== ===================== =====================

in the variance-exploding form ``x_t = x_0 + σ ε``. The paper's own is ``eps``; ``1/√(1 + σ²)`` is
its ``√γ``. ``edm`` is EDM's preconditioning of what ``c`` lacks, of standard deviation ``s``.

References: SR3, arXiv 2104.07636; v, arXiv 2202.00512; EDM, arXiv 2206.00364.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato._typing import CoarseImages, Images
from sfumato.diffusion.arithmetic import Precision
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.precondition import evaluate, level_of, per_image
from sfumato.errors import SettingsError, ShapeError

SR3Prediction: TypeAlias = Literal["eps", "v", "x_0", "edm"]

#: Stands for "no image at all" in a regression.
_ENDLESS_SIGMA = 80.0


@runtime_checkable
class Conditional(Protocol):
    """A denoiser that wants a condition: ``given(c)`` is a denoiser of images like ``c``."""

    def given(self, condition: Images) -> Denoiser:
        """Return the denoiser of a batch of images, given one condition each."""
        ...


def denoise(
    denoiser: Denoiser, x_t: Images, sigma: float, condition: Images | None = None
) -> Images:
    """Evaluate a denoiser, given a condition if there is one.

    Raises ShapeError where a denoiser cannot be given any.
    """
    if condition is None:
        return denoiser(x_t, sigma)
    if not isinstance(denoiser, Conditional):
        raise ShapeError(f"a condition for {type(denoiser).__name__}", expected="an SR3 model")
    return denoiser.given(condition)(x_t, sigma)


#: Makes the small picture ``scale`` times as large, for a model to look at.
Enlarge: TypeAlias = Callable[[CoarseImages, int], Images]


def upsampled(y: CoarseImages, scale: int) -> Images:
    """Interpolate by Keys' cubic (a = −½), as Pillow does, and clip to [-1, 1].

    >>> upsampled(torch.zeros(1, 3, 4, 5), 4).shape
    torch.Size([1, 3, 16, 20])
    """
    size = [n * scale for n in y.shape[-2:]]
    return F.interpolate(y, size=size, mode="bicubic", antialias=True).clamp(-1, 1)


def repeated(y: CoarseImages, scale: int) -> Images:
    """Repeat each pixel ``scale`` times along both axes: ``A⁺ y`` where ``A`` takes means.

    >>> repeated(torch.arange(2.0).reshape(1, 1, 1, 2), 2)
    tensor([[[[0., 0., 1., 1.],
              [0., 0., 1., 1.]]]])
    """
    return y.repeat_interleave(scale, -2).repeat_interleave(scale, -1).clamp(-1, 1)


@dataclass(frozen=True)
class Coefficients:
    """Of the formula above, each (batch, 1, 1, 1); ``relative`` says that ``o`` is ``c``."""

    skip: Tensor
    out: Tensor
    into: Tensor
    relative: bool = False

    @classmethod
    def of(cls, prediction: SR3Prediction, sigma: Tensor, sigma_data: float) -> Coefficients:
        """Return those of ``prediction`` at noise levels ``sigma``."""
        a = (1 + sigma**2).rsqrt()
        if prediction == "eps":
            return cls(torch.ones_like(sigma), -sigma, a)
        if prediction == "v":
            return cls(a**2, -sigma * a, a)
        if prediction == "x_0":
            return cls(torch.zeros_like(sigma), torch.ones_like(sigma), a)
        s, total = sigma_data, sigma**2 + sigma_data**2
        return cls(s**2 / total, sigma * s * total.rsqrt(), total.rsqrt(), relative=True)


@final
class SR3Denoiser(nn.Module):
    """``D(x_t, sigma, condition)``: the estimate of ``x_0`` by a network that sees a condition.

    ``net(x, level, condition)`` wants sides that are multiples of ``stride``; here any height and
    width from 1 will do. ``regression(condition)`` is the estimate that needs no
    image: one evaluation, the mean of all answers if the network was trained for it.

    >>> from sfumato.nn import UNet, UNetConfig
    >>> net = UNet(UNetConfig(channels=(4, 8), blocks=1, embedding=8, inputs=6))
    >>> D = SR3Denoiser(net, "edm", stride=4, sigma_data=0.12)
    >>> c = torch.zeros(2, 3, 5, 7)
    >>> D.given(c)(torch.ones(2, 3, 5, 7), 0.5).shape
    torch.Size([2, 3, 5, 7])
    """

    def __init__(
        self,
        net: nn.Module,
        prediction: SR3Prediction,
        *,
        stride: int,
        sigma_data: float = 0.5,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        if not 0 < sigma_data < float("inf"):
            raise SettingsError(f"sigma_data = {sigma_data}", expected="a positive number")
        # torch's stubs leave this form of `to` out.
        self.net: nn.Module = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.prediction: SR3Prediction = prediction
        self.stride = stride
        self.sigma_data = sigma_data
        self.precision: Precision = precision

    def forward(
        self, x_t: Images, sigma: float | Tensor, condition: Tensor | None = None
    ) -> Images:
        """Return the estimate of ``x_0``; both images are (batch, 3, height, width)."""
        if condition is None or x_t.shape != condition.shape:
            shape = None if condition is None else tuple(condition.shape)
            raise ShapeError(
                f"a condition of shape {shape} for {tuple(x_t.shape)}",
                expected="the same shape",
                do="interpolate it to the size of the result",
            )
        x, c = x_t.float(), condition.float()
        k = self.coefficients(sigma, x)
        o = c if k.relative else torch.zeros_like(c)
        answer = self.answer(k.into * (x - o), c, level_of(per_image(sigma, x)))
        return (o + k.skip * (x - o) + k.out * answer).to(x_t.dtype)

    def given(self, condition: Images) -> Denoiser:
        """Return the denoiser of a batch of images, given one condition each."""
        return lambda x_t, sigma: self(x_t, sigma, condition)

    def regression(self, condition: Images) -> Images:
        """Return ``c + s F(0, c, level)``: the answer without an image, by one evaluation."""
        c = condition.float()
        level = level_of(torch.full((len(c),), _ENDLESS_SIGMA, device=c.device))
        answer = self.answer(torch.zeros_like(c), c, level)
        return (c + self._lack * answer).to(condition.dtype)

    def without_image(
        self, image: Images, level: Tensor, target: Images, lack: Images, alone: Tensor
    ) -> tuple[Images, Tensor, Images]:
        """Return ``F``'s input, level and target, with those of the regression where ``alone``.

        ``lack`` is ``x_0 − c``; ``alone`` is (batch, 1, 1, 1).
        """
        endless = level_of(torch.full_like(level, _ENDLESS_SIGMA))
        return (
            torch.where(alone, 0.0, image),
            torch.where(alone.flatten(), endless, level),
            torch.where(alone, lack / self._lack, target),
        )

    @property
    def _lack(self) -> float:
        """The unit of a regression's answer."""
        return self.sigma_data if self.prediction == "edm" else 1.0

    def coefficients(self, sigma: float | Tensor, like: Images) -> Coefficients:
        """Return the formula's coefficients at ``sigma``, one number or (batch,)."""
        return Coefficients.of(self.prediction, per_image(sigma, like), self.sigma_data)

    def answer(self, x: Images, condition: Images, level: Tensor) -> Images:
        """Evaluate ``F``; the condition is scaled to variance 1 as the image is."""
        c = 2 * condition if self.prediction == "edm" else condition
        return evaluate(
            self.net, x, level, stride=self.stride, precision=self.precision, condition=c
        )

    def target(self, x_0: Images, x_t: Images, sigma: Tensor, condition: Images) -> Images:
        """Return what ``F`` should say: the formula solved for it."""
        k = self.coefficients(sigma, x_t)
        o = condition if k.relative else torch.zeros_like(condition)
        return (x_0 - o - k.skip * (x_t - o)) / k.out
