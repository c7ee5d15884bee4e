"""Networks that remove Gaussian noise of a known strength from pictures in [0, 1], as denoisers.

::

    D(x_t, σ) = 2 F((x_t + 1) / 2, σ / 2) − 1

which is what a denoiser is, on the other scale. They were trained for a range of noise that is
small beside that of a diffusion.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from sfumato._typing import Images
from sfumato.diffusion.arithmetic import Precision
from sfumato.diffusion.precondition import check_images, evaluate, per_image
from sfumato.nn import DRUNet, FFDNet


@final
class NoiseMapDenoiser(nn.Module):
    """``D(x_t, sigma)`` by a DRUNet or an FFDNet.

    Any height and width from 1 will do: the sides are mirrored up to a multiple of the network's
    stride and cut again. The answer has the dtype and device of ``x_t``; ``precision="bf16"`` runs
    all layers but the first and the last in bfloat16.

    >>> import torch
    >>> from sfumato.nn import FFDNetConfig
    >>> D = NoiseMapDenoiser(FFDNet(FFDNetConfig(width=4, layers=3)))
    >>> D(torch.zeros(2, 3, 5, 7), 0.1).shape
    torch.Size([2, 3, 5, 7])
    """

    def __init__(self, net: DRUNet | FFDNet, precision: Precision = "fp32") -> None:
        super().__init__()
        self.net = net
        self.precision: Precision = precision

    def forward(self, x_t: Images, sigma: float | Tensor) -> Images:
        """Return the estimate of ``x_0``; ``sigma`` is one number or (batch,), at least 0.

        Raises ShapeError where they do not fit.
        """
        check_images(x_t)
        s = per_image(sigma, x_t).flatten() / 2
        u = evaluate(
            self.net,
            (x_t.float() + 1) / 2,
            s,
            stride=self.net.config.stride,
            precision=self.precision,
        )
        return (2 * u - 1).to(x_t.dtype)
