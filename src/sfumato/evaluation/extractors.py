"""Feature networks with all that a protocol must name: which weights, and how pictures are fed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sfumato._events import exhausted
from sfumato.errors import SettingsError
from sfumato.evaluation.measure import Picture
from sfumato.evaluation.weights import read_weights
from sfumato.metrics import Features, PooledFeatures
from sfumato.metrics.perceptual import Network, find_weights

#: How a picture gets 299 x 299 pixels: as pytorch-fid does it, or as TensorFlow 1 did.
Resize: TypeAlias = Literal["pytorch-fid", "tensorflow"]

#: Pictures that a network sees at once, and their pixels.
_BATCH, _BATCH_PIXELS = 32, 1 << 22
_8_BITS = "values rounded to 8 bits, grey as three equal channels"


@final
@dataclass(frozen=True, eq=False)
class Extractor:
    """Features of pictures (batch, 1 or 3, height, width) in [0, 1], with their protocol.

    ``name`` is the network's; ``digest`` the SHA-256 of its weights, "" if they are no file.
    ``logits``, where the network is a classifier, are made of the features.
    """

    name: str
    of: Features
    protocol: str
    digest: str = ""
    logits: Callable[[Tensor], Tensor] | None = None
    _kept: list[tuple[Sequence[Picture], Tensor]] = field(default_factory=list, repr=False)

    def vectors(self, pictures: Sequence[Picture]) -> Float[Tensor, "pictures dimensions"]:
        """Return the features of all pictures, in order, on the CPU.

        Those of the last two sequences are remembered, by identity.

        Raises SettingsError for no pictures.

        >>> e = Extractor("mean", lambda x: x.mean((2, 3)), "the mean colour")
        >>> e.vectors([torch.zeros(3, 4, 4), torch.ones(3, 2, 2)]).tolist()
        [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
        """
        return exhausted(self.reading(pictures))

    def reading(self, pictures: Sequence[Picture]) -> Generator[int, None, Tensor]:
        """Yield how many pictures are done, and return what `vectors` does."""
        for kept, vectors in self._kept:
            if kept is pictures:
                return vectors
        if not len(pictures):
            raise SettingsError("no pictures", expected="at least one")
        parts: list[Tensor] = []
        n = 0
        for batch in _batches(pictures):
            with torch.no_grad():
                parts.append(self.of(torch.stack(batch)).cpu())
            n += len(batch)
            yield n
        found = torch.cat(parts)
        self._kept[:] = [*self._kept[-1:], (pictures, found)]
        return found


def _batches(pictures: Sequence[Picture]) -> Iterator[list[Tensor]]:
    """Group neighbours of one size; each picture is asked for once."""
    batch: list[Tensor] = []
    for k in range(len(pictures)):
        x = pictures[k]
        x = x.expand(3, -1, -1)
        most = min(_BATCH, max(1, _BATCH_PIXELS // x[0].numel()))
        if batch and (batch[0].shape != x.shape or len(batch) >= most):
            yield batch
            batch = []
        batch.append(x.float())
    yield batch


def inception(path: Path, *, resize: Resize = "pytorch-fid", device: str = "cpu") -> Extractor:
    """Return the features of FID, KID and the Inception score, with the user's weights.

    ``path`` is the published ``pt_inception-2015-12-05-6726825d.pth`` (or the same tensors as
    safetensors). ``resize`` "pytorch-fid": bilinear between pixel centres, without a low-pass
    filter, then ``2 x − 1``; "tensorflow": bilinear between upper left corners, as TensorFlow 1
    (and torch-fidelity), then ``(255 x − 128) / 128``. Numbers of the two do not compare.

    Raises ModelError where the file does not hold this network.
    """
    from sfumato.io import digest, load_state
    from sfumato.nn import FIDInception

    net = FIDInception()
    load_state(net, read_weights(path, "the state dict of FID's Inception network"))
    net.to(device)

    def features(pictures: Tensor) -> Tensor:
        found: Tensor = net(fed(pictures.to(device), resize))
        return found

    how = {
        "pytorch-fid": "bilinearly between pixel centres without low-pass filter (pytorch-fid)",
        "tensorflow": "bilinearly between upper left corners (TensorFlow 1, torch-fidelity)",
    }[resize]
    sha = digest(path)
    return Extractor(
        "Inception",
        features,
        f"2048 features of the Inception network of 2015-12-05 (SHA-256 {sha[:12]}), {_8_BITS}, "
        f"resized to 299 x 299 {how}",
        sha,
        lambda vectors: net.logits(vectors.to(device)).cpu(),
    )


def fed(
    pictures: Float[Tensor, "batch channels height width"], resize: Resize
) -> Float[Tensor, "batch channels 299 299"]:
    """Return pictures in [0, 1] as Inception is fed with them, in about [-1, 1].

    >>> fed(torch.ones(1, 3, 8, 8), "tensorflow")[0, 0, 0, 0].item()
    0.9921875
    """
    from sfumato.nn.inception import SIDE

    x = (pictures.clamp(0, 1) * 255).round()
    if resize == "pytorch-fid":
        x = functional.interpolate(x / 255, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return 2 * x - 1
    for axis in (-2, -1):
        x = _by_corners(x, axis, SIDE)
    return (x - 128) / 128


def _by_corners(x: Tensor, axis: int, n: int) -> Tensor:
    """Resize an axis to ``n``: value ``i`` lies at ``i m / n`` of the ``m`` there are."""
    m = x.shape[axis]
    at = torch.arange(n, device=x.device, dtype=torch.float64) * m / n
    low = at.floor().long().clamp(max=m - 1)
    share = (at - low).to(x)
    high = (low + 1).clamp(max=m - 1)
    if axis == -2:
        share = share[:, None]
    return torch.lerp(x.index_select(axis, low), x.index_select(axis, high), share)


def pooled(network: Network) -> Extractor:
    """Return pooled features of shift-tolerant LPIPS, which need no download.

    Raises SettingsError where the package with the weights is missing.

    >>> pooled("alex").name
    'AlexNet'
    """
    from sfumato.io import digest

    features = PooledFeatures(network)
    sha = digest(find_weights(network=network))
    return Extractor(
        features.name,
        features,
        f"pooled features of shift-tolerant LPIPS's {features.name} (stlpips_pytorch 0.0.2, "
        f"SHA-256 {sha[:12]}), at the pictures' own size, grey as three equal channels",
        sha,
    )
