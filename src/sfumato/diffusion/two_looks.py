"""A denoiser that looks twice: an SR3 model is told what a prior made of the noisy image.

::

    p = D_prior(x_t, σ)
    c = U B p                                   B makes small, U large again, by cubics
    q = D_SR3(x_t, σ | c)
    D(x_t, σ) = p + w (q − p)                   w = ⅔ / (1 + (v / 3 s²)²)

An SR3 model has learnt to denoise beside a small picture that is true. That of an estimate is
nearly true: at a quarter of the size most of its error is averaged out. Both err where the noise
leaves them to guess, not alike, and their mean errs less than either; the second look has the
larger share, since it errs less. But it has seen pictures of which ``c`` lacks little, of standard
deviation ``s``: where it lacks much, as in letters, the first look counts. ``v`` is the mean
square of ``p − c`` over 9 x 9 pixels.

References: SR3, arXiv 2104.07636; an estimate as a condition, arXiv 2208.04202.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from sfumato._typing import Images
from sfumato.diffusion.sr3 import Conditional, made_small_again

#: Of the second look in the mean, at most.
_SHARE = 2 / 3
#: Where ``p − c`` has so many times the variance that the SR3 model knows, it is half of that.
_TIMES = 3.0
_WINDOW = 9


@final
class TwoLooks(nn.Module):
    """``D(x_t, sigma)`` by a prior's denoiser and by an SR3 model's, two evaluations in one.

    ``scale`` is the factor that the SR3 model was trained for, ``lack`` the standard deviation of
    what the small picture lacked there.

    >>> import torch
    >>> class Believer:
    ...     def given(self, condition):
    ...         return lambda x_t, sigma: condition
    >>> D = TwoLooks(lambda x_t, sigma: x_t, Believer(), scale=4, lack=0.1)
    >>> torch.allclose(D(torch.full((1, 3, 9, 14), 0.5), 0.1), torch.tensor(0.5))
    True
    """

    evaluations = 2

    def __init__(
        self, prior: Callable[..., Images], refiner: Conditional, *, scale: int, lack: float
    ) -> None:
        super().__init__()
        self.prior, self.refiner, self.scale, self.lack = prior, refiner, scale, lack

    @override
    def forward(self, x_t: Images, sigma: float | Tensor) -> Images:
        """Return the estimate of ``x_0``, in shape, dtype and device of ``x_t``."""
        x = x_t.float()
        p = self.prior(x, sigma)
        c = made_small_again(p, self.scale)
        q = self.refiner.given(c)(x, sigma)  # type: ignore[arg-type]
        return (p + self.share(p - c) * (q - p)).to(x_t.dtype)

    def share(self, lacking: Images) -> Tensor:
        """Return ``w``, the share of the second look: (batch, 1, height, width)."""
        v = lacking.square().mean(1, keepdim=True)
        v = F.avg_pool2d(v, _WINDOW, 1, _WINDOW // 2, count_include_pad=False)
        return _SHARE / (1 + (v / (_TIMES * self.lack**2)).square())
