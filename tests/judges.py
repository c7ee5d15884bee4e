"""The published networks that measures are defined by, once more: formulas of tensors by name.

Each makes its tensors when it first runs, of random values, in the published layout.
"""

import torch
from torch.nn import functional


class Judge:
    """``state`` fills up while ``run`` is called for the first time."""

    eps = 1e-5

    def __init__(self, seed=0):
        self.state = {}
        self._random = torch.Generator().manual_seed(seed)

    def tensor(self, name, *shape, low=None, scale=1.0):
        if name not in self.state:
            value = torch.randn(shape, generator=self._random) * scale
            self.state[name] = value if low is None else value.abs() + low
        return self.state[name]

    def weight(self, name, *shape):
        fan = shape[1] * (shape[2] * shape[3] if len(shape) == 4 else 1)
        return self.tensor(name, *shape, scale=(2 / fan) ** 0.5)

    def norm(self, name, x):
        c = x.shape[1]
        w = self.tensor(f"{name}.weight", c, low=0.5, scale=0.2)
        b = self.tensor(f"{name}.bias", c, scale=0.1)
        m = self.tensor(f"{name}.running_mean", c, scale=0.1)
        v = self.tensor(f"{name}.running_var", c, low=0.5, scale=0.5)
        w, b, m, v = (t.view(1, -1, 1, 1) for t in (w, b, m, v))
        return (x - m) / (v + self.eps).sqrt() * w + b


class PublishedInception(Judge):
    """Features (batch, 2048) of pictures in [-1, 1]."""

    eps = 1e-3

    def conv(self, name, x, out, size, stride=1, padding=(0, 0)):
        w = self.weight(f"{name}.conv.weight", out, x.shape[1], *size)
        y = functional.conv2d(x, w, stride=stride, padding=padding)
        return self.norm(f"{name}.bn", y).clamp(min=0)

    def run(self, x):
        x = self.conv("Conv2d_1a_3x3", x, 32, (3, 3), stride=2)
        x = self.conv("Conv2d_2a_3x3", x, 32, (3, 3))
        x = self.conv("Conv2d_2b_3x3", x, 64, (3, 3), padding=(1, 1))
        x = functional.max_pool2d(x, 3, 2)
        x = self.conv("Conv2d_3b_1x1", x, 80, (1, 1))
        x = self.conv("Conv2d_4a_3x3", x, 192, (3, 3))
        x = functional.max_pool2d(x, 3, 2)
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = self.a(name, x, pooled)
        x = self.b("Mixed_6a", x)
        for name, inner in (
            ("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)
        ):  # fmt: skip
            x = self.c(name, x, inner)
        x = self.d("Mixed_7a", x)
        x = self.e("Mixed_7b", x, self.mean)
        x = self.e("Mixed_7c", x, lambda t: functional.max_pool2d(t, 3, 1, 1))
        self.weight("fc.weight", 1008, 2048)
        self.tensor("fc.bias", 1008)
        return x.flatten(2).sum(2) / x[0, 0].numel()

    @staticmethod
    def mean(x):
        """Sums over 3 x 3, by how many of the nine lie inside."""
        ones = torch.ones(x.shape[1], 1, 3, 3)
        total = functional.conv2d(x, ones, padding=1, groups=x.shape[1])
        count = functional.conv2d(torch.ones_like(x[:, :1]), ones[:1], padding=1)
        return total / count

    def a(self, n, x, pooled):
        five = self.conv(f"{n}.branch5x5_1", x, 48, (1, 1))
        five = self.conv(f"{n}.branch5x5_2", five, 64, (5, 5), padding=(2, 2))
        double = self.conv(f"{n}.branch3x3dbl_1", x, 64, (1, 1))
        double = self.conv(f"{n}.branch3x3dbl_2", double, 96, (3, 3), padding=(1, 1))
        double = self.conv(f"{n}.branch3x3dbl_3", double, 96, (3, 3), padding=(1, 1))
        one = self.conv(f"{n}.branch1x1", x, 64, (1, 1))
        last = self.conv(f"{n}.branch_pool", self.mean(x), pooled, (1, 1))
        return torch.cat([one, five, double, last], 1)

    def b(self, n, x):
        three = self.conv(f"{n}.branch3x3", x, 384, (3, 3), stride=2)
        double = self.conv(f"{n}.branch3x3dbl_1", x, 64, (1, 1))
        double = self.conv(f"{n}.branch3x3dbl_2", double, 96, (3, 3), padding=(1, 1))
        double = self.conv(f"{n}.branch3x3dbl_3", double, 96, (3, 3), stride=2)
        return torch.cat([three, double, functional.max_pool2d(x, 3, 2)], 1)

    def c(self, n, x, inner):
        wide, high = {"size": (1, 7), "padding": (0, 3)}, {"size": (7, 1), "padding": (3, 0)}
        seven = self.conv(f"{n}.branch7x7_1", x, inner, (1, 1))
        seven = self.conv(f"{n}.branch7x7_2", seven, inner, **wide)
        seven = self.conv(f"{n}.branch7x7_3", seven, 192, **high)
        double = self.conv(f"{n}.branch7x7dbl_1", x, inner, (1, 1))
        for k, (out, form) in enumerate(
            [(inner, high), (inner, wide), (inner, high), (192, wide)], 2
        ):
            double = self.conv(f"{n}.branch7x7dbl_{k}", double, out, **form)
        one = self.conv(f"{n}.branch1x1", x, 192, (1, 1))
        last = self.conv(f"{n}.branch_pool", self.mean(x), 192, (1, 1))
        return torch.cat([one, seven, double, last], 1)

    def d(self, n, x):
        three = self.conv(f"{n}.branch3x3_1", x, 192, (1, 1))
        three = self.conv(f"{n}.branch3x3_2", three, 320, (3, 3), stride=2)
        seven = self.conv(f"{n}.branch7x7x3_1", x, 192, (1, 1))
        seven = self.conv(f"{n}.branch7x7x3_2", seven, 192, (1, 7), padding=(0, 3))
        seven = self.conv(f"{n}.branch7x7x3_3", seven, 192, (7, 1), padding=(3, 0))
        seven = self.conv(f"{n}.branch7x7x3_4", seven, 192, (3, 3), stride=2)
        return torch.cat([three, seven, functional.max_pool2d(x, 3, 2)], 1)

    def e(self, n, x, pool):
        def both(name, t, a, b):
            left = self.conv(f"{n}.{name}_{a}", t, 384, (1, 3), padding=(0, 1))
            right = self.conv(f"{n}.{name}_{b}", t, 384, (3, 1), padding=(1, 0))
            return [left, right]

        three = self.conv(f"{n}.branch3x3_1", x, 384, (1, 1))
        double = self.conv(f"{n}.branch3x3dbl_1", x, 448, (1, 1))
        double = self.conv(f"{n}.branch3x3dbl_2", double, 384, (3, 3), padding=(1, 1))
        one = self.conv(f"{n}.branch1x1", x, 320, (1, 1))
        last = self.conv(f"{n}.branch_pool", pool(x), 192, (1, 1))
        parts = [*both("branch3x3", three, "2a", "2b"), *both("branch3x3dbl", double, "3a", "3b")]
        return torch.cat([one, *parts, last], 1)


class PublishedResNet(Judge):
    """Logits of a ResNet with bottlenecks; ``width`` is 64 in those that are published."""

    def __init__(self, blocks=(3, 4, 6, 3), width=64, classes=1000, seed=0):
        super().__init__(seed)
        self.blocks, self.width, self.classes = blocks, width, classes

    def conv(self, name, x, out, size, stride=1):
        w = self.weight(f"{name}.weight", out, x.shape[1], size, size)
        return functional.conv2d(x, w, stride=stride, padding=size // 2)

    def block(self, name, x, inner, stride):
        y = self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x, inner, 1)).clamp(min=0)
        y = self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", y, inner, 3, stride)).clamp(min=0)
        y = self.norm(f"{name}.bn3", self.conv(f"{name}.conv3", y, 4 * inner, 1))
        if y.shape != x.shape:
            x = self.conv(f"{name}.downsample.0", x, 4 * inner, 1, stride)
            x = self.norm(f"{name}.downsample.1", x)
        return (x + y).clamp(min=0)

    def run(self, x):
        x = self.norm("bn1", self.conv("conv1", x, self.width, 7, 2)).clamp(min=0)
        x = functional.max_pool2d(x, 3, 2, 1)
        for stage, n in enumerate(self.blocks):
            for k in range(n):
                stride = 2 if stage and not k else 1
                x = self.block(f"layer{stage + 1}.{k}", x, self.width << stage, stride)
        w = self.weight("fc.weight", self.classes, x.shape[1])
        return x.flatten(2).mean(2) @ w.T + self.tensor("fc.bias", self.classes, scale=0.1)


TRUNKS = {
    "alex": {
        "features.0": (64, 3, 11), "features.3": (192, 64, 5), "features.6": (384, 192, 3),
        "features.8": (256, 384, 3), "features.10": (256, 256, 3),
    },
    "vgg": {
        "features.0": (64, 3, 3), "features.2": (64, 64, 3), "features.5": (128, 64, 3),
        "features.7": (128, 128, 3), "features.10": (256, 128, 3),
        "features.12": (256, 256, 3), "features.14": (256, 256, 3),
        "features.17": (512, 256, 3), "features.19": (512, 512, 3),
        "features.21": (512, 512, 3), "features.24": (512, 512, 3),
        "features.26": (512, 512, 3), "features.28": (512, 512, 3),
    },
}  # fmt: skip


class PublishedTrunk(Judge):
    """torchvision's AlexNet or VGG-16 up to their last convolutions, as modules and as tensors."""

    def __init__(self, network, seed=0):
        super().__init__(seed)
        self.network = network
        for name, (out, into, side) in TRUNKS[network].items():
            self.weight(f"{name}.weight", out, into, side, side)
            self.tensor(f"{name}.bias", out, scale=0.1)

    def modules(self):
        """``features`` as torchvision builds it, by its documented layers."""
        layers = self._alex() if self.network == "alex" else self._vgg()
        features = torch.nn.Sequential(*layers)
        own = {k.removeprefix("features."): v for k, v in self.state.items()}
        features.load_state_dict(own)
        return features

    @staticmethod
    def _alex():
        conv, pool = torch.nn.Conv2d, torch.nn.MaxPool2d

        def relu():
            return torch.nn.ReLU(inplace=False)

        return [
            conv(3, 64, 11, 4, 2), relu(), pool(3, 2), conv(64, 192, 5, 1, 2), relu(), pool(3, 2),
            conv(192, 384, 3, 1, 1), relu(), conv(384, 256, 3, 1, 1), relu(),
            conv(256, 256, 3, 1, 1), relu(), pool(3, 2),
        ]  # fmt: skip

    @staticmethod
    def _vgg():
        layers, channels = [], 3
        for out, n in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(n):
                layers += [torch.nn.Conv2d(channels, out, 3, 1, 1), torch.nn.ReLU()]
                channels = out
            layers.append(torch.nn.MaxPool2d(2, 2))
        return layers
