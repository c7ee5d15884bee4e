"""The Inception score: how clear the class of each picture is, and how many classes there are.

Reference: Salimans et al., "Improved techniques for training GANs", arXiv 1606.03498, section 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import SettingsError, ShapeError


def inception_score(
    logits: Float[Tensor, "pictures classes"], *, splits: int = 1
) -> tuple[float, float]:
    """Return mean and standard deviation over the splits of  ``exp(mean_i KL(p(y|x_i) ‖ p(y)))``.

    ``logits`` are (pictures, classes); ``p(y)`` is the mean of ``p(y|x)`` over a split. Splits are
    neighbours, in the order given, as even as can be. The score lies between 1 and the number of
    classes, and grows with the number of pictures in a split. The deviation divides by the number
    of splits.

    Raises ShapeError for other shapes; SettingsError for NaN, fewer than two pictures in a split,
    and fewer than one split.

    >>> score, _ = inception_score(100 * torch.eye(4))
    >>> round(score, 6)
    4.0
    """
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ShapeError(f"logits of shape {tuple(logits.shape)}", expected="(pictures, classes)")
    if splits < 1 or len(logits) < 2 * splits:
        raise SettingsError(
            f"{len(logits)} pictures in {splits} splits for an Inception score",
            expected="at least 2 pictures in each of 1 or more splits",
        )
    if not bool(torch.isfinite(logits).all()):
        raise SettingsError("logits with NaN or infinity", expected="finite numbers")
    scores = torch.stack([_score(part) for part in logits.double().tensor_split(splits)])
    return float(scores.mean()), float(scores.std(unbiased=False))


def _score(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(dim=1)
    p = log_p.exp()
    divergence = (p * (log_p - p.mean(dim=0).log())).nan_to_num(0.0).sum(dim=1)
    return divergence.mean().exp()
