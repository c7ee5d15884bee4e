"""sfumato evaluate: its numbers, what it prints and keeps, and what it refuses."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_in import photo, pool, read, report_of, sfumato, unit, write

from judges import PublishedInception, PublishedResNet
from sfumato.evaluation.choice import WORDS
from sfumato.evaluation.learned import normalised

NAMES = ("a", "b", "c")


def moved(values, by):
    return np.clip(values.astype(int) + by, 0, 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    """Photographs, what pooling made of them, and results that are off by 3 steps."""
    for k, name in enumerate(NAMES):
        x = photo(48, 64, seed=k)
        write(tmp_path / "ref" / f"{name}.png", x)
        write(tmp_path / "res" / f"{name}.png", moved(x, 3))
        small = (pool(unit(x), 4) * 255).round().astype(np.uint8)
        write(tmp_path / "lr" / f"{name}.png", small)
    return tmp_path


def evaluated(*words):
    done = sfumato("evaluate", *words, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_the_table_is_printed_and_then_how_it_was_measured(folders):
    done = sfumato("evaluate", folders / "res", folders / "ref", "--border", 4, "--name", "ours")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "3 pictures"
    assert lines[2] == "| method | PSNR (dB) ↑ | SSIM ↑ |"
    assert lines[4].startswith("| ours | ")
    assert any(s.startswith("- PSNR: 10 log10") and "4 pixels cut off" in s for s in lines)


def test_the_numbers_are_those_of_the_pictures(folders):
    found = evaluated(
        folders / "res", folders / "ref", "--measurements", folders / "lr", "-d", "average_pool:4",
    )  # fmt: skip
    each = found["pictures"]
    assert sorted(each) == list(NAMES)
    mean = found["rows"][0]["values"]
    assert mean["PSNR"]["mean"] == pytest.approx(np.mean([each[k]["PSNR"] for k in NAMES]))
    assert mean["PSNR"]["low"] <= mean["PSNR"]["mean"] <= mean["PSNR"]["high"]
    want = 20 * np.log10(255 / 3)
    assert each["a"]["PSNR"] == pytest.approx(want, abs=0.3)  # where nothing was clipped
    assert mean["RMSE of A x"]["mean"] == pytest.approx(3, abs=0.2)
    assert {m["name"] for m in found["measures"]} == set(mean)


def test_equal_pictures_are_infinitely_good(folders):
    found = evaluated(folders / "ref", folders / "ref", "-m", "psnr ssim")
    assert found["pictures"]["a"] == {"PSNR": None, "SSIM": 1.0}
    assert "∞" in sfumato("evaluate", folders / "ref", folders / "ref").out


def test_16_bits_and_grey_are_read_as_they_are(tmp_path):
    x = photo(32, 32, 1)
    write(tmp_path / "ref" / "a.png", x)
    write(tmp_path / "res" / "a.png", (x.astype(np.uint16) * 257))
    found = evaluated(tmp_path / "res", tmp_path / "ref", "-m", "colour-bias")
    assert found["pictures"]["a"]["colour bias"] == pytest.approx(0, abs=1e-5)


def test_tables_are_kept_in_all_three_forms(folders):
    out = [folders / f"table.{ending}" for ending in ("md", "csv", "json")]
    words = [w for path in out for w in ("--save", path)]
    done = sfumato("evaluate", folders / "res", folders / "ref", *words)
    assert done.code == 0, done.err
    assert out[0].read_text() == done.out
    rows = list(csv.DictReader(out[1].read_text().splitlines()))
    values = json.loads(out[2].read_text())["rows"][0]["values"]
    assert [float(r["mean"]) for r in rows] == [values[k]["mean"] for k in ("PSNR", "SSIM")]


def test_luma_and_words_choose_the_measures(folders):
    found = evaluated(folders / "res", folders / "ref", "-m", "psnr,ssim-y:border=2", "--luma")
    assert [m["name"] for m in found["measures"]] == ["PSNR-Y", "SSIM-Y"]
    assert "2 pixels cut off" in found["measures"][1]["protocol"]


def test_samples_are_measured_together(folders):
    for k, name in enumerate(NAMES):
        write(folders / "res" / f"{name}.sample-2.png", moved(photo(48, 64, seed=k), -3))
    found = evaluated(folders / "res", folders / "ref", "--samples", "-m", "diversity")
    assert found["rows"][0]["values"]["diversity"]["mean"] == pytest.approx(18**0.5, abs=0.2)
    assert found["rows"][0]["n"] == 3


def test_seams_need_tiles(folders):
    found = evaluated(folders / "res", "-m", "seam seam-low seam-high", "--tile", 32)
    values = found["rows"][0]["values"]
    assert values["seam band, low"]["mean"] <= values["seam band, high"]["mean"]
    done = sfumato("evaluate", folders / "res", "-m", "psnr-y seam", "--tile", 64)
    assert done.code == 2
    done = sfumato("evaluate", folders / "res", "-m", "seam", "--tile", 64)
    assert "- seam: there is none for these pictures." in done.out
    done = sfumato("evaluate", folders / "res", "-m", "seam")
    assert (done.code, "expected --tile and --overlap" in done.err) == (2, True)


def test_sets_are_measured_by_the_users_network(folders, tmp_path):
    published = PublishedInception()
    published.run(torch.rand(1, 3, 75, 75))
    weights, kept = tmp_path / "inception.pth", tmp_path / "kept.npz"
    torch.save(published.state, weights)
    words = ("--inception", weights, "-m", "fid")
    with_pictures = evaluated(folders / "res", folders / "ref", *words, "--save-statistics", kept)
    first = with_pictures["rows"][0]["values"]["FID"]
    assert first["low"] is None
    with np.load(kept) as file:
        assert file["mu"].shape == (2048,)
        assert int(file["n"]) == 3
    done = sfumato(
        "evaluate", folders / "res", *words, "--reference-statistics", kept,
        "--inception-resize", "tensorflow",
    )  # fmt: skip
    assert done.code == 2
    assert "make them anew with --save-statistics" in done.err


def test_errors_of_classification_by_the_users_network(folders, tmp_path):
    """Labels that the network itself would give, but for one."""
    published = PublishedResNet((1, 1, 1, 1), width=8, classes=20)
    published.run(torch.rand(1, 3, 32, 32))
    weights, labels = tmp_path / "resnet.pth", tmp_path / "labels.csv"
    torch.save(published.state, weights)
    best = {}
    for name in NAMES:
        x = torch.from_numpy(unit(read(folders / "res" / f"{name}.png"))).permute(2, 0, 1)
        best[name] = int(published.run(normalised(x)).argmax())
    best["b"] = (best["b"] + 1) % 20
    labels.write_text("".join(f"{name}.png,{k}\n" for name, k in best.items()))
    found = evaluated(folders / "res", "--classifier", weights, "--labels", labels)
    assert found["rows"][0]["values"]["top-1 error"]["mean"] == pytest.approx(1 / 3)
    done = sfumato("evaluate", folders / "res", "--classifier", weights)
    assert (done.code, "give --labels" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("res", "nowhere"), 1, "there is no "),
        (("res", "odd"), 2, "48 x 64"),
        (("res", "ref", "-m", "psnrr"), 2, "the measure 'psnrr'; expected one of psnr, "),
        (
            ("res", "ref", "-m", "consistency"),
            2,
            "expected --measurements FOLDER and --degradation",
        ),
        (("res", "-m", "psnr"), 2, "PSNR without references; expected REFERENCES"),
        (("res",), 2, "no measures"),
        (("res", "ref", "-d", "average_pool:4"), 2, "one of --measurements and --degradation"),
        (("res", "ref", "-m", "fid"), 2, "expected --inception FILE"),
        (("res", "ref", "-m", "diversity"), 2, "diversity without samples; expected --samples"),
        (("res/a.png", "ref/a.png", "-m", "alexnet-kernel"), 2, "expected a set of at least 2"),
        (("res", "ref", "--save", "t.xlsx"), 2, "expected a name that ends in .md, .csv, .json"),
        (("res", "ref", "--device", "cuda:77"), 2, "cuda:77"),
        (("res", "ref", "--lpips", "x"), 2, "one of --lpips and --lpips-heads"),
        (("res", "less"), 2, "2 results without a reference (b, c)"),
        (("broken", "ref"), 1, "a.png"),
        (("nan", "less"), 1, "a.npy"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(folders, monkeypatch, words, code, said):
    write(folders / "less" / "a.png", photo(48, 64))
    for name in NAMES:
        write(folders / "odd" / f"{name}.png", photo(64, 48))
        (folders / "broken").mkdir(exist_ok=True)
        (folders / "broken" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    (folders / "nan").mkdir()
    np.save(folders / "nan" / "a.npy", np.full((3, 48, 64), np.nan, np.float32))
    monkeypatch.chdir(folders)
    done = sfumato("evaluate", *words)
    assert done.code == code, done.err
    assert done.out == ""
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("sfumato: ")


def test_a_size_that_differs_names_the_file(folders):
    write(folders / "ref" / "b.png", photo(48, 60))
    done = sfumato("evaluate", folders / "res", folders / "ref", "--save", folders / "t.md")
    assert done.code == 2
    assert (
        f"{folders}/res/b.png and {folders}/ref/b.png: 64 x 48 pixels beside 60 x 48" in done.err
    )
    assert not (folders / "t.md").exists()


def test_what_has_no_counterpart_may_be_left_out(folders):
    (folders / "ref" / "b.png").unlink()
    done = sfumato("evaluate", folders / "res", folders / "ref", "--allow-missing")
    assert done.code == 0
    assert done.out.startswith("2 pictures")
    assert "others were left out" in done.err


def test_what_is_too_large_is_refused_before_it_is_decoded(folders, monkeypatch):
    monkeypatch.setattr("sfumato.evaluation.evaluate.available_bytes", lambda: 1e5)
    done = sfumato("evaluate", folders / "res", folders / "ref")
    assert done.code == 1
    assert "needs about" in done.err


@pytest.mark.parametrize(("kernel", "word"), [("box", "average_pool"), ("bicubic", "bicubic")])
def test_it_tells_what_the_report_of_a_restoration_tells(tmp_path, prior, kernel, word):
    """Consistency and seam score of a result by tiles; the file is what is measured."""
    small, out = write(tmp_path / "small.png", photo(40, 48)), tmp_path / "large.png"
    tiles = ("--tile", 96, "--overlap", 48)
    done = sfumato(
        "upscale", small, "-o", out, "-n", prior, "-s", 4, "--kernel", kernel, "--steps", 2,
        *tiles, "--stitch", "mask-shift", "--levels", 1,
    )  # fmt: skip
    assert done.code == 0, done.err
    words = ("-d", f"{word}:4", "-m", "rmse-ax seam seam-low seam-high")
    found = evaluated(out, "--measurements", small, *words, *tiles)["pictures"]["large"]
    report = report_of(out)
    assert found["RMSE of A x"] == pytest.approx(report["consistency_rmse_255"], abs=1e-4)
    assert found["seam"] == pytest.approx(report["seam_score"], abs=1e-4)
    band = [found["seam band, low"], found["seam band, high"]]
    assert band == pytest.approx(report["seam_band"], abs=1e-4)


def test_the_help_and_the_page_name_every_measure(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    said = sfumato("evaluate", "--help").out
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for word in WORDS:
        assert re.search(rf"(?<![\w-]){word}(?![\w-])", said), word
        assert f"`{word}`" in page, word
