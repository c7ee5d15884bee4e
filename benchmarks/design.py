"""Forms of the prior and ways to train it, compared at equal time of the processor.

    python benchmarks/design.py --data PHOTOGRAPHS --holdout OTHERS --seconds 540

Every variant is trained from nothing for as many seconds of one core (or, on a GPU, of the clock),
with a learning rate that falls to 0 at their end; PSNR of denoising the held-out crops is taken on
the way. Steps are small, a sixth of those that the prior was trained with: what a form learns in
minutes is limited by their number. Each variant differs from the first one in what its name says.
What is done is kept in ``--out`` and not done again (``--only`` in several processes, each with an
``--out`` of its own, then all of them as ``--merge``); ``--plot`` draws the curves.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.nn.unet import PixelNorm
from sfumato.training import PriorSettings
from sfumato.training.prior import PriorLesson
from sfumato.training.run import Run
from sfumato.training.validation import denoising_psnr, load_holdout

DONE = Path(__file__).parent / "design.json"
LEVELS = (0.05, 0.2, 1.0)
#: Parts of the time after which the average is measured.
MARKS = (0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)
BASE = {
    "learning_rate": 8e-4,
    "warmup_steps": 60,
    "ema_rate": 0.005,
    "wide_share": 0.12,
    "batch_pixels": 2 * 64 * 64,
    "channels": (16, 32, 64, 128, 192),
    "unshuffle": 1,
}


class Attention(nn.Module):
    """``h + W softmax(q kᵀ / √d) v``, silent at first, with four heads."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = PixelNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        b, c, height, width = h.shape
        qkv = self.qkv(self.norm(h)).flatten(2).view(b, 3, self.heads, c // self.heads, -1)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        a = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return h + self.out(a.reshape(b, c, height, width))


def with_attention(model: nn.Module) -> nn.Module:
    mid = model.get_submodule("net.mid")
    assert isinstance(mid, nn.ModuleList)
    mid.insert(1, Attention(mid[0].conv1.out_channels))
    return model


def without_last_norm(model: nn.Module) -> nn.Module:
    tail = model.get_submodule("net.tail")
    assert isinstance(tail, nn.Sequential)
    tail[0] = nn.Identity()
    return model


@dataclass(frozen=True)
class Variant:
    name: str
    changes: dict[str, object] = field(default_factory=dict)
    part: Callable[[nn.Module], nn.Module] | None = None


BASIS = "widths 16 32 64 128 192, two blocks, unshuffle 1"
VARIANTS = (
    Variant(BASIS),
    Variant("widths 32 64 128 192, unshuffle 2", {"channels": (32, 64, 128, 192), "unshuffle": 2}),
    Variant("widths 64 128 192, unshuffle 4", {"channels": (64, 128, 192), "unshuffle": 4}),
    Variant("widths 24 48 96 128 192", {"channels": (24, 48, 96, 128, 192)}),
    Variant("widths 16 32 64 160 256", {"channels": (16, 32, 64, 160, 256)}),
    Variant("one block", {"blocks": 1}),
    Variant("three blocks", {"blocks": 3}),
    Variant("four levels, 16 32 64 128", {"channels": (16, 32, 64, 128)}),
    Variant("attention at the coarsest level", part=with_attention),
    Variant("a linear path past the norms", {"linear": 32}),
    Variant(
        "widths 32 64 128 192, unshuffle 2, a linear path",
        {"channels": (32, 64, 128, 192), "unshuffle": 2, "linear": 32},
    ),
    Variant("no norm before the last layer", part=without_last_norm),
    Variant("noise as in EDM, ln σ −1.2 ± 1.2", {"log_sigma_mean": -1.2, "log_sigma_std": 1.2}),
    Variant("no noise of any level", {"wide_share": 0.0}),
    Variant("crops of 64 only", {"crop_cycle": (64,)}),
    Variant("crops of 128 only", {"crop_cycle": (128,)}),
    Variant("one size of the photographs", {"halvings": 0}),
    Variant("average ten times slower", {"ema_rate": 0.0005}),
    Variant("average four times quicker", {"ema_rate": 0.02}),
)


def train(variant: Variant, a: argparse.Namespace, crops: list[Tensor]) -> dict[str, object]:
    """Train one variant; return its curve."""
    settings = PriorSettings.of({**BASE, **variant.changes, "steps": 10**6})
    lesson = PriorLesson(settings, a.data, None, a.device)
    if variant.part:
        plain, part = lesson.model, variant.part
        lesson.model = lambda: part(plain())  # type: ignore[method-assign]
    clock = time.process_time if a.device == "cpu" else time.monotonic
    settings = settings.model_copy(update={"steps": steps_in(a, lesson, settings, clock)})
    run, curve, spent = Run(settings, lesson, torch.device(a.device)), [], 0.0
    for mark in MARKS:
        while run.step < settings.steps * mark:
            began = clock()
            run.advance()
            if run.step % 20 == 0 and a.device != "cpu":
                torch.cuda.synchronize()
            spent += clock() - began
        psnr = denoising_psnr(run.average, crops, LEVELS, device=a.device)
        curve.append({"seconds": round(spent, 1), "step": run.step, **{
            f"{level:g}": round(value, 3) for level, value in psnr.items()}})  # fmt: skip
    n = sum(p.numel() for p in run.model.parameters())
    return {"name": variant.name, "parameters": n, "curve": curve}


def steps_in(
    a: argparse.Namespace, lesson: PriorLesson, settings: PriorSettings, clock: Callable[[], float]
) -> int:
    """Return how many steps fill the time, by the pace of some."""
    run, n = Run(settings, lesson, torch.device(a.device)), 4 * len(settings.crop_cycle)
    for _ in range(n):
        run.advance()
    began = clock()
    for _ in range(n):
        run.advance()
    if a.device != "cpu":
        torch.cuda.synchronize()
    return max(20, int(a.seconds * n / (clock() - began)))


def table(done: list[dict]) -> str:
    """Return the ends of all curves, as Markdown."""
    lines = ["| variant | parameters | steps | " + " | ".join(f"σ {s:g}" for s in LEVELS) + " |"]
    lines.append("|---" * (3 + len(LEVELS)) + "|")
    for one in done:
        last = one["curve"][-1]
        values = " | ".join(f"{last[f'{s:g}']:.2f}" for s in LEVELS)
        lines.append(
            f"| {one['name']} | {one['parameters'] / 1e6:.1f} M | {last['step']} | {values} |"
        )
    return "\n".join(lines)


def plot(done: list[dict], path: Path) -> None:
    """Draw the curves of σ = 0.2 on a part of the time."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(12, 6), layout="constrained")
    axes.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    for k, one in enumerate(done):
        curve = one["curve"]
        style = {"linewidth": 2.5, "color": "black"} if k == 0 else {"linewidth": 1}
        x, y = [c["seconds"] for c in curve], [c["0.2"] for c in curve]
        axes.plot(x, y, marker=".", label=one["name"], **style)
    axes.set(xlabel="seconds of training", ylabel="dB at noise 0.2, held-out photographs")
    figure.legend(loc="outside right upper", fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def read(path: Path) -> list[dict]:
    return json.loads(path.read_text()) if path.exists() else []


def write(path: Path, done: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(done, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--holdout", required=True, type=Path)
    parser.add_argument("--seconds", type=float, default=420)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, default=128, help="of the held-out crops")
    parser.add_argument("--out", type=Path, default=DONE)
    parser.add_argument("--only", default="", help="train variants whose name holds this, or a|b")
    parser.add_argument("--merge", nargs="*", type=Path, default=[], help="take these in first")
    parser.add_argument("--plot", type=Path)
    a = parser.parse_args()
    done = []
    for path in [a.out, *a.merge]:
        done += [one for one in read(path) if one not in done]
    known, words = {(one["name"], one["budget"]) for one in done}, a.only.split("|")
    crops = load_holdout(a.holdout, side=a.side)
    for variant in VARIANTS:
        if (variant.name, a.seconds) in known or not any(w in variant.name for w in words):
            continue
        done.append({**train(variant, a, crops), "budget": a.seconds})
        write(a.out, done)
        print(done[-1]["name"], done[-1]["curve"][-1], flush=True)
    write(a.out, done)
    print(table(done))
    if a.plot:
        plot(done, a.plot)


if __name__ == "__main__":
    main()
