"""Guidance by a classifier of noisy images, in the variance-exploding form.

By Tweedie's formula ``x̂_0 = x_t + σ² ∇ log p(x_t)``, and ``p(x_t | c) ∝ p(x_t) p(c | x_t)``, so
that the estimate of an image of class ``c`` is

    x̂_0 = D(x_t, σ) + w σ² ∇_{x_t} log p(c | x_t)

with ``w`` = 1; more makes images more typical. The classifier sees ``a x_t``, ``a = 1/√(1 + σ²)``,
whose gradient is ``a`` times as large: that is ``ε − √(1 − ᾱ) w ∇ log p``, algorithm 2 of
Dhariwal and Nichol 2021, arXiv 2105.05233.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final

import torch
from torch import Tensor, nn

from sfumato._typing import Images
from sfumato.diffusion.arithmetic import Precision, compute
from sfumato.diffusion.denoiser import Denoiser, time_of
from sfumato.diffusion.precondition import check_images, mirror_to_multiple, per_image
from sfumato.diffusion.schedule import sigma_of
from sfumato.errors import SettingsError


@final
class NoisyClassifier(nn.Module):
    """``log p(c | x_t)`` for images of one side, and its gradient for images of any size.

    A larger image is looked at in crops, evenly spread so that they cover it; the gradient at a
    pixel is the mean of those of the crops that it is in, as strong as in one crop. A smaller
    image is mirrored up to the side: resizing would change its noise.

    Args:
        net: ``net(x, t)`` gives logits of images (batch, 3, side, side) in the
            variance-preserving form at times (batch,).
        alpha_bar: ``ᾱ_t`` of each time, from little noise to much.
        side: of its images, in pixels.
        precision: in which the network, and nothing else, is computed.
        time_scale: the network's times are the indices times this.
    """

    def __init__(
        self,
        net: nn.Module,
        alpha_bar: Tensor,
        *,
        side: int,
        precision: Precision = "fp32",
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        # torch's stubs leave this form of `to` out.
        self.net: nn.Module = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.side = side
        self.precision: Precision = precision
        self.time_scale = time_scale
        self._log_sigma = sigma_of(alpha_bar.double().cpu()).log()

    def forward(self, x_t: Images, sigma: float | Tensor) -> Tensor:
        """Return ``log p(c | x_t)`` (batch, classes), float32, of images of its side."""
        check_images(x_t)
        s = per_image(sigma, x_t)
        exact = torch.as_tensor(sigma, dtype=torch.float64, device="cpu").reshape(-1)
        t = self.time_scale * time_of(self._log_sigma, exact).to(x_t.device, torch.float32)
        x = (x_t.float() * (1 + s.square()).rsqrt()).contiguous(memory_format=torch.channels_last)
        logits = compute(self.net, self.precision, x, t.expand(len(x)))
        log_p: Tensor = logits.log_softmax(dim=1)
        return log_p

    def gradient(self, x_t: Images, sigma: float | Tensor, label: int) -> Tensor:
        """Return ``∇_{x_t} log p(label | x_t)``, float32, of images of any size."""
        check_images(x_t)
        x = x_t.detach().float()
        height, width = x.shape[2:]
        total, n_looks = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
        for top, left in _corners(height, width, self.side):
            rows, columns = slice(top, top + self.side), slice(left, left + self.side)
            with torch.enable_grad():
                crop = x[:, :, rows, columns].clone().requires_grad_()
                log_p = self(mirror_to_multiple(crop, self.side), sigma)[:, label].sum()
                g = torch.autograd.grad(log_p, crop)[0]
            total[:, :, rows, columns] += g
            n_looks[:, :, rows, columns] += 1
        return total / n_looks

    def vote(self, crops: Iterable[Images]) -> Tensor:
        """Return the mean of ``log p(c | x)`` over clean crops of its side, one at a time.

        Raises SettingsError where there are none.
        """
        total: Tensor | None = None
        n = 0
        with torch.no_grad():
            for crop in crops:
                log_p = self(mirror_to_multiple(crop, self.side), 0.0).sum(0)
                total = log_p if total is None else total + log_p
                n += len(crop)
        if total is None:
            raise SettingsError("a vote on no image", expected="at least one crop")
        return total / n


def places(n: int, side: int, most: int | None = None) -> list[int]:
    """Return where crops of ``side`` begin on an axis of ``n``, evenly spread, to cover it.

    Of more than ``most`` only so many are taken, as evenly.

    >>> places(100, 256), places(512, 256), places(600, 256)
    ([0], [0, 256], [0, 172, 344])
    """
    k = max(1, -(-n // side))
    k = min(k, most or k)
    last = max(0, n - side)
    return [round(i * last / (k - 1)) for i in range(k)] if k > 1 else [last // 2]


def _corners(height: int, width: int, side: int) -> Iterator[tuple[int, int]]:
    for top in places(height, side):
        for left in places(width, side):
            yield top, left


@final
class ClassifierGuided:
    """``x̂_0 = D(x_t, σ) + w σ² ∇_{x_t} log p(c | x_t)``, with ``w`` = ``scale``.

    Each call looks at the image that it is given, so that each tile has the gradient of its own
    crop. The gradient is taken as a constant where others flow to ``x_t``.
    """

    def __init__(
        self, denoiser: Denoiser, classifier: NoisyClassifier, label: int, scale: float = 1.0
    ) -> None:
        self.denoiser = denoiser
        self.classifier = classifier
        self.label = label
        self.scale = scale
        #: Evaluations of the denoiser's network for one estimate.
        self.evaluations: int = getattr(denoiser, "evaluations", 1)

    def __call__(self, x_t: Images, sigma: float) -> Images:
        """Estimate ``x_0``."""
        x_0 = self.denoiser(x_t, sigma)
        if not self.scale:
            return x_0
        step = self.scale * sigma**2 * self.classifier.gradient(x_t, sigma, self.label)
        return x_0 + step.to(x_0.dtype)

    def around(self, denoiser: Denoiser) -> ClassifierGuided:
        """Return the same guidance of another denoiser."""
        return ClassifierGuided(denoiser, self.classifier, self.label, self.scale)
