"""Denoisers made better at one image: orientations, clipped values, and what is alike in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.diffusion import Denoiser
from sfumato.diffusion.collaborative import Collaborative
from sfumato.guidance.clipping import completion

#: Ways to turn and mirror a picture.
ORIENTATIONS = 8


def oriented(x: Tensor, k: int) -> Tensor:
    """Return orientation ``k`` of 8: bits 0 and 1 flip columns and rows, then bit 2 swaps axes.

    >>> x = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> bool((restored(oriented(x, 5), 5) == x).all())
    True
    """
    axes = [a for bit, a in ((1, 3), (2, 2)) if k & bit]
    x = x.flip(axes) if axes else x
    return x.transpose(2, 3) if k & 4 else x


def restored(x: Tensor, k: int) -> Tensor:
    """Undo ``oriented``."""
    x = x.transpose(2, 3) if k & 4 else x
    axes = [a for bit, a in ((1, 3), (2, 2)) if k & bit]
    return x.flip(axes) if axes else x


def averaged(answer: Callable[[Images], Images], x: Images, n: int = ORIENTATIONS) -> Images:
    """Return the mean of ``answer`` over the first ``n`` orientations of ``x``, turned back.

    >>> x = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> averaged(lambda u: u.cumsum(3), x, 2)
    tensor([[[[0.5000, 1.0000],
              [3.5000, 4.0000]]]])
    """
    answers = (restored(answer(oriented(x, k)), k) for k in range(n))
    return torch.stack(list(answers)).mean(0) if n > 1 else next(answers)


def evaluations_of(denoiser: Denoiser) -> int:
    """Return how many evaluations of a network one of the denoiser takes."""
    return int(getattr(denoiser, "evaluations", 1))


class AlternatingOrientation:
    """Evaluate the denoiser in another orientation at each noise level of a walk.

    It costs nothing, and errors that depend on the orientation average out. With a ``share``
    below 1 it goes only so far:  ``x + share (D(x) − x)``.
    """

    def __init__(self, denoiser: Denoiser, sigmas: Sequence[float], share: float = 1.0) -> None:
        self.denoiser = denoiser
        self.share = share
        self.evaluations = evaluations_of(denoiser)
        self._k = {sigma: i % ORIENTATIONS for i, sigma in enumerate(sigmas)}

    def __call__(self, x_t: Images, sigma: float) -> Images:
        """Estimate ``x_0``."""
        k = self._k[sigma]
        x_0 = restored(self.denoiser(oriented(x_t, k), sigma), k)
        return x_0 if self.share == 1 else x_t + self.share * (x_0 - x_t)


class OrientationEnsemble:
    """Average the denoiser over orientations: all eight, or as many as take eight evaluations."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        each = evaluations_of(denoiser)
        self._n = max(1, ORIENTATIONS // each)
        self.evaluations = self._n * each

    def __call__(self, x_t: Images, sigma: float) -> Images:
        """Estimate ``x_0``."""
        return averaged(lambda x: self.denoiser(x, sigma), x_t, self._n)


class Unclipped:
    """Ensemble of orientations for a noisy image whose values were clipped to [-1, 1].

    Clipped noise has another mean: what was white comes out grey. Of a value at the bound only
    ``x + n ≥ 1`` is known, and its expectation given an estimate of ``x`` is put in its place
    (Tobin, *Estimation of relationships for limited dependent variables*, 1958). Two evaluations
    find that estimate, in one pass or two, and eight denoise the image so completed. In a
    ``grey`` image the mean of the channels is what was measured, and has a third of the noise's
    variance. With ``collaborative`` patches that this answer has alike are then filtered together.
    """

    def __init__(
        self, denoiser: Denoiser, *, grey: bool = False, collaborative: bool = False
    ) -> None:
        self.denoiser = denoiser
        self.grey = grey
        ensemble = OrientationEnsemble(denoiser)
        self._whole = Collaborative(ensemble) if collaborative else ensemble
        each = evaluations_of(denoiser)
        self._completing = (0, 5)[: max(1, 2 // each)]
        self.evaluations = len(self._completing) * each + ensemble.evaluations

    def __call__(self, x_t: Images, sigma: float) -> Images:
        """Estimate ``x_0``."""
        filled = x_t
        for k in self._completing:
            x_0 = restored(self.denoiser(oriented(filled, k), sigma), k)
            filled = completion(x_t, x_0, sigma, copies=3 if self.grey else 1)
        return self._whole(filled, sigma)
