"""The table of a task as HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from sfumato.evaluation.measure import Measure
from sfumato.evaluation.report.run import Run
from sfumato.evaluation.tables import Estimate, Summary, heading


def table(run: Run, task: str) -> str:
    """Return means with their 95 % intervals, a row for each method; ours, then published ones.

    The best of ours is bold. What was not done is told below, and where published numbers are
    from.
    """
    rows = run.rows(task)
    done = [row for row in rows if not row.refused]
    shown = [m for m in run.measures if any(m.name in row.values for row in done)]
    counts = any(row.evaluations is not None for row in done)
    timed = any(row.seconds is not None for row in done)
    best = {m.name: _best(done, m) for m in shown}
    sources = list(dict.fromkeys(row.source for row in done if row.source))
    heads = [_heading(m) for m in shown]
    heads += ["evaluations"] * counts + ["seconds"] * timed
    lines = [
        '<div class="scroll"><table><thead><tr><th scope="col">method</th>'
        + "".join(f'<th scope="col">{head}</th>' for head in heads)
        + "</tr></thead><tbody>"
    ]
    for row in done:
        cells = [_cell(row.values.get(m.name), m, best[m.name], row) for m in shown]
        cells += [_plain(row.evaluations, 0)] * counts + [_plain(row.seconds, 1)] * timed
        mark = f" <sup>{sources.index(row.source) + 1}</sup>" if row.source else ""
        name = row.method if row.source else run.caption(row.method)
        kind = ' class="theirs"' if row.source else ""
        lines.append(
            f'<tr{kind}><th scope="row">{escape(name)}{mark}</th>'
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
        )
    lines.append("</tbody></table></div>")
    lines += [
        f'<p class="note"><sup>{k}</sup> Published: {escape(source)}</p>'
        for k, source in enumerate(sources, 1)
    ]
    return "\n".join(lines + _not_done(run, task))


def _heading(m: Measure) -> str:
    text = heading(m)
    arrow = {"higher": " ↑", "lower": " ↓"}.get(m.better, "")
    said = {"higher": "higher is better", "lower": "lower is better"}.get(m.better, "")
    name = escape(text.removesuffix(arrow))
    return f'{name} <span class="dir" title="{said}">{arrow.strip()}</span>' if arrow else name


def _best(rows: Sequence[Summary], m: Measure) -> float:
    own = [row.values[m.name].mean for row in rows if m.name in row.values and not row.source]
    if m.better == "neither" or len({_plain(value, m.digits) for value in own}) < 2:
        return math.nan
    return max(own) if m.better == "higher" else min(own)


def _cell(found: Estimate | None, m: Measure, best: float, row: Summary) -> str:
    if found is None:
        return "\N{EN DASH}"
    text = _plain(found.mean, m.digits)
    if not row.source and text == _plain(best, m.digits):
        text = f'<span class="best">{text}</span>'
    if found.low is not None and found.high is not None:
        low, high = (_plain(v, m.digits) for v in (found.low, found.high))
        text += f'<span class="span">{low} to {high}</span>'
    if row.n and found.n != row.n:
        text += f'<span class="span">of {found.n} pictures</span>'
    return text


def _plain(value: float | None, digits: int) -> str:
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    return f"{value:.{digits}f}" if math.isfinite(value) else "∞"


def _not_done(run: Run, task: str) -> list[str]:
    refused: dict[tuple[str, str], list[str]] = {}
    for record in run.records:
        if record.task == task and record.refused:
            refused.setdefault((record.method, record.refused), []).append(record.picture)
    n = len(run.pictures(task))
    lines = [
        f"<li>{escape(run.caption(method))}"
        + ("" if len(pictures) == n else f", {escape(', '.join(sorted(pictures)))}")
        + f": {escape(why)}</li>"
        for (method, why), pictures in refused.items()
    ]
    return [f'<div class="note">Not done:<ul>{"".join(lines)}</ul></div>'] if lines else []
