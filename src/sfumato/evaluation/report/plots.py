"""Plots of a run: quality over evaluations of the network and over time, a line a method."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, final

from sfumato.evaluation.measure import Measure
from sfumato.evaluation.report.drawing import COLOURS, MARKERS, figure, style
from sfumato.evaluation.report.run import Run
from sfumato.evaluation.tables import Estimate, Summary, heading
from sfumato.io import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis
    from matplotlib.figure import Figure

#: Measures of a task that are plotted, at most.
N_MEASURES = 3
#: Stands for the colour of the page's text until the SVG is done.
_INK, _QUIET = "#010203", "#040506"


@final
@dataclass(frozen=True)
class _Axis:
    label: str
    of: Callable[[Summary], float | None]


_AXES = (
    _Axis("evaluations of the network", lambda row: row.evaluations),
    _Axis("seconds for a picture", lambda row: row.seconds),
)


def write_plots(run: Run, folder: Path) -> list[Path]:
    """Write ``TASK-MEASURE.png`` for each task and its first measures; return the files.

    Raises:
        SettingsError: matplotlib is not installed.
        OutputError: the folder cannot be written.
    """
    written = []
    with style():
        for task in run.tasks:
            for m in plotted(run, task.name):
                path = folder / f"{_slug(task.name)}-{_slug(m.name)}.png"
                drawn = _draw(run, task.name, m, title=task.caption or task.name)
                with atomic_path(path) as temporary:
                    drawn.savefig(temporary, format="png", dpi=160, facecolor="white")
                written.append(path)
    return written


def svg_plots(run: Run) -> dict[str, list[str]]:
    """Return SVG documents by the names of tasks, drawn in the colour of the text around them.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    with style(_INK, _QUIET):
        return {
            task.name: [
                _svg(_draw(run, task.name, m), f"{heading(m)} over evaluations and over time")
                for m in plotted(run, task.name)
            ]
            for task in run.tasks
        }


def plotted(run: Run, task: str) -> list[Measure]:
    """Return the measures of a task that are plotted: better one way, known of two methods."""
    rows = [s for s in run.summaries if s.task == task]
    return [
        m
        for m in run.measures
        if m.better != "neither" and sum(m.name in row.values for row in rows) > 1
    ][:N_MEASURES]


def _draw(run: Run, task: str, m: Measure, *, title: str = "") -> Figure:
    rows = [row for row in run.rows(task) if m.name in row.values and not row.source]
    axes = [a for a in _AXES if any(_known(a.of(row)) for row in rows)] or [_AXES[1]]
    drawn = figure(2.2 + 3.4 * len(axes), 3.2, layout="constrained")
    panels = drawn.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        _panel(run, panel, axis, m, rows)
    panels[0].set_ylabel(heading(m))
    if title:
        drawn.suptitle(title, fontsize=10, fontweight="bold")
    marks, names = panels[-1].get_legend_handles_labels()
    drawn.legend(marks, names, loc="outside right upper", frameon=False)
    return drawn


def _panel(run: Run, panel: Axes, axis: _Axis, m: Measure, rows: Sequence[Summary]) -> None:
    known = [x for row in rows if (x := axis.of(row)) is not None and math.isfinite(x)]
    for k, (name, line) in enumerate(_lines(run, rows)):
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        places = [(axis.of(row), row.values[m.name]) for row in line]
        points = sorted(
            [(x, e) for x, e in places if x is not None and math.isfinite(x)],
            key=lambda point: point[0],
        )
        if points:
            xs, estimates = [x for x, _ in points], [e for _, e in points]
            panel.errorbar(
                xs,
                [e.mean for e in estimates],
                yerr=_bars(estimates),
                color=colour,
                marker=marker,
                markersize=5,
                linewidth=1.5,
                elinewidth=1,
                capsize=2.5,
                label=name,
            )
        else:  # it has no place on this axis: a level to compare with
            mean = line[0].values[m.name].mean
            panel.axhline(mean, color=colour, linestyle=(0, (4, 3)), linewidth=1.2, label=name)
    if known and max(known) > 10 * min(known) > 0:
        panel.set_xscale("log")
        _plain_ticks(panel.xaxis)
    elif known:
        panel.set_xlim(left=0)
    panel.set_xlabel(axis.label)


def _lines(run: Run, rows: Sequence[Summary]) -> Iterator[tuple[str, list[Summary]]]:
    lines: dict[str, list[Summary]] = {}
    for row in rows:
        lines.setdefault(run.line(row.method), []).append(row)
    for name, line in lines.items():
        yield (run.caption(line[0].method) if len(line) == 1 else name), line


def _bars(estimates: Sequence[Estimate]) -> list[list[float]]:
    return [
        [0.0 if e.low is None else e.mean - e.low for e in estimates],
        [0.0 if e.high is None else e.high - e.mean for e in estimates],
    ]


def _plain_ticks(axis: XAxis) -> None:
    """Write 1, 10, 100 instead of powers, also between the decades where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _svg(drawn: Figure, label: str) -> str:
    """Return an SVG document that takes the colour of the text around it, and is read aloud."""
    text = io.StringIO()
    drawn.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    found = text.getvalue()
    found = found[found.index("<svg") :]
    found = re.sub(r"<metadata>.*?</metadata>", "", found, flags=re.DOTALL)
    found = found.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    return found.replace(_INK, "currentColor").replace(_QUIET, "currentColor")


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _slug(name: str) -> str:
    """Return a name that is safe for a file.

    >>> _slug("FID (own network)")
    'FID-own-network'
    """
    return re.sub(r"[^\w.-]+", "-", name).strip("-")
