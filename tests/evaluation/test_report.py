"""The page holds everything and asks for nothing; what was done to pictures is said on it."""

import base64
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from made_up_run import METHODS, PICTURES, TASKS, facts, write_run
from sfumato.errors import SettingsError
from sfumato.evaluation.report import read_run, svg_plots, write_page, write_plots, write_sheets
from sfumato.evaluation.report.embed import EXACT, LADDER, embed, encoded
from sfumato.io import Picture, read_picture, write_picture


class Elements(HTMLParser):
    """All elements of a page, and all that is written."""

    def __init__(self):
        super().__init__()
        self.found, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag, **wanted):
        return [a for t, a in self.found if t == tag and wanted.items() <= a.items()]


def parsed(path):
    page = Elements()
    page.feed(path.read_text(encoding="utf-8"))
    return page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(folder):
    write_page(read_run(folder), folder / "report.html")
    return parsed(folder / "report.html")


def test_nothing_is_fetched(folder, page):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"https?://|url\(|@import|fetch\(|XMLHttpRequest", text) == []
    assert page.all("script", src=None) == []
    assert [a["href"] for a in page.all("link")] == ["data:,"]
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'")
    assert "@@" not in text


def test_every_picture_is_there_once(page):
    images = page.all("img")
    stored = [a["src"] for a in images if "src" in a]
    again = [a["data-same"] for a in images if "data-same" in a]
    results = len(TASKS) * len(PICTURES) * len(METHODS) - 1
    assert len(images) == results + 2 * len(TASKS) * len(PICTURES)
    assert len(stored) == results + len(TASKS) * len(PICTURES) + len(PICTURES)
    ids = {a.get("id") for a in images}
    assert set(again) <= ids
    assert len(again) == len(PICTURES)
    assert all(a["alt"] for a in images)


def decoded(data):
    import pyvips

    return pyvips.Image.new_from_buffer(data, "").numpy()


def test_pictures_are_exact_where_there_is_room(folder, page):
    (first, *_) = [a for a in page.all("img") if a["alt"] == "a, reference"]
    data = base64.b64decode(first["src"].removeprefix("data:image/webp;base64,"))
    stored = read_picture(folder / "references/a.png").pixels
    theirs = torch.from_numpy(decoded(data)).permute(2, 0, 1)
    assert torch.equal((stored * 255).round().byte(), theirs)
    assert "Pictures on this page are exact" in "".join(page.text)


def test_the_table_is_that_of_the_records(page):
    text = " ".join("".join(page.text).split())
    assert "4x & more" in text
    assert "bicubic <interpolation>" in text
    assert "20.50 20.00 to 21.00" in text.replace("20.5020.00", "20.50 20.00")
    assert "of 2 pictures" not in text  # where a method lacks a picture, its n is its own
    assert "PULSE" in text
    assert "Published: arXiv 1" in text
    assert "Not done:ddnm-10, b: too <small>" in text
    assert "never there" not in text
    assert "10 log10 of 1/MSE" in text
    assert "Nothing here was measured." in text


def test_each_row_moves_as_one_and_can_be_reached(page):
    rows = [a for a in page.all("div") if a.get("class") == "row"]
    assert len(rows) == len(TASKS) * len(PICTURES)
    assert {a["tabindex"] for a in rows} == {"0"}
    assert all(a["style"] == "--ratio:1.33333" for a in rows)


def test_numbers_of_sets_are_those_of_the_table(folder, tmp_path):
    rows = [
        {"task": "sr-x4", "method": "bicubic", "source": "", "values": {"FID": {"mean": 21.5}}},
        {"task": "sr-x4", "method": "bicubic", "source": "x", "values": {"FID": {"mean": 1.0}}},
    ]
    (folder / "table.json").write_text(json.dumps({"rows": rows}))
    run = read_run(folder)
    (folder / "table.json").unlink()
    assert run.of_sets == {("sr-x4", "bicubic"): {"FID": 21.5}}
    write_page(run, tmp_path / "page.html")
    assert "21.5" in "".join(parsed(tmp_path / "page.html").text)


@pytest.mark.slow
def test_pictures_shrink_until_they_fit_and_the_page_says_so(tmp_path):
    write_run(tmp_path, size=(240, 256))
    run = read_run(tmp_path)
    whole = write_page(run, tmp_path / "whole.html")
    assert whole.encoding is EXACT
    sizes = []
    for share in (0.7, 0.3, 0.12):
        limit = share * whole.size_bytes / 1e6
        page = write_page(run, tmp_path / "page.html", max_mb=limit)
        assert page.size_bytes == (tmp_path / "page.html").stat().st_size <= limit * 1e6
        assert page.encoding.words in "".join(parsed(tmp_path / "page.html").text)
        sizes.append(LADDER.index(page.encoding))
    assert sizes == sorted(set(sizes))
    before = (tmp_path / "page.html").read_bytes()
    with pytest.raises(SettingsError, match=r"18 pictures do not fit|pictures do not fit into"):
        write_page(run, tmp_path / "page.html", max_mb=0.05)
    with pytest.raises(SettingsError, match=r"--max-mb 0.001; expected more than 0.0"):
        write_page(run, tmp_path / "page.html", max_mb=0.001)
    assert (tmp_path / "page.html").read_bytes() == before


def test_each_step_of_the_ladder_is_smaller_and_does_what_it_says(tmp_path):
    write_run(tmp_path, size=(240, 256))
    path = tmp_path / "references/a.png"
    data = [encoded(path, encoding) for encoding in LADDER]
    sizes = [len(one) for one in data]
    assert sizes == sorted(sizes, reverse=True)
    stored = (read_picture(path).pixels * 255).round().int()
    for encoding, one in zip(LADDER, data, strict=True):
        theirs = torch.from_numpy(decoded(one)).permute(2, 0, 1).int()
        assert theirs.shape[1] == round(240 * encoding.shrink)
        if found := re.search(r"off by more than (\d+) of 255", encoding.words):
            assert (stored - theirs).abs().max() <= int(found[1])
    small = tmp_path / "inputs/sr-x4/a.png"
    assert {len(encoded(small, encoding)) for encoding in LADDER} == {len(encoded(small, EXACT))}
    assert embed({"p": path}, sizes[3] * 4 // 3 + 40).encoding is LADDER[3]


def test_sixteen_bits_are_rounded_to_eight(tmp_path):
    x = torch.rand(3, 20, 30)
    write_picture(Picture(x, bits=16), tmp_path / "x.png")
    stored = read_picture(tmp_path / "x.png").pixels
    theirs = torch.from_numpy(decoded(encoded(tmp_path / "x.png", EXACT))).permute(2, 0, 1)
    assert torch.equal((stored * 255).round().byte(), theirs)


def test_what_is_missing_does_not_stop_the_page(tmp_path):
    write_run(tmp_path)
    (tmp_path / "results/denoise/bicubic/a.png").unlink()
    (tmp_path / "references/b.png").unlink()
    write_page(read_run(tmp_path), tmp_path / "page.html")
    page = parsed(tmp_path / "page.html")
    assert "its file is not there" in "".join(page.text)
    assert not any(a["alt"] == "b, reference" for a in page.all("img"))


def test_names_cannot_become_code(tmp_path):
    title = '</title><script>alert("@@p0@@ $title")</script>'
    write_run(tmp_path, title=title)
    write_page(read_run(tmp_path), tmp_path / "page.html")
    page = parsed(tmp_path / "page.html")
    assert len(page.all("script")) == 1
    assert "".join(page.text).count('alert("') == 2


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(SettingsError, match=r"holds no run.json; expected the folder"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(SettingsError, match=r"run.json: Invalid JSON"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(facts() | {"methods": [{"name": "../x"}]}))
    with pytest.raises(SettingsError, match=r"run.json, methods.0.name: String should match"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(facts()))
    with pytest.raises(SettingsError, match=r"holds no results yet"):
        read_run(tmp_path)
    write_run(tmp_path)
    (tmp_path / "table.json").write_text("[]")
    with pytest.raises(SettingsError, match=r"table.json is damaged"):
        read_run(tmp_path)


def test_methods_of_one_stem_are_one_line(folder):
    run = read_run(folder)
    assert [run.line(m.name) for m in run.methods] == ["bicubic", "ddnm", "ddnm"]


def test_plots_take_the_colour_of_the_page(folder):
    plots = svg_plots(read_run(folder))
    assert plots.keys() == set(TASKS)
    assert [len(svgs) for svgs in plots.values()] == [2, 2]
    svg = plots["sr-x4"][0]
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "evaluations of the network" in svg
    assert "seconds for a picture" in svg
    assert "ddnm" in svg
    assert "#010203" not in svg
    assert "metadata" not in svg
    assert svg == svg_plots(read_run(folder))["sr-x4"][0]


def test_names_are_drawn_as_they_are(tmp_path):
    write_run(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace("bicubic <interpolation>", "$x^2$ & <y>"))
    run = read_run(tmp_path)
    assert "$x^2$ &amp; &lt;y&gt;" in svg_plots(run)["sr-x4"][0]
    assert len(write_sheets(run, tmp_path, width=700, pictures=["a"])) == 2


def test_plots_and_sheets_are_files(folder, tmp_path):
    run = read_run(folder)
    plots = write_plots(run, tmp_path / "plots")
    names = [f"{task}-{measure}.png" for task in TASKS for measure in ("PSNR", "LPIPS")]
    assert [path.name for path in plots] == names
    sheets = write_sheets(run, tmp_path / "sheets", width=800)
    assert [path.name for path in sheets] == ["sr-x4.png", "denoise.png"]
    sheet = read_picture(sheets[0]).pixels
    assert sheet.shape[2] == 800
    first = write_sheets(run, tmp_path / "few", width=800, pictures=["a"])[0]
    few = read_picture(first).pixels
    assert few.shape[1] < 0.5 * sheet.shape[1]


def test_a_sheet_shows_the_pictures(folder, tmp_path):
    # 64 pixels wide in a cell of 148: squares of whole pixels, whose mean is the picture's own.
    run = read_run(folder)
    sheet = read_picture(write_sheets(run, tmp_path, width=800, pictures=["c"])[0]).pixels
    cell = (800 - 10 * 6) // 5
    shown = sheet[:, 62 : 62 + round(cell * 48 / 64), 10 + 4 * (cell + 10) :][:, :, :cell]
    theirs = read_picture(folder / "references/c.png").pixels
    means = shown.mean((1, 2)), theirs.mean((1, 2))
    assert torch.allclose(*means, atol=0.03)  # the frame of the crop covers a little
    assert len(np.unique(shown.numpy())) > 100


def test_sheets_that_cannot_be(folder, tmp_path):
    run = read_run(folder)
    with pytest.raises(SettingsError, match=r"no picture z in sr-x4; expected a, b, c"):
        write_sheets(run, tmp_path, pictures=["z"])
    with pytest.raises(SettingsError, match=r"a sheet 100 pixels wide for 5 columns; make it"):
        write_sheets(run, tmp_path, width=100)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_one_sentence_says_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = read_run(folder)
    with pytest.raises(
        SettingsError, match=r"need matplotlib.*pip install 'sfumato\[evaluation\]'"
    ):
        svg_plots(run)
    assert write_page(run, tmp_path / "page.html").pictures > 0
