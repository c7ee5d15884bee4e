"""The mean of the weights of several models: what trainings that share a start have in common.

Runs that continued from the same weights lie in one basin, and the mean of their weights is often
better than each of them. Reference: *Model soups*, arXiv 2203.05482.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.errors import ModelError, SettingsError

if TYPE_CHECKING:
    from torch import Tensor


def mean_of(
    paths: Sequence[Path], weights: Sequence[float] | None = None
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Return  ``Σ w_i θ_i / Σ w_i``  of the tensors θ_i of models of one form, and a header.

    The sum is taken in double precision, and stored as the first model stores it. The header is
    the first model's; its record of the training holds those of all of them.

    Args:
        paths: native models (``sfumato train``), at least two.
        weights: one above 0 for each; all the same if None.

    Raises:
        ModelError: a file that is missing or damaged, or models of different forms.
        SettingsError: fewer than two models, or weights that do not fit them.

    >>> from sfumato.zoo.prior import load_prior
    >>> source = load_prior().source
    >>> tensors, header = mean_of([source, source], [1, 3])
    >>> [part["weight"] for part in header["training"]["mean"]]
    [0.25, 0.75]
    """
    from sfumato.io.checkpoints import load_checkpoint

    shares = list(weights or [1.0] * len(paths))
    if len(paths) < 2 or len(shares) != len(paths) or min(shares) <= 0:
        raise SettingsError(
            f"{len(paths)} models and {len(shares)} weights",
            expected="at least two models, and a weight above 0 for each",
        )
    tensors, config = load_checkpoint(paths[0])
    if not tensors:
        raise ModelError(
            f"{paths[0]} holds no weights", expected="models", do="average those that it names"
        )
    sums = {name: shares[0] * t.double() for name, t in tensors.items()}
    records = [config.get("training", {})]
    for path, share in zip(paths[1:], shares[1:], strict=True):
        others, theirs = load_checkpoint(path)
        _check_alike(paths[0], tensors, config, path, others, theirs)
        for name, t in others.items():
            sums[name] += share * t.double()
        records.append(theirs.get("training", {}))
    total = sum(shares)
    mean = {name: (t / total).to(tensors[name].dtype) for name, t in sums.items()}
    record = [{"weight": w / total, "training": r} for w, r in zip(shares, records, strict=True)]
    return mean, {**config, "training": {"mean": record}}


def _check_alike(
    first: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, object],
    other: Path,
    others: Mapping[str, Tensor],
    theirs: Mapping[str, object],
) -> None:
    """Refuse models that differ in anything but their weights and their training."""
    shapes, found = ({k: tuple(t.shape) for k, t in each.items()} for each in (tensors, others))
    ours = {k: v for k, v in config.items() if k != "training"}
    if shapes != found or ours != {k: v for k, v in theirs.items() if k != "training"}:
        raise ModelError(f"{other}, of another form than {first}", expected="models of one form")
