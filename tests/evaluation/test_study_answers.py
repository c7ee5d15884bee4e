"""Files that cannot count are left out, each with its reason."""

import json

import pytest

from made_up_study import METHODS, answers_of, write_answers, write_pictures
from sfumato.errors import SettingsError
from sfumato.evaluation.study import (
    Rules,
    StudySettings,
    as_csv,
    as_json,
    as_markdown,
    collect,
    make_study,
    rates,
)

RATES = {"ddnm": 0.4, "bicubic": 0.1}


def three(tmp_path):
    return [write_answers(tmp_path, answers_of(f"s{k}", RATES)) for k in range(3)]


def reason_for(tmp_path, facts, rules=None, *, name=""):
    files = [*three(tmp_path), write_answers(tmp_path, facts, name)]
    collected = collect(files, rules)
    assert [a.subject for a in collected.answers] == ["s0", "s1", "s2"]
    (excluded,) = collected.excluded
    assert excluded.file == files[-1]
    return excluded.reason


def test_whole_files_count(tmp_path):
    collected = collect(three(tmp_path))
    assert collected.study == "0123456789ab"
    assert (len(collected.answers), collected.excluded) == (3, ())
    assert len(collected.answers[0].trials) == 25


def test_another_study(tmp_path):
    facts = answers_of("x", RATES) | {"study": "ffff"}
    assert reason_for(tmp_path, facts) == "of another study, ffff"


def test_too_few_answers(tmp_path):
    facts = answers_of("x", RATES)
    facts["trials"] = facts["trials"][:7]
    assert reason_for(tmp_path, facts) == "too few answers: 7 of 25"
    collected = collect([*three(tmp_path), tmp_path / "x.json"], Rules(min_answers=7))
    assert len(collected.answers) == 4


def test_failed_checks(tmp_path):
    facts = answers_of("x", RATES)
    for one in facts["trials"][-2:]:
        one["choice"] = one["generated"]
    assert reason_for(tmp_path, facts) == "failed 2 of 5 attention checks"
    facts["trials"][-1]["choice"] = "right"
    assert len(collect([write_answers(tmp_path, facts), *three(tmp_path)]).answers) == 4


@pytest.mark.parametrize("choices", ["left", "right"])
def test_a_subject_twice(tmp_path, choices):
    facts = answers_of("s1", RATES) | {"started": "2026-01-02T00:00:00.000Z"}
    for one in facts["trials"][:20]:
        one["choice"] = choices
    reason = reason_for(tmp_path, facts, name="again.json")
    assert reason.startswith("subject s1 is in ")
    assert reason.endswith("with other answers")
    same = reason_for(tmp_path, answers_of("s1", RATES), name="zz.json")
    assert same.endswith("with the same answers")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "damaged: no JSON"),
        ("[]", "no answers to a study"),
        ('{"format": "sfumato-study-1"}', "damaged: 'study'"),
    ],
)
def test_files_of_something_else(tmp_path, text, reason):
    path = tmp_path / "odd.json"
    path.write_text(text)
    (excluded,) = collect([*three(tmp_path), path]).excluded
    assert excluded.reason.startswith(reason)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("choice", "middle"),
        ("generated", None),
        ("kind", "practice"),
        ("task", 3),
        ("shown_ms", "3000"),
        ("response_ms", -1),
        ("interrupted", "no"),
        ("method", ""),
        ("picture", 7),
    ],
)
def test_damaged_trials(tmp_path, name, value):
    facts = answers_of("x", RATES)
    facts["trials"][3][name] = value
    assert reason_for(tmp_path, facts).startswith("damaged: ")
    del facts["trials"][3][name]
    assert reason_for(tmp_path, facts).startswith("damaged: ")


def test_the_study_folder_tells_what_may_be_in_a_file(tmp_path):
    write_pictures(tmp_path / "p", 6)
    made = make_study(
        tmp_path / "p/results", tmp_path / "p/references", tmp_path / "study", StudySettings()
    )
    rules = Rules(study=str(tmp_path / "study"))
    good = answers_of("a", dict.fromkeys(METHODS, 0.5)) | {"study": made.id}
    for one in good["trials"]:
        one["picture"] = "img_000"
    odd = json.loads(json.dumps(good)) | {"subject": "b"}
    odd["trials"][0]["method"] = "srgan"
    files = [write_answers(tmp_path, good), write_answers(tmp_path, odd), *three(tmp_path)]
    collected = collect(files, rules)
    assert [a.subject for a in collected.answers] == ["a"]
    assert collected.excluded[0].reason.endswith("img_000 by srgan is not in the study")


def test_what_cannot_be_decided_is_asked(tmp_path):
    other = write_answers(tmp_path, answers_of("x", RATES) | {"study": "ffff"})
    with pytest.raises(SettingsError, match=r"as many files of study .*; say --study which"):
        collect([three(tmp_path)[0], other])
    with pytest.raises(SettingsError, match=r"no files; expected the files"):
        collect([])
    with pytest.raises(SettingsError, match=r"none of 1 files counts: .* another study"):
        collect([other], Rules(study="abc"))
    with pytest.raises(SettingsError, match=r"is no study.json of a study"):
        collect([other], Rules(study=str(other)))
    with pytest.raises(SettingsError, match=r"--max-failed 2; expected a share"):
        Rules(max_failed=2)


def test_tables_say_the_same_in_three_forms(tmp_path):
    (tmp_path / "odd.json").write_text("{")
    collected = collect([*three(tmp_path), tmp_path / "odd.json"])
    found = rates(collected.answers)
    text, rows = as_markdown(collected, found), as_csv(found).splitlines()
    facts = json.loads(as_json(collected, found))
    assert "3 subjects counted, 1 file excluded" in text
    assert "- odd.json: damaged: no JSON" in text
    assert len(rows) - 1 == len(found) == len(facts["rates"])
    ddnm = next(rate for rate in facts["rates"] if rate["name"] == "ddnm")
    assert f"| ddnm | {ddnm['rate']:.1%} |" in text
    assert f"2,method,ddnm,{ddnm['rate']},{ddnm['chosen']},30,3," in "\n".join(rows)
