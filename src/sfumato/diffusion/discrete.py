"""Networks of discrete times as denoisers: any size, a noise level for each image, a precision."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from sfumato._typing import Images
from sfumato.diffusion.denoiser import Prediction, time_of
from sfumato.diffusion.precondition import Precision, check_images, evaluate, per_image
from sfumato.diffusion.schedule import sigma_of
from sfumato.errors import SettingsError


@final
class VPDenoiser(nn.Module):
    """``D(x_t, σ)`` by a network of the variance-preserving form, ``F(a x_t, t)``.

    ::

        a = 1 / √(1 + σ²)     t: σ_t = σ, interpolated between indices on the scale of log σ
        eps:  D = x_t − σ F      v:  D = a² x_t − √(1 − a²) F      x_0:  D = F

    Any height and width from 1 will do: sides are mirrored up to a multiple of ``stride`` and cut
    again. ``precision="bf16"`` runs the network in bfloat16 and nothing else. Gradients flow to
    ``x_t`` where it asks for them. The answer has the dtype and device of ``x_t``.

    Args:
        net: ``net(x, t)`` of images and real-valued times (batch,); ``net(x, t, label=...)``
            where it knows classes.
        alpha_bar: ``ᾱ_t`` of each index, from little noise to much.
        prediction: what the network was trained to return.
        stride: what it needs sides to be multiples of.
        n_classes: of a network that must be told a class; None where it knows none.
        time_scale: the network's times are the indices times this.

    >>> from sfumato.diffusion.schedule import linear_alpha_bar
    >>> class Nothing(nn.Module):
    ...     def forward(self, x, t):
    ...         return torch.zeros_like(x)
    >>> D = VPDenoiser(Nothing(), linear_alpha_bar(), stride=4)
    >>> D(torch.ones(1, 3, 5, 7), 0.5).shape
    torch.Size([1, 3, 5, 7])
    """

    def __init__(
        self,
        net: nn.Module,
        alpha_bar: Tensor,
        prediction: Prediction = "eps",
        *,
        stride: int,
        precision: Precision = "fp32",
        n_classes: int | None = None,
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if precision not in ("fp32", "bf16"):
            raise SettingsError(f"precision {precision!r}", expected='"fp32" or "bf16"')
        # torch's stubs leave this form of `to` out.
        self.net: nn.Module = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.prediction: Prediction = prediction
        self.stride = stride
        self.precision: Precision = precision
        self.n_classes = n_classes
        self.time_scale = time_scale
        self._log_sigma = sigma_of(alpha_bar.double().cpu()).log()

    @property
    def sigma_max(self) -> float:
        """The noise at the last time that the network was trained at."""
        return float(self._log_sigma[-1].exp())

    def forward(self, x_t: Images, sigma: float | Tensor, label: Tensor | None = None) -> Images:
        """Return the estimate of ``x_0``; ``sigma`` is one number or (batch,), at least 0.

        Raises ShapeError where they do not fit, and SettingsError where the network wants a class
        and is told none, or the other way round.
        """
        check_images(x_t)
        if (label is None) != (self.n_classes is None):
            raise SettingsError(
                "a model of classes and no class" if label is None else "a class",
                expected="one of its classes" if label is None else "none: it knows no classes",
                do="give --class NAME, a number, or auto with a --classifier" * (label is None),
            )
        s = per_image(sigma, x_t)
        exact = torch.as_tensor(sigma, dtype=torch.float64, device="cpu").reshape(-1)
        t = self.time_scale * time_of(self._log_sigma, exact).to(x_t.device, torch.float32)
        x = x_t.float()
        a = (1 + s.square()).rsqrt()
        f = evaluate(
            self.net,
            a * x,
            t.expand(len(x)),
            stride=self.stride,
            precision=self.precision,
            label=label,
        )
        if self.prediction == "eps":
            x_0 = x - s * f
        elif self.prediction == "v":
            x_0 = a.square() * x - (1 - a.square()).sqrt() * f
        else:
            x_0 = f
        return x_0.to(x_t.dtype)
