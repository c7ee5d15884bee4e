"""The Python blocks of every page run, from top to bottom in one namespace."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
#: A block that begins with three backticks and "python"; "python skip" is only to be read.
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run_example(code, names, where):
    """Run a block: as a session if it begins with a prompt, else as a program."""
    if not code.startswith(">>>"):
        exec(compile(code, where, "exec"), names)  # the pages are our own
        return
    session = doctest.DocTestParser().get_doctest(code, names, where, where, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(session, clear_globs=False)
    names.update(session.globs)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_page_runs(page, files_of_examples, tmp_path, monkeypatch):
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    if not blocks:
        pytest.skip("no Python on this page")
    for path in files_of_examples.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__page__"}
    for k, code in enumerate(blocks):
        run_example(code, names, f"{page.name}, block {k + 1}")


def test_a_page_that_is_wrong_is_found():
    with pytest.raises(AssertionError):
        run_example(">>> 1 + 1\n3\n", {}, "page")
    with pytest.raises(NameError):
        run_example("undefined_name\n", {}, "page")
