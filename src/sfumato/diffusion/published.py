"""A published network with its parameterisation, as a denoiser of images of any size."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from sfumato._typing import Images
from sfumato.diffusion.arithmetic import Precision
from sfumato.diffusion.parameterisation import Parameterisation
from sfumato.diffusion.precondition import check_images, evaluate, per_image
from sfumato.errors import SettingsError, ShapeError


@final
class PublishedDenoiser(nn.Module):
    """``D(x_t, σ) = c_skip x_t + c_out F(c_in x_t, c_noise)`` with the network's own coefficients.

    ``net(x, c_noise)`` and, of a class, ``net(x, c_noise, label=label)`` answer for ``x`` of shape
    (batch, 3, height, width) and (batch,) numbers. Sides are mirrored up to multiples of
    ``stride`` and cut again. With ``fixed_size`` they are mirrored up to ``stride`` itself, the
    only side that the network knows.

    ``clip`` bounds the estimate, as the sampling of many published networks does. Without a label
    a network of classes is asked with ``no_class``, the label that stands for none.

    >>> from sfumato.diffusion.parameterisation import EDM
    >>> class Zero(nn.Module):
    ...     def forward(self, x, level):
    ...         return 0 * x
    >>> D = PublishedDenoiser(Zero(), EDM(0.5), stride=4)
    >>> float(D(torch.ones(1, 3, 5, 7), 0.5).mean())
    0.5
    """

    def __init__(
        self,
        net: nn.Module,
        form: Parameterisation,
        *,
        stride: int,
        fixed_size: bool = False,
        precision: Precision = "fp32",
        clip: float | None = None,
        n_labels: int = 0,
        no_class: int | None = None,
    ) -> None:
        super().__init__()
        # torch's stubs leave this form of `to` out.
        self.net: nn.Module = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.form = form
        self.stride = stride
        self.fixed_size = fixed_size
        self.precision: Precision = precision
        self.clip = clip
        self.n_labels = n_labels
        self.no_class = no_class

    @property
    def n_classes(self) -> int | None:
        """How many classes there are, of a network that must be told one; else None."""
        return self.n_labels if self.n_labels and self.no_class is None else None

    def forward(self, x_t: Images, sigma: float | Tensor, label: Tensor | None = None) -> Images:
        """Return the estimate of ``x_0``, of the shape of ``x_t``; of a class by its ``label``.

        ``sigma`` is one number or (batch,), at least 0. Raises ShapeError where they do not fit,
        and SettingsError where the network must be told a class.
        """
        check_images(x_t)
        self._check_size(x_t)
        x = x_t.float()
        per_image(sigma, x_t)  # which refuses what does not fit
        # In float64: small σ and times between two whole ones have digits that float32 lacks.
        levels = torch.as_tensor(sigma, dtype=torch.float64, device="cpu").reshape(-1, 1, 1, 1)
        c_skip, c_out, c_in, c_noise = (c.to(x.device, torch.float32) for c in self.form(levels))
        f = evaluate(
            self.net,
            c_in * x,
            c_noise.flatten().expand(len(x)),
            stride=self.stride,
            precision=self.precision,
            label=self._label(label, x),
        )
        x_0 = c_skip * x + c_out * f
        if self.clip is not None:
            x_0 = x_0.clamp(-self.clip, self.clip)
        return x_0.to(x_t.dtype)

    def _check_size(self, x_t: Tensor) -> None:
        if self.fixed_size and max(x_t.shape[2:]) > self.stride:
            raise ShapeError(
                f"an image of {x_t.shape[3]} x {x_t.shape[2]} for a network of a fixed size",
                expected=f"at most {self.stride} x {self.stride}",
                do="use it by tiles",
            )

    def _label(self, label: Tensor | None, x: Tensor) -> Tensor | None:
        if not self.n_labels:
            if label is not None:
                raise SettingsError("a class", expected="none: the network knows no classes")
            return None
        if label is not None:
            return label
        if self.no_class is None:
            raise SettingsError(
                "no class, for a network that knows images of classes only",
                expected=f"one of its {self.n_labels} classes",
                do="give --class NAME, a number, or auto with a --classifier",
            )
        return torch.full((len(x),), self.no_class, device=x.device)
