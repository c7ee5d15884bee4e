"""sfumato study and sfumato report, by their commands."""

from pathlib import Path

import pytest
from stand_in import sfumato

from made_up_run import write_run
from made_up_study import answers_of, write_answers, write_pictures


@pytest.fixture
def pictures(tmp_path):
    write_pictures(tmp_path)
    return tmp_path


def test_a_study_is_made(pictures):
    done = sfumato(
        "study", "make", pictures / "results", pictures / "references", "--inputs",
        pictures / "inputs", "--task", "both", "--images", 2, "-o", pictures / "study",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "6 pictures by bicubic, ddnm; a subject sees 2 pairs and 2 attention checks" in done.out
    assert (pictures / "study/index.html").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "1"], "task 1 without --inputs; expected the folder"),
        (["--images", "7"], "7 images out of 6; expected at most 6"),
        (["--language", "xx"], "--language xx; expected one of de, en"),
        (["--seconds", "0"], "0 seconds; expected 0.1 to 600"),
        (["--post", "me@example.org"], "--post me@example.org; expected an address"),
    ],
)
def test_bad_settings_make_nothing(pictures, words, said):
    before = sorted(pictures.iterdir())
    done = sfumato(
        "study", "make", pictures / "results", pictures / "references", *words, "-o",
        pictures / "study",
    )  # fmt: skip
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert sorted(pictures.iterdir()) == before


def test_answers_are_counted(tmp_path):
    folder = tmp_path / "answers"
    folder.mkdir()
    for k in range(3):
        write_answers(folder, answers_of(f"s{k}", {"ddnm": 0.4}))
    (folder / "odd.json").write_text("{")
    done = sfumato("study", "collect", folder)
    assert done.code == 0, done.err
    assert f"excluded {folder / 'odd.json'}: damaged: no JSON" in done.out
    assert "3 subjects counted, 1 file excluded." in done.out
    assert "| ddnm | " in done.out
    for suffix in ("md", "csv", "json"):
        table = tmp_path / f"table.{suffix}"
        done = sfumato("study", "collect", folder, "-o", table)
        assert done.code == 0, done.err
        assert "ddnm" in table.read_text()
    done = sfumato("study", "collect", folder, "-o", tmp_path / "table.txt")
    assert (done.code, "a name that ends in .md, .csv or .json" in done.err) == (2, True)
    done = sfumato("study", "collect", folder / "odd.json")
    assert (done.code, "none of 1 files counts" in done.err) == (2, True)
    done = sfumato("study", "collect", folder / "none.json")
    assert (done.code, "none.json: No such file" in done.err) == (1, True)
    done = sfumato("study", "collect", folder, "-o", folder / "s0.json")
    assert (done.code, "is a file of answers; choose another name" in done.err) == (1, True)


def test_a_report_is_made(tmp_path):
    write_run(tmp_path)
    done = sfumato("report", tmp_path, "--sheet-width", 700, "--pictures", "a, b")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'report.html'}: ")
    assert lines[0].endswith("exact, every value as in its file")
    assert all(Path(line).is_file() for line in lines[1:])
    assert len(lines) == 1 + 4 + 2


def test_a_page_alone(tmp_path):
    write_run(tmp_path / "run")
    page = tmp_path / "page.html"
    done = sfumato("report", tmp_path / "run", "--page-only", "-o", page)
    assert done.code == 0, done.err
    assert page.is_file()
    assert not (tmp_path / "run/plots").exists()
    done = sfumato("report", tmp_path / "run", "--page-only", "-o", tmp_path / "page.pdf")
    assert (done.code, "a name that ends in .html" in done.err) == (2, True)
    done = sfumato("report", tmp_path)
    assert (done.code, "holds no run.json" in done.err) == (2, True)
