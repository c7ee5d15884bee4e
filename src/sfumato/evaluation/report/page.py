"""One page that holds a whole comparison: tables, plots, and pictures that zoom together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import final

from sfumato._version import __version__
from sfumato.errors import SettingsError
from sfumato.evaluation.measure import Measure
from sfumato.evaluation.record import Record
from sfumato.evaluation.report.embed import LADDER, SMALL, Embedded, Encoding, embed, size_of
from sfumato.evaluation.report.rows import table
from sfumato.evaluation.report.run import Run, Task
from sfumato.evaluation.tables import RESAMPLES, heading
from sfumato.io import atomic_path

#: Measures that are shown under a picture; the rest are a click away.
_FIRST = 3
_MARK = re.compile(r"@@(p\d+)@@")
_ENCODING = "@@@encoding@@@"


@final
@dataclass(frozen=True)
class Page:
    """A page that was written: how large it is, and how its pictures are stored."""

    path: Path
    size_bytes: int
    pictures: int
    encoding: Encoding


def write_page(
    run: Run,
    output: Path,
    *,
    max_mb: float = 30.0,
    plots: Mapping[str, Sequence[str]] | None = None,
) -> Page:
    """Write a comparison as one HTML file that asks the network for nothing.

    Args:
        run: what is shown.
        output: the file.
        max_mb: how large it may be, in megabytes of 10^6 bytes. Pictures are exact if they fit so;
            if not, the page says what was done to them.
        plots: SVG documents by the names of tasks.

    Raises:
        SettingsError: it does not fit whatever is done.
        OutputError: the file cannot be written.
    """
    writer = _Writer(run, plots or {})
    page = writer.page()
    longest = max(len(encoding.words) for encoding in LADDER)
    spare = round(max_mb * 1e6) - len(page.encode()) - 2 * longest - 400
    if spare <= 0:
        raise SettingsError(
            f"--max-mb {max_mb:g}", expected=f"more than {len(page.encode()) / 1e6:.1f}"
        )
    embedded = embed(writer.pictures, spare)
    page = page.replace(_ENCODING, escape(_words(embedded)))
    text = _MARK.sub(lambda found: embedded.addresses[found[1]], page)
    with atomic_path(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Page(output, len(text.encode()), len(writer.pictures), embedded.encoding)


@final
class _Writer:
    """Writes a page with marks in place of pictures, and remembers which those are."""

    def __init__(self, run: Run, plots: Mapping[str, Sequence[str]]) -> None:
        self.pictures: dict[str, Path] = {}
        self._keys: dict[Path, str] = {}
        self._run, self._plots = run, plots

    def page(self) -> str:
        """Return the page."""
        run = self._run
        parts = files("sfumato.evaluation.report") / "page"
        names = ("report.html", "report.css", "report.js")
        html, style, script = ((parts / name).read_text(encoding="utf-8") for name in names)
        content = "\n".join(self._task(task) for task in run.tasks if run.pictures(task.name))
        return Template(html).substitute(
            title=escape(run.title),
            cell=_cell_width(run),
            style=style,
            script=script,
            lead=self._lead(),
            nav=self._nav(),
            content=content,
            protocol=self._protocol(),
        )

    def _lead(self) -> str:
        run = self._run
        n_pictures = len({r.picture for r in run.records})
        counts = ", ".join((
            _many(len(run.tasks), "task"),
            _many(len(run.methods), "method"),
            _many(n_pictures, "picture"),
        ))  # fmt: skip
        made = f"sfumato {escape(run.version or __version__)}"
        return f"{counts}; {made}. Pictures on this page are {_ENCODING}."

    def _nav(self) -> str:
        links = [(f"task-{t.name}", t.caption or t.name) for t in self._run.tasks]
        links.append(("protocol", "How it is measured"))
        return (
            '<nav aria-label="Contents">'
            + "".join(f'<a href="#{escape(at)}">{escape(text)}</a>' for at, text in links)
            + "</nav>"
        )

    def _task(self, task: Task) -> str:
        run, at = self._run, escape(f"task-{task.name}")
        parts = [
            f'<section aria-labelledby="{at}">',
            f'<h2 id="{at}">{escape(task.caption or task.name)}</h2>',
        ]
        if task.degradation:
            parts.append(f'<p class="note"><code>{escape(task.degradation)}</code></p>')
        parts.append(table(run, task.name))
        if plots := self._plots.get(task.name):
            figures = "".join(f"<figure>{svg}</figure>" for svg in plots)
            parts.append(f'<div class="plots">{figures}</div>')
        parts.append("<h3>Pictures</h3>")
        parts += self._rows(task.name)
        parts.append("</section>")
        return "\n".join(parts)

    def _rows(self, task: str) -> Iterator[str]:
        run, places = self._run, self._run.by_place(task)
        for picture in run.pictures(task):
            records = [places.get((picture, method.name)) for method in run.methods]
            reference, given = run.reference(picture), run.input(task, picture)
            results = [run.result(task, method.name, picture) for method in run.methods]
            shown = next((p for p in (reference, *results, given) if p), None)
            if shown is None:
                continue
            height, width = size_of(shown)
            best = _best(run.measures, [r for r in records if r])
            cells = []
            if given:
                cells.append(self._cell(given, picture, "input", "input", shown))
            for method, record, path in zip(run.methods, records, results, strict=True):
                name = run.caption(method.name)
                if record is None:
                    continue
                if path is None or record.refused:
                    why = record.refused or "its file is not there"
                    cells.append(_nothing(name, why))
                    continue
                values = _values(run.measures, record, best)
                cells.append(self._cell(path, picture, name, "method", shown, values=values))
            if reference:
                cells.append(self._cell(reference, picture, "reference", "reference", shown))
            yield (
                f'<div class="row" role="group" tabindex="0" data-picture="{escape(picture)}" '
                f'aria-label="{escape(picture)}: Enter shows it large, plus and minus zoom" '
                f'style="--ratio:{width / height:.5f}">\n'
                f"<h4>{escape(picture)} <span>{width} × {height}</span></h4>\n"
                f'<div class="cells">{"".join(cells)}</div></div>'
            )

    def _cell(
        self,
        path: Path,
        picture: str,
        name: str,
        kind: str,
        like: Path,
        *,
        values: Sequence[tuple[Measure, str, bool]] = (),
    ) -> str:
        """Return a picture with its name and its numbers; ``like`` is the size of the row."""
        height, width = size_of(path)
        same = " data-same" if size_of(like) == (height, width) else ""
        told = "; ".join(f"{m.name} {text}{_unit(m)}" for m, text, _ in values)
        image = (
            f'<img {self._source(path)} width="{width}" height="{height}" decoding="async" '
            f'loading="lazy" alt="{escape(picture)}, {escape(name)}">'
        )
        return (
            f'<figure class="cell" data-kind="{kind}" data-name="{escape(name)}"'
            f'{same} data-values="{escape(told)}"><div class="stage">{image}</div>'
            f'<figcaption><b title="{escape(name)}">{escape(name)}</b>{_numbers(values)}'
            "</figcaption></figure>"
        )

    def _source(self, path: Path) -> str:
        """Return where an image is from: itself, or one that was on the page before."""
        key = self._keys.get(path)
        if key:
            return f'data-same="{key}"'
        key = self._keys[path] = f"p{len(self._keys)}"
        self.pictures[key] = path
        return f'id="{key}" src="@@{key}@@"'

    def _protocol(self) -> str:
        run = self._run
        had = {name for s in run.summaries for name in s.values}
        lines = [
            f"<dt>{escape(heading(m))}</dt><dd>{escape(m.protocol)}</dd>"
            for m in run.measures
            if m.name in had
        ]
        lines.append(
            "<dt>Intervals</dt><dd>95 % percentile bootstrap of the mean over pictures, "
            f"{RESAMPLES} resamples; they speak of other pictures of the same kind.</dd>"
            "<dt>Pictures on this page</dt><dd>"
            f"{_ENCODING}. Numbers were measured on the files, not on these.</dd>"
        )
        notes = "".join(f'<p class="note">{escape(note)}</p>' for note in run.notes)
        return f"{notes}<dl>{''.join(lines)}</dl>"


def _best(measures: Sequence[Measure], records: Sequence[Record]) -> Mapping[str, float]:
    """Return the best number of each measure at one picture."""
    found = {}
    for m in measures:
        known = [r.values[m.name] for r in records if m.name in r.values]
        own = [value for value in known if not math.isnan(value)]
        if m.better != "neither" and len(set(own)) > 1:
            found[m.name] = max(own) if m.better == "higher" else min(own)
    return found


def _values(
    measures: Sequence[Measure], record: Record, best: Mapping[str, float]
) -> list[tuple[Measure, str, bool]]:
    """Return what is known of one result: measure, number, and whether it is the best."""
    found = []
    for m in measures:
        value = record.values.get(m.name)
        if value is not None and not math.isnan(value):
            found.append((m, f"{value:.{m.digits}f}", best.get(m.name) == value))
    return found


def _numbers(values: Sequence[tuple[Measure, str, bool]]) -> str:
    def listed(part: Sequence[tuple[Measure, str, bool]]) -> str:
        lines = [
            f"<dt>{escape(m.name)}</dt><dd{' class=best' if best else ''}>{text}"
            f"{escape(_unit(m))}</dd>"
            for m, text, best in part
        ]
        return f'<dl class="values">{"".join(lines)}</dl>' if lines else ""

    more = listed(values[_FIRST:])
    return listed(values[:_FIRST]) + (
        f"<details><summary>more</summary>{more}</details>" if more else ""
    )


def _nothing(name: str, why: str) -> str:
    return (
        f'<figure class="cell"><div class="stage none">{escape(why)}</div>'
        f'<figcaption><b title="{escape(name)}">{escape(name)}</b></figcaption></figure>'
    )


def _words(embedded: Embedded) -> str:
    encoding = embedded.encoding
    small = "" if encoding is LADDER[0] else f"; those of at most {SMALL / 1e6:g} MP are exact"
    return encoding.words + small


def _unit(m: Measure) -> str:
    """Return a unit that reads well behind a number: dB, but not "of 255"."""
    return f" {m.unit}" if m.unit.isalpha() or m.unit == "%" else ""


def _cell_width(run: Run) -> int:
    """Return the width of a picture, in CSS pixels, at which a row fits a usual screen."""
    return min(240, max(112, 1300 // (len(run.methods) + 2) - 14) // 4 * 4)


def _many(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
