"""A denoiser that also asks alike patches: collaborative filtering, steered by its estimate.

::

    p = D(x_t, σ)
    w = (T p)² / ((T p)² + σ²)         T: cosines over colours, alike patches, and their pixels
    v = k / max(1, |w|²)               |w|² of a group's colour, k the Kaiser window of a patch
    u = Σ v T⁻¹(w T x_t) / Σ v         sums over all patches of all groups that hold a pixel
    D'(x_t, σ) = p + a (u − p)         a = 1.4 s / (s + 0.4 σ)

A network sees what is near, and knows photographs; a texture that comes back is better known from
its other places in the picture. For every third pixel, both ways, the patch of 5 x 5 pixels there
and the 15 that are most like it, in the mean of the colours of ``p`` and from within 16 pixels,
are stacked. In such a group what they share becomes a few large coefficients, and noise stays many
small ones; the Wiener filter that would be best if ``p`` were the image keeps the former. Patches
overlap, so that each pixel is the mean of many answers. Where the image is flat the network has
seen more of it than 16 patches, and its answer stands: ``s`` is the standard deviation over 9 x 9
pixels of the mean of the colours of ``p``.

References: BM3D, DOI 10.1109/TIP.2007.901238 (its second step); a network's estimate to steer it,
Cruz et al., arXiv 1803.02112.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato._typing import Images

#: Side of a patch, pixels between patches, how far others may be, and how many a group has.
_SIDE, _STEP, _REACH, _ALIKE = 5, 3, 16, 16
#: The share ``a`` where all is texture, and the part of σ at which it is half of that.
_SHARE, _FLAT, _WINDOW = 1.4, 0.4, 9
#: With less noise than this there is nothing to filter.
_LEAST_SIGMA = 1e-6
#: All that decides bits, for those who keep results.
CHOICES = (_SIDE, _STEP, _REACH, _ALIKE, _SHARE, _FLAT, _WINDOW)
#: Patches whose groups are filtered at a time, or those of one row, which bounds the memory.
_AT_ONCE = 1024
#: Sums are taken in whole numbers of this unit, so that their order does not matter; values of
#: images and weights up to 1 leave room for 2^38 of them.
_UNIT = 2.0**-24


@final
class Collaborative:
    """``D'(x_t, sigma)``: a denoiser's estimate and collaborative filtering, for white noise.

    Its answer at a pixel depends on no more than 36 pixels around it, and on what ``denoiser``
    sees.

    >>> x = torch.tensor([0.2, -0.6]).repeat(1, 3, 24, 12)
    >>> y = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    >>> D = Collaborative(lambda x_t, sigma: x)
    >>> bool((D(y, 0.1) - x).square().mean() < 0.2 * (y - x).square().mean())
    True
    """

    def __init__(self, denoiser: Callable[[Images, float], Images]) -> None:
        self.denoiser = denoiser

    def __call__(self, x_t: Images, sigma: float) -> Images:
        """Return the estimate of ``x_0``, in shape, dtype and device of ``x_t``."""
        p = self.denoiser(x_t, sigma)
        u = collaborative(x_t.float(), p.float(), sigma)
        return (p + share(p.float(), sigma) * (u - p)).to(x_t.dtype)


def collaborative(y: Images, p: Images, sigma: float) -> Images:
    """Filter ``y``, of white noise ``sigma``, by groups of patches that are alike in ``p``.

    Both have shape (batch, channels, height, width), float32, and hold finite numbers of data in
    [-1, 1].
    """
    if sigma < _LEAST_SIGMA:
        return y
    return torch.stack([_filtered(a, b, sigma) for a, b in zip(y, p, strict=True)])


def share(p: Images, sigma: float) -> Tensor:
    """Return ``a``, the share of the filtered image: (batch, 1, height, width)."""
    m = p.mean(1, keepdim=True)
    m, square = (
        F.avg_pool2d(v, _WINDOW, 1, _WINDOW // 2, count_include_pad=False) for v in (m, m * m)
    )
    s = (square - m * m).clamp(min=0).sqrt()
    return _SHARE * s / (s + _FLAT * max(sigma, _LEAST_SIGMA))


def working_bytes(height: int, width: int) -> int:
    """Return about how much memory filtering an image takes, beside that image.

    >>> round(working_bytes(256, 256) / 1e6)
    41
    """
    groups = min(max(_AT_ONCE, width // _STEP), height * width // _STEP**2)
    return 34_000 * groups + 90 * height * width


def _filtered(y: Tensor, p: Tensor, sigma: float) -> Tensor:
    c, height, width = y.shape
    side = min(_SIDE, height, width)
    step = min(_STEP, side)
    # The last patches are to end where the image does.
    beyond = (0, -(width - side) % step, 0, -(height - side) % step)
    T = cosines(c, y)
    y, p = (
        torch.einsum("ij,jhw->ihw", T, F.pad(v[None], beyond, mode="replicate")[0]) for v in (y, p)
    )
    h, w = y.shape[1:]
    offsets = (torch.arange(side)[:, None] * w + torch.arange(side)).flatten().to(y.device)
    sums = torch.zeros(2, c, h * w, dtype=torch.int64, device=y.device)
    for firsts in alike(p[0].detach(), side, step):
        at = firsts[..., None] + offsets
        for total, v in zip(
            sums, _group_answers(y.flatten(1), p.flatten(1), at, sigma), strict=True
        ):
            total.index_add_(1, at.flatten(), (v / _UNIT).round().to(torch.int64).flatten(1))
    u = (sums[0].double() / sums[1]).to(y.dtype).view(c, h, w)
    return torch.einsum("ji,jhw->ihw", T, u)[:, :height, :width]


def _group_answers(y: Tensor, p: Tensor, at: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Return ``v T⁻¹(w T y)`` and ``v`` of groups of pixels ``at``: (groups, alike, pixels)."""
    c, (_, n_alike, n) = len(y), at.shape
    side = math.isqrt(n)
    T_alike, T_pixels = cosines(n_alike, y), cosines(side, y)
    T_pixels = torch.kron(T_pixels, T_pixels)
    Ty, Tp = (T_alike @ (v[:, at.flatten()].view(c, *at.shape) @ T_pixels.T) for v in (y, p))
    w = Tp.square() / (Tp.square() + sigma**2)
    k = torch.kaiser_window(side, periodic=False, beta=2.0, device=y.device)
    k = (k[:, None] * k).flatten()
    v = k / w.square().sum((2, 3), keepdim=True).clamp(min=1)
    return v * (T_alike.T @ (w * Ty) @ T_pixels), v.expand(c, *at.shape)


def alike(guide: Tensor, side: int, step: int) -> Iterator[Tensor]:
    """Yield, some patches at a time, where those begin that are most like each of them.

    ``guide`` has shape (height, width), and of its patches each ``step``-th is asked, both ways.
    The tensors have shape (patches, alike) and hold indices into the flattened ``guide``, the
    patch itself first; of others equally alike any may be there.
    """
    height, width = guide.shape
    reach, n = _REACH, 2 * _REACH + 1
    most = min(_ALIKE, math.prod(min(reach + 1, k - side + 1) for k in guide.shape))
    columns = torch.arange(0, width - side + 1, step, device=guide.device)
    rows = range(0, height - side + 1, step)
    padded = F.pad(guide, (reach,) * 4, value=math.inf)
    shift = torch.arange(-reach, reach + 1, device=guide.device)
    shifts = (shift[:, None] * width + shift).flatten()
    per_strip = max(1, _AT_ONCE // len(columns))
    for k in range(0, len(rows), per_strip):
        strip = rows[k : k + per_strip]
        top, bottom = strip[0], strip[-1] + side
        here = guide[top:bottom]
        distances = torch.empty((n, n, len(strip), len(columns)), device=guide.device)
        d = torch.empty((n, *here.shape), device=guide.device)
        for dy in range(n):
            there = padded[top + dy : bottom + dy].unfold(1, width, 1).transpose(0, 1)
            distances[dy] = F.avg_pool2d(torch.sub(there, here, out=d).square_(), side, step)
        # Where all is alike a patch might be left out of its own group, and its pixels of all.
        distances[reach, reach] = -1
        nearest = distances.flatten(0, 1).flatten(1).T.topk(most, largest=False).indices
        firsts = torch.tensor(strip, device=guide.device)[:, None] * width + columns
        yield firsts.flatten()[:, None] + shifts[nearest]


@lru_cache(maxsize=16)
def _cosines(n: int) -> Tensor:
    k = torch.arange(n, dtype=torch.float64)
    T = torch.cos(math.pi / n * k[:, None] * (k + 0.5)) * math.sqrt(2 / n)
    T[0] /= math.sqrt(2)
    return T


def cosines(n: int, like: Tensor) -> Tensor:
    """Return the orthonormal cosine transform of ``n`` values, of the kind of ``like``.

    >>> T = cosines(3, torch.zeros(()))
    >>> bool((T @ T.T - torch.eye(3)).abs().max() < 1e-6)
    True
    """
    return _cosines(n).to(like)
