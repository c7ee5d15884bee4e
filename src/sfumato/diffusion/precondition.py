"""A network as a denoiser, by the preconditioning of EDM (Karras et al. 2022, section 5).

::

    D(x_t, σ) = c_skip x_t + c_out F(c_in x_t, ln(σ) / 4)                              (7)
    c_skip = s² / (σ² + s²)     c_out = σ s / √(σ² + s²)     c_in = 1 / √(σ² + s²)      (table 1)

with ``s`` the standard deviation of the data. The network sees inputs and targets of variance 1 at
every noise level; at small σ it only has to find the noise, at large σ the picture.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from sfumato._typing import Images
from sfumato.diffusion.arithmetic import PRECISIONS, Precision, compute
from sfumato.errors import SettingsError, ShapeError
from sfumato.nn import SR3, UNet

#: Below this the network is not asked: ``c_out`` lets less than 1e-6 of its answer through.
_SMALLEST_SIGMA = 1e-6


@final
class EDMDenoiser(nn.Module):
    """``D(x_t, sigma)``: the estimate of ``x_0`` in ``x_t = x_0 + sigma eps``, by a U-Net.

    Any height and width from 1 will do: the sides are mirrored up to a multiple of the network's
    stride and cut again. It computes in float32; ``precision`` "bf16" or "fp16" runs the network,
    and nothing else, in 16 bits. The answer has the dtype and device of ``x_t``.

    >>> from sfumato.nn import UNetConfig
    >>> net = UNet(UNetConfig(channels=(4, 8), blocks=1, embedding=8))
    >>> EDMDenoiser(net)(torch.zeros(2, 3, 5, 7), 0.5).shape
    torch.Size([2, 3, 5, 7])
    """

    def __init__(
        self, net: UNet | SR3, sigma_data: float = 0.5, precision: Precision = "fp32"
    ) -> None:
        super().__init__()
        if not 0 < sigma_data < float("inf"):
            raise SettingsError(f"sigma_data = {sigma_data}", expected="a positive number")
        if precision not in PRECISIONS:
            raise SettingsError(f"precision {precision!r}", expected=", ".join(PRECISIONS))
        # torch's stubs leave this form of `to` out.
        self.net: UNet | SR3 = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.sigma_data = sigma_data
        self.precision = precision

    def forward(self, x_t: Images, sigma: float | Tensor, label: Tensor | None = None) -> Images:
        """Return the estimate of ``x_0``, of the shape of ``x_t``; of a class by its ``label``.

        ``x_t`` is (batch, 3, height, width); ``sigma`` is one number or (batch,), at least 0
        (where it is 0 the answer is ``x_t``). Raises ShapeError where they do not fit.
        """
        check_images(x_t)
        x, s, sigma = x_t.float(), self.sigma_data, per_image(sigma, x_t)
        variance = sigma**2 + s**2
        c_skip, c_out, c_in = s**2 / variance, sigma * s / variance.sqrt(), variance.rsqrt()
        f = evaluate(
            self.net,
            c_in * x,
            level_of(sigma),
            stride=self.net.config.stride,
            precision=self.precision,
            label=label,
        )
        return (c_skip * x + c_out * f).to(x_t.dtype)


def evaluate(
    net: nn.Module,
    x: Tensor,
    level: Tensor,
    *,
    stride: int,
    precision: Precision,
    condition: Tensor | None = None,
    label: Tensor | None = None,
) -> Tensor:
    """Return ``F(x, level)``, given a condition or a class if there is one, in float32.

    Any size will do. It is computed in ``precision``; the sides are mirrored up to multiples of
    ``stride`` and cut again. Raises SettingsError where the device cannot compute so, and
    ModelError where it overflows.
    """
    height, width = x.shape[-2:]
    inputs = [v for v in (x, condition) if v is not None]
    x, *given = (
        mirror_to_multiple(v, stride).contiguous(memory_format=torch.channels_last) for v in inputs
    )
    classes = {} if label is None else {"label": label}
    return compute(net, precision, x, level, *given, **classes)[..., :height, :width]


def level_of(sigma: Tensor) -> Tensor:
    """Return the number that stands for a noise level in a network: ``ln(σ) / 4``, (batch,)."""
    return sigma.clamp(min=_SMALLEST_SIGMA).log().flatten() / 4


def mirror_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Lengthen the last two axes of ``x`` to multiples of ``multiple`` by mirroring.

    The mirror stands in the middle of the last pixel; a side that is too short is mirrored again
    and again, and a side of 1 repeats its pixel.

    >>> mirror_to_multiple(torch.arange(3.0).view(1, 3), 4)
    tensor([[0., 1., 2., 1.],
            [0., 1., 2., 1.],
            [0., 1., 2., 1.],
            [0., 1., 2., 1.]])
    """
    for axis in (-2, -1):
        n = x.shape[axis]
        if n % multiple:
            i = torch.arange(-(-n // multiple) * multiple, device=x.device)
            period = max(2 * (n - 1), 1)
            i = i % period
            x = x.index_select(axis, torch.minimum(i, period - i) if n > 1 else i)
    return x


def check_images(x: Tensor) -> None:
    """Refuse what are no images that a denoiser takes; raises ShapeError."""
    if x.ndim != 4 or x.shape[1] != 3 or 0 in x.shape or not x.is_floating_point():
        raise ShapeError(
            f"x_t of shape {tuple(x.shape)} and type {x.dtype}",
            expected="floating-point images (batch, 3, height, width)",
        )


def per_image(sigma: float | Tensor, x_t: Tensor) -> Tensor:
    """Return ``sigma`` as float32 of shape (batch, 1, 1, 1)."""
    sigma = torch.as_tensor(sigma, dtype=torch.float32, device=x_t.device)
    if sigma.ndim > 1 or (sigma.ndim == 1 and len(sigma) not in (1, len(x_t))):
        raise ShapeError(
            f"sigma of shape {tuple(sigma.shape)} for a batch of {len(x_t)}",
            expected="a number, or one for each image",
        )
    return sigma.reshape(-1, 1, 1, 1).expand(len(x_t), 1, 1, 1)
