"""What more training brings: the validation of runs that went on from one another, in one figure.

    python benchmarks/curves.py runs/prior runs/prior-2 runs/prior-3 --out curves.png

Each run's ``log.csv`` has a row for each validation; its hours are put behind those of the runs
before it. One panel for each noise level.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

PREFIX = "dB at noise "


@dataclass(frozen=True)
class Curve:
    """The validations of one run: hours since the first run began, and dB by noise level."""

    name: str
    hours: list[float]
    values: dict[str, list[float]]


def curve_of(run: Path, before: float) -> Curve:
    """Read a run that began after ``before`` hours."""
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    levels = [name for name in rows[0] if name.startswith(PREFIX)]
    validated = [row for row in rows if levels and row[levels[0]]]
    hours = [before + float(row["seconds"]) / 3600 for row in validated]
    values = {name: [float(row[name]) for row in validated] for name in levels}
    return Curve(run.name, hours, values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--before", type=float, default=0.0, help="hours before the first run")
    parser.add_argument("--out", type=Path, default=Path("curves.png"))
    a = parser.parse_args()
    import matplotlib.pyplot as plt

    curves, hours = [], a.before
    for run in a.runs:
        curves.append(curve_of(run, hours))
        hours = curves[-1].hours[-1]
    levels = list(curves[0].values)
    figure, axes = plt.subplots(
        1, len(levels), figsize=(3.2 * len(levels), 3.4), layout="constrained", squeeze=False
    )
    for ax, level in zip(axes[0], levels, strict=True):
        for curve in curves:
            ax.plot(curve.hours, curve.values[level], marker=".", label=curve.name)
        ax.set(title=level, xlabel="hours")
        ax.grid(alpha=0.3)
    axes[0][0].legend()
    figure.savefig(a.out, dpi=90)
    for curve in curves:
        print(curve.name, f"{curve.hours[-1]:.2f} h", {k: v[-1] for k, v in curve.values.items()})


if __name__ == "__main__":
    main()
