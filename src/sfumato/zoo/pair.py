"""Pairs: a prior and an SR3 model that looks at what the prior saw, as one prior.

The file of a pair holds no weights: its header names the two models, with the SHA-256 of each. See
``sfumato.diffusion.two_looks`` for how they work together.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sfumato.errors import ModelError
from sfumato.zoo.model import Prior
from sfumato.zoo.names import file_of
from sfumato.zoo.source import Source

if TYPE_CHECKING:
    import torch

    from sfumato.diffusion.arithmetic import Precision

WHAT = "a pair of sfumato (.safetensors)"

_KIND = "pair"
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class PairConfig(BaseModel):
    """The two models: names of the package's, or paths from the pair's file; and their SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pair"] = "pair"
    prior: str
    prior_sha256: _Digest
    refiner: str
    refiner_sha256: _Digest


def save_pair(path: Path, prior: str, refiner: str) -> None:
    """Write the pair of a prior and an SR3 model, each a name or a path from ``path``'s folder.

    Raises ModelError where they are not there, or not what a pair is of.
    """
    from sfumato.io.checkpoints import save_checkpoint

    parts = [Source(file_of(part, path.parent), part) for part in (prior, refiner)]
    for part, kind in zip(parts, _KINDS, strict=True):
        _check(part, kind)
        if part.path.resolve() == path.resolve():
            raise ModelError(f"{path} as a pair with itself", do="name another file")
    _check_refiner(parts[1])
    config = PairConfig(
        prior=prior,
        prior_sha256=parts[0].digest,
        refiner=refiner,
        refiner_sha256=parts[1].digest,
    )
    save_checkpoint(path, {}, config.model_dump(mode="json"))


def matches(source: Source) -> bool:
    """Tell whether the file is one of ours, and a pair."""
    return source.header is not None and source.header.get("kind") == _KIND


def side(source: Source) -> int:
    """Return the side of a tile, from the prior's header."""
    from sfumato.zoo import native
    from sfumato.zoo.config import parse_config

    config = parse_config(source.header or {}, source.path, PairConfig)
    return native.side(Source(file_of(config.prior, source.path.parent), config.prior))


def load(source: Source, device: torch.device, precision: Precision) -> Prior:
    """Return both models as one; raises ModelError where they are not a prior and an SR3 model."""
    from sfumato.diffusion.sr3 import SR3Denoiser
    from sfumato.diffusion.two_looks import TwoLooks
    from sfumato.zoo import native

    prior, refiner = (native.load(part, device, precision) for part in parts(source))
    task = refiner.super_resolution
    assert task is not None, "its header was checked"
    assert isinstance(refiner.denoiser, SR3Denoiser), "its header was checked"
    looks = TwoLooks(
        prior.denoiser,
        refiner.denoiser,
        scale=task.scale,
        lack=refiner.denoiser.sigma_data,
    )
    said = f"pair {prior.digest} {refiner.digest}"
    return Prior(
        name=source.name,
        denoiser=looks.eval(),
        digest=hashlib.sha256(said.encode()).hexdigest(),
        tile=prior.tile,
        stride=max(prior.stride, refiner.stride),
        sigma_max=min(prior.sigma_max, refiner.sigma_max),
        precision=precision,
        n_parameters=prior.n_parameters + refiner.n_parameters,
        card=source.card or f"# {source.name}\n\nA pair without a card.\n",
        source=source.path,
        kind="a prior and an SR3 model that looks at what it saw: two evaluations in one",
        collaborative=True,
    )


def parts(source: Source) -> tuple[Source, Source]:
    """Return the prior and the SR3 model of a pair.

    Raises ModelError where they are not there, or not those that the pair was made of.
    """
    from sfumato.zoo.config import parse_config

    config, found = parse_config(source.header or {}, source.path, PairConfig), []
    named = ((config.prior, config.prior_sha256), (config.refiner, config.refiner_sha256))
    for (name, digest), kind in zip(named, _KINDS, strict=True):
        part = Source(file_of(name, source.path.parent), name)
        _check(part, kind)
        if part.digest != digest:
            raise ModelError(
                f"{part.path} has the SHA-256 {part.digest}",
                expected=f"{digest}, of which {source.path} is a pair",
                do="make the pair again: sfumato models pair",
            )
        found.append(part)
    _check_refiner(found[1])
    return found[0], found[1]


#: What a pair is of.
_KINDS = ("prior", "sr3")


def _check(part: Source, kind: str) -> None:
    expected = "a prior of sfumato" if kind == "prior" else "an SR3 model of sfumato"
    expected += " (.safetensors)"
    if not part.path.is_file():
        raise ModelError(f"there is no {part.path}, named in a pair", expected=expected)
    if part.header is None or part.header.get("kind") != kind:
        raise ModelError(f"{part.path} in a pair", expected=expected)


def _check_refiner(part: Source) -> None:
    """Refuse an SR3 model that has not learnt to denoise beside a bicubic small picture."""
    said = part.header or {}
    regression, kernel = said.get("samples") is False, said.get("kernel", "bicubic")
    if regression or kernel != "bicubic" or said.get("prediction") != "edm":
        what = "regression" if regression else f"{kernel}, prediction {said.get('prediction')}"
        raise ModelError(
            f"{part.path} ({what}) in a pair",
            expected="an SR3 model for the bicubic kernel, prediction edm, that makes samples",
            do="train one: sfumato train sr3",
        )
