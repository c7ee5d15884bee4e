"""What subjects answered: read, and left out where it cannot count."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, final

from sfumato.errors import SettingsError
from sfumato.evaluation.study.settings import FORMAT, KEY

_SIDES = ("left", "right")


@final
@dataclass(frozen=True)
class Trial:
    """A pair that was shown: on which side the generated picture was, and which was chosen.

    Of a check, the generated picture is the spoilt one, and ``method`` is "".
    """

    task: int
    kind: Literal["pair", "check"]
    picture: str
    method: str
    generated: str
    choice: str
    shown_ms: float
    response_ms: float
    interrupted: bool

    @property
    def fooled(self) -> bool:
        """Whether the generated picture was taken for the photograph."""
        return self.choice == self.generated

    @property
    def counts(self) -> bool:
        """Whether it is a pair, and was seen for its time."""
        return self.kind == "pair" and not self.interrupted


@final
@dataclass(frozen=True)
class Answers:
    """All that a subject answered; ``planned`` trials were to be."""

    file: Path
    study: str
    subject: str
    started: str
    planned: int
    trials: tuple[Trial, ...]

    @property
    def failed_checks(self) -> int:
        """Attention checks in which the spoilt picture was chosen."""
        return sum(t.kind == "check" and t.fooled for t in self.trials)


@final
@dataclass(frozen=True)
class Excluded:
    """A file that does not count, and why."""

    file: Path
    reason: str


@final
@dataclass(frozen=True)
class Rules:
    """Which files count: of which study, with how many failed checks and answers.

    ``study`` is a study's folder, its study.json or its name; "" is the study most files are of.
    ``max_failed`` is a share of the attention checks. Who answers at random fails more than a
    fifth of 6 with a probability of 57/64. ``min_answers`` is all that was planned if it is None.
    """

    study: str = ""
    max_failed: float = 0.2
    min_answers: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_failed <= 1:
            raise SettingsError(f"--max-failed {self.max_failed:g}", expected="a share, 0 to 1")


@final
@dataclass(frozen=True)
class Collected:
    """What counts, and what does not."""

    study: str
    answers: tuple[Answers, ...]
    excluded: tuple[Excluded, ...]


def collect(files: Sequence[Path], rules: Rules | None = None) -> Collected:
    """Read subjects' files, and leave out those that ``rules`` do not admit.

    A subject who sent two different files counts with the one that was begun first.

    Raises:
        SettingsError: no file, or none that counts; files of two studies in equal number.
    """
    rules = rules or Rules()
    if not files:
        raise SettingsError("no files", expected="the files that subjects saved")
    read = [_try(path) for path in files]
    whole = [one for one in read if isinstance(one, Answers)]
    excluded = [one for one in read if isinstance(one, Excluded)]
    study, key = _which(rules.study, whole)
    kept: dict[str, Answers] = {}
    for one in sorted(whole, key=lambda a: (a.started, str(a.file))):
        reason = _unfit(one, study, key, rules)
        if not reason and one.subject in kept:
            first = kept[one.subject]
            again = "the same answers" if first.trials == one.trials else "other answers"
            reason = f"subject {one.subject} is in {first.file} already, with {again}"
        if reason:
            excluded.append(Excluded(one.file, reason))
        else:
            kept[one.subject] = one
    if not kept:
        reasons = "; ".join(f"{one.file}: {one.reason}" for one in excluded[:3])
        raise SettingsError(f"none of {len(files)} files counts: {reasons}")
    return Collected(study, tuple(kept.values()), tuple(excluded))


def read_answers(path: Path) -> Answers:
    """Read a subject's file.

    Raises:
        ValueError: it is damaged, or of another kind; the text says what is wrong.
        OSError: it cannot be read.
    """
    try:
        facts = json.loads(path.read_bytes())
    except ValueError:
        raise ValueError("damaged: no JSON") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError(f"no answers to a study (its format is not {FORMAT})")
    try:
        return Answers(
            path,
            _text(facts, "study"),
            _text(facts, "subject"),
            _text(facts, "started"),
            int(_number(facts, "planned")),
            tuple(_trial(one) for one in facts["trials"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"damaged: {error}") from None


def _try(path: Path) -> Answers | Excluded:
    try:
        return read_answers(path)
    except ValueError as error:
        return Excluded(path, str(error))


def _trial(facts: Mapping[str, Any]) -> Trial:
    kind, generated, choice = (_text(facts, n) for n in ("kind", "generated", "choice"))
    if kind not in ("pair", "check") or generated not in _SIDES or choice not in _SIDES:
        raise TypeError(f"a trial of kind {kind}, {generated}, {choice}")
    if facts["task"] not in (1, 2) or not isinstance(facts["interrupted"], bool):
        raise TypeError(f"a trial of task {facts['task']}")
    return Trial(
        facts["task"],
        cast('Literal["pair", "check"]', kind),
        _text(facts, "picture"),
        _text(facts, "method") if kind == "pair" else "",
        generated,
        choice,
        _number(facts, "shown_ms"),
        _number(facts, "response_ms"),
        facts["interrupted"],
    )


def _text(facts: Mapping[str, Any], name: str) -> str:
    if not isinstance(facts[name], str) or not facts[name]:
        raise TypeError(f"{name} is {facts[name]!r}")
    return str(facts[name])


def _number(facts: Mapping[str, Any], name: str) -> float:
    value = facts[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise TypeError(f"{name} is {value!r}")
    return float(value)


def _which(asked: str, whole: Sequence[Answers]) -> tuple[str, Mapping[str, Any] | None]:
    """Return the study's name, and its list if it is at hand."""
    if asked:
        path = Path(asked)
        path = path / KEY if path.is_dir() else path
        if path.suffix != ".json":
            return asked, None
        try:
            key = json.loads(path.read_bytes())
            return str(key["id"]), key
        except (ValueError, TypeError, KeyError) as error:
            raise SettingsError(f"{path} is no {KEY} of a study", do="name its folder") from error
    most = Counter(one.study for one in whole).most_common(2)
    if len(most) == 2 and most[0][1] == most[1][1]:
        raise SettingsError(
            f"as many files of study {most[0][0]} as of {most[1][0]}", do="say --study which"
        )
    return (most[0][0] if most else ""), None


def _unfit(one: Answers, study: str, key: Mapping[str, Any] | None, rules: Rules) -> str:
    """Say why answers do not count; "" if they do."""
    if one.study != study:
        return f"of another study, {one.study}"
    least = one.planned if rules.min_answers is None else rules.min_answers
    if len(one.trials) < least:
        return f"too few answers: {len(one.trials)} of {one.planned}"
    n_checks = sum(t.kind == "check" for t in one.trials)
    if one.failed_checks > rules.max_failed * n_checks:
        return f"failed {one.failed_checks} of {n_checks} attention checks"
    if key is not None:
        names = {picture["name"] for picture in key["pictures"]}
        for trial in one.trials:
            known = trial.picture in names
            if not known or (trial.kind == "pair" and trial.method not in key["methods"]):
                return f"damaged: {trial.picture} by {trial.method} is not in the study"
    return ""
