"""ResNet with bottlenecks, the classifier of 50, 101 or 152 layers that tables of errors name.

Names of weights are those of torchvision's state dicts, which load as they are; the form is read
off their names and shapes. The stride of a block is in its 3 x 3 convolution, as there.

Reference: He et al., "Deep residual learning for image recognition", arXiv 1512.03385, table 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sfumato.errors import ModelError
from sfumato.nn.norm import FrozenNorm

#: Of the output of a block to the width within it.
_EXPANSION = 4
_EPS = 1e-5
_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.conv3\.weight")


@final
@dataclass(frozen=True)
class ResNetConfig:
    """How many blocks the four stages have, how wide the first is, and how many classes there are.

    >>> sum(ResNetConfig().blocks) * 3 + 2
    50
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    n_classes: int = 1000

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]]) -> ResNetConfig:
        """Read the form off the names and shapes of a state dict.

        Raises ModelError where it is none of a ResNet with bottlenecks.
        """
        found = [m.groups() for m in map(_BLOCK.fullmatch, shapes) if m]
        counts = [max((int(k) + 1 for s, k in found if s == stage), default=0) for stage in "1234"]
        first, last = shapes.get("conv1.weight", ()), shapes.get("fc.weight", ())
        if min(counts) < 1 or max(counts) > len(found) or len(first) != 4 or len(last) != 2:
            raise ModelError(
                "weights of no ResNet with bottlenecks",
                expected="torchvision's names: conv1, bn1, layer1 to layer4, fc",
                do="give the state dict of a ResNet-50, 101 or 152",
            )
        return cls(tuple(counts), first[0], last[0])


@final
class _Bottleneck(nn.Module):
    """``relu(shortcut(x) + norm(conv1x1(conv3x3(conv1x1(x)))))``."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = _EXPANSION * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = FrozenNorm(width, _EPS)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = FrozenNorm(width, _EPS)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = FrozenNorm(out, _EPS)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), FrozenNorm(out, _EPS)
            )

    def forward(self, x: Tensor) -> Tensor:
        u = functional.relu(self.bn1(self.conv1(x)))
        u = functional.relu(self.bn2(self.conv2(u)))
        return functional.relu(self.bn3(self.conv3(u)) + self.downsample(x))


@final
class ResNet(nn.Module):
    """Pictures to the logits of classes.

    It is never trained: normalisation is by the stored statistics.

    >>> net = ResNet(ResNetConfig())
    >>> sum(t.numel() for name, t in net.state_dict().items() if "running" not in name)
    25557032
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        width = config.width
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = FrozenNorm(width, _EPS)
        channels = width
        for k, n in enumerate(config.blocks):
            inner = width << k
            blocks = [
                _Bottleneck(
                    channels if i == 0 else _EXPANSION * inner, inner, 2 if i == 0 and k else 1
                )
                for i in range(n)
            ]
            self.add_module(f"layer{k + 1}", nn.Sequential(*blocks))
            channels = _EXPANSION * inner
        self.fc = nn.Linear(channels, config.n_classes)
        self.requires_grad_(False)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of pictures that are already normalised, of 224 x 224 pixels."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for k in range(1, 5):
            x = self.get_submodule(f"layer{k}")(x)
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits
