"""Measures of one result by the user's networks: LPIPS, and the errors of a classifier."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sfumato.errors import ImageError, SettingsError
from sfumato.evaluation.measure import Measure, Shown
from sfumato.evaluation.measures import checked, compared
from sfumato.evaluation.weights import read_weights
from sfumato.metrics import LPIPS
from sfumato.metrics.perceptual import Network

#: Means and deviations of ImageNet's red, green and blue, by which torchvision's weights are fed.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SHORT, _SIDE = 256, 224
_TITLES = {"alex": "AlexNet", "vgg": "VGG-16"}


def lpips(trunk: Path, heads: Path) -> Measure:
    """Return LPIPS 0.1 by a trunk of torchvision's and the published heads.

    Which trunk it is, is told by the names of its tensors.

    Raises ModelError where the files do not hold them.
    """
    from sfumato.io import digest

    of_trunk = read_weights(trunk, "torchvision's AlexNet or VGG-16")
    of_heads = read_weights(heads, "the heads of LPIPS 0.1 (alex.pth, vgg.pth)")
    network: Network = "vgg" if "features.28.weight" in of_trunk else "alex"
    distance = LPIPS(of_trunk, of_heads, network=network)
    shas = ", ".join(digest(path)[:12] for path in (trunk, heads))
    return Measure(
        name=f"LPIPS ({_TITLES[network]})",
        of=lambda s: compared(lambda a, b, _: distance(a.float(), b.float()))(checked(s), 0),
        protocol=f"LPIPS version 0.1 with linear heads, {_TITLES[network]} (SHA-256 {shas}), at "
        "the pictures' own size, grey as three equal channels",
        better="lower",
        digits=4,
        bytes_per_pixel=2300 if network == "vgg" else 520,
    )


def classification(path: Path, *, device: str = "cpu") -> tuple[Measure, Measure]:
    """Return the top-1 and top-5 errors of the user's ResNet, which need labels.

    Raises ModelError where the file does not hold a ResNet with bottlenecks.
    """
    from sfumato.io import digest, load_state
    from sfumato.nn import ResNet, ResNetConfig

    tensors = read_weights(path, "torchvision's ResNet-50, 101 or 152")
    config = ResNetConfig.of({name: tuple(t.shape) for name, t in tensors.items()})
    net = ResNet(config)
    load_state(net, tensors)
    net.to(device)
    kept: list[tuple[Tensor, list[int]]] = []

    def ranked(shown: Shown) -> list[int]:
        if not kept or kept[0][0] is not shown.result:
            with torch.no_grad():
                logits = net(normalised(checked(shown).result.to(device)))[0]
            kept[:] = [(shown.result, logits.topk(min(5, len(logits))).indices.tolist())]
        return kept[0][1]

    def error(shown: Shown, k: int) -> float:
        if shown.label is None or not 0 <= shown.label < config.n_classes:
            raise SettingsError(
                f"the label {shown.label}", expected=f"a class from 0 to {config.n_classes - 1}"
            )
        return float(shown.label not in ranked(shown)[:k])

    layers = 3 * sum(config.blocks) + 2
    how = (
        f"share of results whose class is not among the first {{}} of ResNet-{layers} (SHA-256 "
        f"{digest(path)[:12]}); shorter side resized to {_SHORT} (antialiased bilinear), centre "
        f"of {_SIDE} x {_SIDE}; how published tables cropped is not always told"
    )
    one, five = (
        Measure(
            name=f"top-{k} error",
            of=lambda shown, k=k: error(shown, k),  # type: ignore[misc]
            protocol=how.format(k),
            better="lower",
            digits=3,
            needs=frozenset({"label"}),
        )
        for k in (1, 5)
    )
    return one, five


def normalised(
    picture: Float[Tensor, "channels height width"],
) -> Float[Tensor, "1 3 side side"]:
    """Return a picture in [0, 1] as torchvision's classifiers are fed with it.

    >>> normalised(torch.zeros(1, 300, 400)).shape
    torch.Size([1, 3, 224, 224])
    """
    x = picture.float().expand(1, 3, -1, -1)
    short = min(x.shape[-2:])
    if short != _SHORT:
        size = [_SHORT * n // short for n in x.shape[-2:]]
        x = functional.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
    top, left = (round((n - _SIDE) / 2) for n in x.shape[-2:])
    x = x[..., top : top + _SIDE, left : left + _SIDE]
    mean, deviation = (x.new_tensor(v).view(3, 1, 1) for v in (MEAN, DEVIATION))
    return (x - mean) / deviation


def read_labels(path: Path) -> dict[str, int]:
    """Read ``name,class`` lines: names of files, with or without their ending, and whole numbers.

    A first line whose class is no number is a heading. Raises ImageError for what is no such list.
    """
    labels: dict[str, int] = {}
    try:
        rows = list(csv.reader(path.read_text("utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImageError(f"the labels {path} cannot be read: {error}") from error
    for k, row in enumerate(rows):
        if not row or (k == 0 and len(row) == 2 and not row[1].strip().isdigit()):
            continue
        if len(row) != 2 or not row[1].strip().isdigit():
            raise ImageError(
                f"{path}, line {k + 1}: {','.join(row)}", expected="name,number of the class"
            )
        labels[_key(row[0].strip())] = int(row[1])
    return labels


def label_of(name: str, labels: dict[str, int]) -> int:
    """Return the class of a picture by its name; raises ImageError where it has none."""
    for key in (name, name.rpartition("/")[2]):
        if key in labels:
            return labels[key]
    raise ImageError(f"{name} has no label", expected=f"one of {len(labels)} in the list")


def labels_of_folders(names: Sequence[str]) -> dict[str, int]:
    """Return the classes by the folders that pictures lie in, whose names are whole numbers.

    Other names say no class unless all classes are there: sorted, 1000 of them are ImageNet's.

    >>> labels_of_folders(["3/a", "12/b"])
    {'3/a': 3, '12/b': 12}
    """
    folders = sorted({name.rpartition("/")[0].rpartition("/")[2] for name in names})
    if all(f.isascii() and f.isdigit() for f in folders):
        numbers = {f: int(f) for f in folders}
    elif len(folders) == 1000:
        numbers = {f: k for k, f in enumerate(folders)}
    else:
        raise SettingsError(
            f"{len(folders)} folders ({', '.join(folders[:3])}, …) as classes",
            expected="numbers for names, or all 1000 of ImageNet",
            do="give --labels, a list of name,number",
        )
    return {name: numbers[name.rpartition("/")[0].rpartition("/")[2]] for name in names}


def _key(name: str) -> str:
    from sfumato.io._formats import FORMATS

    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in FORMATS else name
