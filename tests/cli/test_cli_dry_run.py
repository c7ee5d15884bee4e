"""What a dry run says is what then happens."""

import json

import pytest
from stand_in import photo, report_of, sfumato, write

from sfumato.cli import commands
from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.pipeline import files, places

QUICK = ("--steps", 2, "-t", 32)


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (("upscale", "--kernel", "box", "-s", 2), (20, 30, 3)),
        (("upscale", "--kernel", "box", "-s", 2, "--levels", 2), (24, 32, 1)),
        (("upscale", "--kernel", "box", "-s", 2, "--samples", 2), (20, 30, 3)),
        (("denoise", "--noise", 0.1, "--steps", 1), (40, 50, 3)),
        (("restore", "-d", "walsh_hadamard:0.5"), (40, 50, 3)),
        (("colorize",), (10, 12, 1)),
    ],
)
def test_the_numbers_are_those_of_the_report(tmp_path, prior, words, size):
    source, out = write(tmp_path / "a.png", photo(*size)), tmp_path / "out.png"
    call = (words[0], source, "-o", out, "-n", prior, *QUICK, *words[1:])
    said = sfumato(*call, "--dry-run", "--progress", "json")
    assert said.code == 0, said.err
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    told, _ = map(json.loads, said.err.splitlines())
    assert told["event"] == "estimated"
    assert sfumato(*call).code == 0
    report = report_of(out)
    for name in ("task", "width", "height", "tiles", "waves"):
        assert told[name] == report[name], name
    assert told["evaluations"] == report["network_evaluations"]
    levels = [(v["width"], v["height"], v["tiles"]) for v in report["levels"]]
    assert [(v["width"], v["height"], v["tiles"]) for v in told["levels"]] == levels
    precision = report["settings"].pop("precision")
    assert precision in ("fp32", "bf16")
    assert told["settings"] == report["settings"]


def test_a_block_for_one_picture(tmp_path, prior):
    source = write(tmp_path / "a.png", photo(20, 30))
    said = sfumato(
        "upscale", source, "-o", tmp_path / "out.png", "-n", prior, "--kernel", "box", "-s", 2,
        "--stitch", "mask-shift", *QUICK, "--dry-run",
    )  # fmt: skip
    assert (said.code, said.err) == (0, "")
    words = ["60 x 40 pixels", "levels", "waves (mask-shift)", "1 at once", "evaluations", "GB"]
    words += ["out.png.job", "time", "steps 2"]
    for word in words:
        assert word in said.out.replace(" MB\n", " GB\n"), word


def test_many_pictures_by_their_headers_only(tmp_path, prior, monkeypatch):
    """A line each, and all together; the network is tried out once."""
    for k in range(23):
        write(tmp_path / "in" / f"{k:02}.png", photo(20, 20 + k))
    whole = (tmp_path / "in" / "00.png").read_bytes()
    (tmp_path / "in" / "x.png").write_bytes(whole[: len(whole) // 2])
    sizes = []
    forward = EDMDenoiser.forward

    def counted(self, x_t, sigma):
        sizes.append(tuple(x_t.shape))
        return forward(self, x_t, sigma)

    def never(self, source, target):
        pytest.fail("pixels were read")

    monkeypatch.setattr(EDMDenoiser, "forward", counted)
    monkeypatch.setattr(commands._Job, "restore", never)
    said = sfumato(
        "upscale", tmp_path / "in", "-o", tmp_path / "out", "-n", prior, "--kernel", "box",
        "-s", 2, *QUICK, "--dry-run", "--continue-on-error",
    )  # fmt: skip
    assert said.code == 3, "one is cut short"
    *lines, total = said.out.splitlines()
    assert len(lines) == 23
    assert all("evaluations (steps 2, batch 1)" in line for line in lines)
    assert total.startswith("23 of 24 files")
    assert len(set(sizes)) == 2, "one to count its tensors, one to time it"
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_what_would_be_refused_is_refused_by_headers_too(tmp_path, prior):
    for k in range(21):
        write(tmp_path / "in" / f"{k:02}.webp", photo(4, 4100))
    done = sfumato(
        "upscale", tmp_path / "in", "-o", tmp_path / "out", "-n", prior, "-s", 4,
        "--kernel", "box", "--dry-run",
    )  # fmt: skip
    assert done.code == 1
    assert "16383" in done.err


@pytest.mark.parametrize("stitch", ["mask-shift", "joint"])
def test_a_job_that_is_there_is_left_as_it_is(tmp_path, prior, stitch):
    source = write(tmp_path / "a.png", photo(20, 30))
    job = tmp_path / "out.png.job" / "job.json"
    job.parent.mkdir()
    job.write_text("mine")
    said = sfumato(
        "upscale", source, "-o", tmp_path / "out.png", "-n", prior, "--kernel", "box", "-s", 2,
        "--stitch", stitch, *QUICK, "--dry-run", "--restart",
    )  # fmt: skip
    assert (said.code, said.err) == (0, "")
    assert [p.name for p in job.parent.iterdir()] == ["job.json"]
    assert job.read_text() == "mine"


@pytest.mark.parametrize("n", [1, 21])
@pytest.mark.parametrize("options", [("--dry-run",), (), ("--region", "0,0,8,8")])
@pytest.mark.parametrize("limit", [(), ("--limit-pixels", 624)])
def test_what_is_too_large_is_refused_before_it_is_decoded(
    tmp_path, prior, monkeypatch, n, options, limit
):
    monkeypatch.setattr(places, "LIMIT_PIXELS", 624)
    monkeypatch.setattr(files, "open_windows", lambda *_, **__: pytest.fail("it was decoded"))
    for k in range(n):
        write(tmp_path / "in" / f"{k:02}.png", photo(25, 25))
    done = sfumato(
        "denoise", tmp_path / "in", "-o", tmp_path / "out", "-n", prior, "--noise", 0.1,
        *QUICK[2:], *options, *limit,
    )  # fmt: skip
    assert done.code == 1
    assert "25 × 25 pixels; expected at most 624 pixels; raise --limit-pixels" in done.err


@pytest.mark.parametrize("side", [16, 32])
def test_a_tiled_tiff_may_have_any_size_if_its_tiles_have_not(tmp_path, prior, monkeypatch, side):
    monkeypatch.setattr(places, "LIMIT_PIXELS", 624)
    source = write(tmp_path / "a.tif", photo(40, 40), tile=True, tile_width=side, tile_height=side)
    words = ("denoise", source, "-o", tmp_path / "out.tif", "-n", prior, "--noise", 0.1)
    assert sfumato(*words, *QUICK[2:], "--dry-run").code == (0 if side == 16 else 1)
    assert sfumato(*words, *QUICK[2:], "--dry-run", "--limit-pixels", 1600).code == 0
    assert sfumato(*words, *QUICK[2:], "--dry-run", "--limit-pixels", 1599).code == 1


def test_what_is_done_already_costs_nothing(tmp_path, prior):
    for name in ("a.png", "b.png"):
        write(tmp_path / "in" / name, photo(8, 8))
    words = ("upscale", tmp_path / "in", "-o", tmp_path / "out", "-n", prior, *QUICK)
    assert sfumato(*words, "--shard", "1/2").code == 0
    said = sfumato(*words, "--dry-run", "--resume").out
    assert "a.png: done already" in said
    assert "1 of 2 files" in said


def test_a_region_is_told_of_in_a_line(tmp_path, prior):
    source = write(tmp_path / "a.png", photo(20, 30))
    words = ("upscale", source, "-o", tmp_path / "out.png", "-n", prior, "--dry-run", "--region")
    said = sfumato(*words, "0,0,8,8")
    assert (said.code, said.out.count("\n")) == (0, 1)
    assert "steps" in said.out
    assert sfumato(*words, "0,0,999,8").code == 2
    told, _ = map(json.loads, sfumato(*words, "0,0,8,8", "--progress", "json").err.splitlines())
    assert told["event"] == "estimated"
    assert told["evaluations"] >= told["tiles"] > 0
