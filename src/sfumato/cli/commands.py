"""The restoring commands: each builds a degradation and runs it over files."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

import typer

from sfumato.cli.groups import with_group
from sfumato.cli.options import (
    DegradationOption,
    Input,
    Shared,
)
from sfumato.cli.running import drain, run_over
from sfumato.cli.saying import guarded
from sfumato.cli.screen import Screen, spoken
from sfumato.cli.todo import Todo, there_is, todo_of
from sfumato.errors import SettingsError

if TYPE_CHECKING:
    from sfumato.io.staging import Staged
    from sfumato.operators import Degradation
    from sfumato.pipeline import Event, Report, Settings
    from sfumato.pipeline.estimate import Estimate, Outlook
    from sfumato.pipeline.region import Region
    from sfumato.pipeline.vote import Elected
    from sfumato.tiling import Executor
    from sfumato.zoo import Prior

    Degradations = Callable[[Path], Degradation]

#: A dry run of more files than these reads headers only, and tries the network out once.
_FEW = 20

NoiseOption = Annotated[
    float, typer.Option(min=0, help="Standard deviation of the input's noise, on [0, 1].")
]


def with_noise(words: str, noise: float) -> str:
    """Add the noise of the input to a degradation, if there is any."""
    return f"{words} | noise:{noise:g}" if noise else words


def run_words(source: Path, shared: Shared, text: str) -> None:
    """Run one degradation over a file or a folder, by the model that suits it if none is named."""
    from sfumato.operators import parse
    from sfumato.pipeline.refinement import embedded_for

    degradation = parse(text)
    if not (shared.model or shared.label or shared.classifier):
        shared = replace(shared, model=embedded_for(degradation, shared.settings()))
    _run(source, shared, lambda _: degradation)


def _run(source: Path, shared: Shared, degradation_of: Degradations) -> None:
    """Restore a file or a folder, or with ``--dry-run`` say what that would take."""
    from sfumato.pipeline.region import Region

    settings, share = shared.settings(), shared.share()
    region = Region.parse(shared.region) if shared.region else None
    elected = shared.asked().elected()
    prior = elected.stand_in() if elected else shared.asked().prior()
    todo = todo_of(source, shared.output, recursive=shared.recursive, warned=shared.warned)
    if shared.report and len(todo.files) > 1:
        raise SettingsError("--report with a folder", do="each result has OUTPUT.json beside it")
    if shared.failed:
        _check_list(shared.failed)
    _check_names(todo, settings.samples)
    todo = replace(todo, files=share.of(todo.files))
    with (
        shared.executor() as executor,
        Screen(shared.progress.value, todo, failed=shared.failed) as screen,
    ):
        job = _Job(shared, degradation_of, settings, prior, region, executor, elected)
        rehearsal = _Rehearsal(job, screen, len(todo.files)) if shared.dry_run else None

        def restore(file: Path, target: Path) -> None:
            restoration = job.restore(file, target)
            report = drain(restoration, screen.advance, screen.started, shared.warned)
            screen.finished(report)

        def skip(file: Path, target: Path) -> str:
            return _skipped(job, file, target, screen)

        run_over(
            todo,
            rehearsal.one if rehearsal else restore,
            screen,
            skip=skip,
            continue_on_error=shared.continue_on_error,
        )
        if len(todo.files) != 1:
            screen.say(rehearsal.total() if rehearsal else screen.total())
        screen.end()


def _check_list(path: Path) -> None:
    """Refuse a place for the list of failures that may be a picture's, or cannot be written."""
    from sfumato.io._atomic import check_place

    if path.suffix != ".json":
        raise SettingsError(f"--failed {path}", expected="a name that ends in .json")
    check_place(path)


def _skipped(job: _Job, file: Path, target: Path, screen: Screen) -> str:
    """Say why a file is left out; "" if it is not."""
    if not there_is(target):
        return ""
    if job.shared.skip_existing:
        return "exists, skipped"
    if not job.shared.resume:
        return ""
    if why := job.unlike(file, target):
        screen.say(f"{target}: {why}; it is restored again")
    return "" if why else "done already"


@dataclass(frozen=True)
class _Job:
    """What is done with each file."""

    shared: Shared
    degradation_of: Degradations
    settings: Settings
    prior: Prior
    region: Region | None
    executor: Executor | None
    elected: Elected | None = None

    def prior_of(self, source: Path) -> Prior:
        """Return the prior for a picture, of the class that is seen in it if it is voted on."""
        if self.elected is None:
            return self.prior
        limit_pixels = self.shared.limit_pixels
        return self.elected.of(source, self.degradation_of(source), limit_pixels=limit_pixels)

    def restore(self, source: Path, target: Path) -> Generator[Event, None, Report]:
        """Restore it; what lies at an address is fetched first, and put at the end."""
        from sfumato.io.staging import Staged

        shared = self.shared
        staged = Staged.open(source, target, shared.report, work=shared.work)
        if staged.waits and not self.unlike(staged.source, staged.target, staged.report):
            from sfumato.pipeline import Report

            report = Report(**json.loads(staged.report.read_bytes()))
        else:
            try:
                report = yield from self._restore(staged)
            except BaseException:
                staged.give_up()
                raise
        staged.finish()
        if staged.job_outlives and not shared.keep_job:
            from sfumato.io.job import Job

            if plan := Job.plan_in(staged.job):
                Job.open(staged.job, plan).remove()
        return report

    def _restore(self, staged: Staged) -> Generator[Event, None, Report]:
        from sfumato.pipeline.files import restore_file

        shared = self.shared
        return restore_file(
            staged.source,
            staged.target,
            self.degradation_of(staged.source),
            prior=self.prior_of(staged.source),
            settings=self.settings,
            report=staged.report,
            limit_pixels=shared.limit_pixels,
            device=shared.device,
            keep_job=shared.keep_job or staged.job_outlives,
            restart=shared.restart,
            region=self.region,
            executor=self.executor,
            job=staged.job,
        )

    def look(self, source: Path, prior: Prior | None = None) -> Outlook:
        """Read the header, and make all choices."""
        from sfumato.pipeline.estimate import Outlook

        return Outlook.of(
            source,
            self.degradation_of(source),
            prior=prior or self.prior,
            settings=self.settings,
            device=self.shared.device,
        )

    def unlike(self, source: Path, target: Path, proof: Path | None = None) -> str:
        """Say why what is there is not the result of this command; "" if it is."""
        from sfumato.io import digest

        path = proof or self.shared.report or target.with_name(target.name + ".json")
        try:
            report = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return "there is no report"
        if not isinstance(report, dict) or self.region:
            return "its report tells of something else"
        outlook = self.look(source, self.prior_of(source))
        if why := outlook.unlike(report):
            return why
        for file in (link.file for link in outlook.degradation.links):
            if file and file.stat().st_mtime_ns > path.stat().st_mtime_ns:
                return f"{file} is newer"
        return "" if report.get("input_digest") == digest(source) else f"{source} has changed"


@final
class _Rehearsal:
    """A dry run: says what each file takes, and all together."""

    def __init__(self, job: _Job, screen: Screen, n_files: int) -> None:
        from sfumato.pipeline.trial import Trial

        self._job, self._screen, self._n = job, screen, n_files
        self._trial = Trial(job.prior, job.shared.device, once=n_files > _FEW)
        self._n_pixels = self._evaluations = self._output = self._memory = self._most = 0
        self._seconds = 0.0

    def one(self, file: Path, target: Path) -> None:
        """Say what a file takes. Of a few files, all is checked that a restoration checks."""
        from sfumato.io._parts import copy_head
        from sfumato.io.masters import check_master
        from sfumato.io.storage import address, name_of, shown
        from sfumato.pipeline.places import check_limit

        names = f"{shown(file)} -> {shown(target)}"
        head = copy_head(file)[0] if address(file) else None
        away = address(target) or address(self._job.shared.work or "")
        far = head is not None or away is not None
        file = head.path if head else file
        if (self._n <= _FEW or self._job.region) and not far:
            restoration = self._job.restore(file, target)
            first = next(restoration)
            restoration.close()
            if self._job.region:
                self._screen.say(f"{names}: {_first(first)}")
                self._screen.emit("estimated", asdict(first))
                return
        check_limit(file, self._job.shared.limit_pixels)
        outlook = self._job.look(file)
        target = Path(name_of(target)) if address(target) else target
        check_master(target, outlook.run.size, outlook.picture.bits, alpha=False)
        e = outlook.estimate(target, self._trial, workers=self._job.shared.workers or 1)
        place = address(self._job.shared.work or "") or f"{target.name}.job"
        for line in _block(names, place, e) if self._n == 1 else [_line(names, e)]:
            self._screen.say(line)
        self._screen.emit("estimated", asdict(e))
        self._n_pixels += e.width * e.height
        self._evaluations += e.evaluations
        self._output += e.output_bytes
        self._memory = max(self._memory, e.memory_bytes)
        self._most = max(self._most, e.job_bytes)
        self._seconds += e.seconds

    def total(self) -> str:
        """Say what all files take that are not skipped and did not fail."""
        files = f"{self._screen.n_done} of {self._n} files"
        if self._job.region:
            return f"{files}, a region of each"
        return (
            f"{files}: {self._n_pixels / 1e6:.1f} megapixels, "
            f"{self._evaluations} network evaluations, memory about {_room(self._memory)}, "
            f"disk up to {_room(self._most)} for a job and {_room(self._output)} for all outputs, "
            f"time about {spoken(self._seconds)}"
        )


def _first(event: Event) -> str:
    from sfumato.pipeline import Started

    assert isinstance(event, Started), "it comes first"
    chosen = ", ".join(f"{k} {_short(v)}" for k, v in event.settings.items())
    return (
        f"{event.task}, {_many(event.tiles, 'tile')} in {_many(event.waves, 'wave')}, "
        f"{event.evaluations} evaluations; {chosen}"
    )


def _short(value: object) -> str:
    """Write a setting; of many numbers the first and the last.

    >>> _short((1.0, 0.5, 0.25, 0.125)), _short((1, 1))
    ('1 to 0.125', '(1, 1)')
    """
    if isinstance(value, tuple | list) and len(value) > 2:
        return f"{value[0]:g} to {value[-1]:g}"
    return str(value)


def _line(names: str, e: Estimate) -> str:
    return (
        f"{names}: {e.width} x {e.height}, {_many(len(e.levels), 'level')}, "
        f"{_many(e.tiles, 'tile')} in {_many(e.waves, 'wave')} ({e.stitch}), "
        f"{e.evaluations} evaluations (steps {e.steps}, batch {e.batch}), "
        f"memory about {_memory(e)}, "
        f"disk up to {_room(e.job_bytes)} for the job and {_room(e.output_bytes)} for the output, "
        f"time about {_time(e)}"
    )


def _block(names: str, job: str, e: Estimate) -> list[str]:
    levels = [f"{v.width} x {v.height} in {_many(v.tiles, 'tile')}" for v in e.levels]
    chosen = ", ".join(f"{k} {_short(v)}" for k, v in e.settings.items())
    return [
        f"{names}: {e.task}, {e.width} x {e.height} pixels",
        f"  levels       {len(levels)}: {', '.join(levels)}",
        f"  tiles        {e.tiles} in {_many(e.waves, 'wave')} ({e.stitch}), {e.batch} at once",
        f"  evaluations  {e.evaluations} of the network",
        f"  memory       about {_memory(e)}",
        f"  disk         up to {_room(e.job_bytes)} for {job} while it runs, "
        f"{_room(e.output_bytes)} for the output",
        f"  time         about {_time(e)}, by the network's speed here and now",
        f"  settings     {chosen}",
    ]


def _memory(e: Estimate) -> str:
    there = f" and {_room(e.device_bytes)} on the GPU" if e.device_bytes else ""
    return f"{_room(e.memory_bytes)}{there}"


def _time(e: Estimate) -> str:
    return spoken(e.seconds) + (" and more, to solve for what was measured" if e.solves else "")


def _many(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _room(n_bytes: int) -> str:
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e6 or not n_bytes else "1 MB"


def _check_names(todo: Todo, samples: int) -> None:
    """Refuse a folder where what is written beside one result would be another one."""
    if samples == 1 or len(todo.files) == 1:
        return
    from sfumato.pipeline.places import beside

    targets = {todo.target(file): file for file in todo.files}
    for target, file in targets.items():
        for other in beside(target, samples):
            if other in targets:
                raise SettingsError(
                    f"{targets[other]} in a folder with {file}: both would be written to {other}",
                    expected="names that tell apart what --samples writes",
                    do=f"rename {targets[other].name}, or restore it by itself",
                )


def inpaint(
    input: Input,
    *,
    mask: Annotated[
        Path, typer.Option("-m", "--mask", help="White = missing; or a folder, by name.")
    ],
    noise: NoiseOption = 0.0,
    shared: Shared,
) -> None:
    """Fill what a mask marks as missing; all other pixels stay as they are."""
    from sfumato.errors import DegradationError
    from sfumato.operators import parse

    def degradation(source: Path) -> Degradation:
        own = _mask_of(source, input, mask) if mask.is_dir() else mask
        found = parse(with_noise(_with_file("mask", own), noise))
        if any(link.empty for link in found.links):
            raise DegradationError(
                f"the mask {own} marks nothing", expected="white where the picture is missing"
            )
        return found

    if mask.is_dir() and not input.is_dir():
        raise DegradationError(f"the folder {mask} as a mask for {input}", expected="a picture")
    _run(input, shared, degradation)


def _mask_of(source: Path, folder: Path, masks: Path) -> Path:
    """Return the mask of the picture's name; its ending may be another."""
    from sfumato.io._formats import FORMATS

    own = masks / source.relative_to(folder)
    # Not by listing the folder, which may hold a mask for each of 50,000 pictures.
    endings = (own.suffix, *FORMATS, *map(str.upper, FORMATS))
    return next((p for p in map(own.with_suffix, endings) if p.exists()), own)


def _with_file(word: str, path: Path) -> str:
    """Write a degradation word with its file; the text form has no way to quote a bar."""
    from sfumato.errors import DegradationError

    if "|" in str(path):
        raise DegradationError(f"the file name '{path}'", expected="one without |", do="rename it")
    return f"{word}:{path}"


def colorize(
    input: Input,
    *,
    hints: Annotated[
        Path | None,
        typer.Option(help="Painted colour strokes on a transparent or black ground."),
    ] = None,
    noise: NoiseOption = 0.0,
    shared: Shared,
) -> None:
    """Colour a grey photograph; its grey (BT.601) stays exactly as it is."""
    words = _with_file("grayscale_hints", hints) if hints else "grayscale"
    run_words(input, shared, with_noise(words, noise))


def denoise(input: Input, *, noise: NoiseOption, shared: Shared) -> None:
    """Remove Gaussian noise of a known standard deviation."""
    if not noise:
        raise SettingsError(
            "--noise 0, which leaves nothing to remove", expected="a standard deviation above 0"
        )
    run_words(input, shared, with_noise("identity", noise))


def deblur(
    input: Input,
    *,
    blur: Annotated[
        str, typer.Option(help="gaussian:2.0, uniform:9, motion:15:30 or KERNEL.png.")
    ],
    noise: NoiseOption = 0.0,
    shared: Shared,
) -> None:
    """Undo a known blur."""
    from sfumato.operators import blur_word

    run_words(input, shared, with_noise(blur_word(blur), noise))


def restore(input: Input, *, degradation: DegradationOption, shared: Shared) -> None:
    """Restore from any degradation, given in words."""
    run_words(input, shared, degradation)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (inpaint, colorize, denoise, deblur, restore):
        app.command(name=command.__name__)(guarded(with_group(Shared, "shared")(command)))
