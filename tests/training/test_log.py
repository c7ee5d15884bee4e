"""What a run leaves to be looked at."""

import csv
import shutil

import numpy as np
import pytest
import pyvips
import torch

from sfumato.diffusion.sr3 import SR3Denoiser
from sfumato.errors import OutputError
from sfumato.training import (
    Finished,
    Log,
    Schedule,
    SR3Settings,
    Started,
    Stepped,
    Validated,
    train_sr3,
)
from sfumato.training.sheets import crops_for_sheet, lay_out, quick_sample

TINY = SR3Settings(
    network={"form": "unet", "channels": (4, 8), "blocks": 1, "embedding": 8},
    steps=12,
    warmup_steps=3,
    crop_cycle=(16, 8),
    batch_pixels=512,
    halvings=1,
    seed=5,
    regression_share=0.3,
)


def started(step):
    return Started(step, 100, 1000, 3, 1, ())


def rows(out):
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def no_board(monkeypatch):
    monkeypatch.setattr("sfumato.training.log.installed", lambda name: False)


def test_the_table_has_a_row_a_report_and_the_figures_of_validations(no_board, tmp_path):
    log = Log(tmp_path)
    assert 'pip install "sfumato[train]"' in log.remark
    for event in (
        started(0),
        Stepped(10, 0.5, 1e-3, 2.5),
        Stepped(20, 0.25, 2e-3, 5.0),
        Validated(20, {"dB at noise 0.1": 30.125, "dB, of the rest": 7}),
        Stepped(30, 0.125, 3e-3, 7.5),
    ):
        log(event)
    assert list(rows(tmp_path)[0]) == [
        *("step", "loss", "rate", "seconds"),
        *("dB at noise 0.1", "dB, of the rest"),
    ]
    assert [list(row.values()) for row in rows(tmp_path)] == [
        ["10", "0.5", "0.001", "2.5", "", ""],
        ["20", "0.25", "0.002", "5", "30.125", "7"],
        ["30", "0.125", "0.003", "7.5", "", ""],
    ]


@pytest.mark.parametrize("kept", [0, 10, 20, 25, 30])
def test_a_run_that_goes_on_has_the_log_of_one_that_was_not_interrupted(no_board, tmp_path, kept):
    """Whatever came after the saved state, it is told again and stands in the log once."""
    events = []
    for k in range(10, 60, 10):
        events.append(Stepped(k, 1 / k, 1e-3, k / 4))
        if k % 20 == 0:
            events.append(Validated(k, {"dB": float(k)}, torch.full((3, 8, 8), k / 255)))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    log = Log(whole)
    for event in (started(0), *events):
        log(event)
    log = Log(parts)
    for event in (started(0), *events[:6]):  # to step 40, validation included
        log(event)
    log = Log(parts)
    for event in (started(kept), *(e for e in events if e.step > kept)):
        log(event)
    files = sorted(p.relative_to(whole) for p in whole.rglob("*.*"))
    assert [str(f) for f in files] == [
        "log.csv",
        "samples/step-000020.png",
        "samples/step-000040.png",
    ]
    assert sorted(p.relative_to(parts) for p in parts.rglob("*.*")) == files
    assert all((parts / f).read_bytes() == (whole / f).read_bytes() for f in files)


def test_a_run_that_was_finished_leaves_its_log_alone(no_board, tmp_path):
    log = Log(tmp_path / "run")
    log(Finished(10, tmp_path))
    assert not (tmp_path / "run").exists()


def test_a_log_that_cannot_be_written_is_told(no_board, tmp_path):
    (tmp_path / "run").write_text("a file stands in the way")
    with pytest.raises(OutputError):
        Log(tmp_path / "run")(started(0))
    log = Log(tmp_path / "other")
    log(started(0))
    shutil.rmtree(tmp_path / "other")
    with pytest.raises(OutputError, match=r"log.csv cannot be written: No such file"):
        log(Stepped(10, 0.5, 1e-3, 2.5))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_everything(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log, sheet = Log(tmp_path), torch.rand(3, 20, 30)
    assert log.remark is None
    for event in (
        started(0),
        Stepped(10, 0.5, 1e-3, 2.5),
        Validated(10, {"dB at noise 0.1": 30.0}, sheet),
        Stepped(20, 0.25, 1e-3, 5.0),
        Finished(20, tmp_path),
    ):
        log(event)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert set(board.Tags()["scalars"]) >= {"loss", "rate", "seconds"}
    assert [(e.step, e.value) for e in board.Scalars("loss")] == [(10, 0.5), (20, 0.25)]
    (figure,) = (tag for tag in board.Tags()["scalars"] if tag.startswith("figures/"))
    assert board.Scalars(figure)[0].value == 30
    (image,) = board.Images("samples")
    assert (image.step, image.width, image.height) == (10, 30, 20)


def test_a_sheet_lies_on_the_picture_file(no_board, tmp_path):
    log, sheet = Log(tmp_path), torch.randint(0, 256, (3, 9, 13)) / 255
    log(started(0))
    log(Validated(7, {}, sheet))
    stored = pyvips.Image.new_from_file(str(tmp_path / "samples" / "step-000007.png")).numpy()
    assert np.array_equal(stored, (sheet * 255).round().byte().permute(1, 2, 0).numpy())


# Sheets


def test_sheets_show_a_picture_a_row():
    columns = [torch.full((2, 3, 5, 5), v) for v in (-1.0, 0.0, 3.0)]
    columns[0][1] = 0.5
    sheet = lay_out(columns)
    assert sheet.shape == (3, 4 + 2 * 9, 4 + 3 * 9)
    shown = [[float(sheet[0, 6 + 9 * i, 6 + 9 * j]) for j in range(3)] for i in range(2)]
    assert shown == [[0.0, 0.5, 1.0], [0.75, 0.5, 1.0]]


def test_crops_of_a_sheet_are_middles_of_one_size():
    pictures = [
        torch.arange(h * w).view(1, h, w).expand(3, -1, -1) for h, w in [(30, 50), (22, 23)]
    ]
    crops = crops_for_sheet([p.float() for p in pictures], multiple=4)
    assert crops.shape == (2, 3, 20, 20)
    assert float(crops[0, 0, 0, 0]) == 5 * 50 + 15


@pytest.mark.parametrize("prediction", ["edm", "eps", "x_0"])
@pytest.mark.parametrize("eta", [None, 0.3])
def test_a_sample_of_a_model_that_knows_the_answer_is_it(prediction, eta):
    """The network that says what it should say, at each level, leads to the photograph."""
    g = torch.Generator().manual_seed(0)
    x_0 = torch.rand(2, 3, 8, 8, generator=g) - 0.5
    c = x_0 + 0.1
    D = SR3Denoiser(torch.nn.Identity(), prediction, stride=1, sigma_data=0.1)
    D.forward = lambda x_t, sigma, condition: x_0
    sample = quick_sample(D, c, (3.0, 1.0, 0.1), eta)
    torch.testing.assert_close(sample, x_0)
    assert torch.equal(sample, quick_sample(D, c, (3.0, 1.0, 0.1), eta))


def test_validation_comes_with_a_sheet(photographs, tmp_path):
    """Input, sample, regression and photograph of three pictures; the first is the condition."""
    events = list(train_sr3(TINY, photographs, tmp_path, holdout=photographs))
    (sheet,) = (e.sheet for e in events if isinstance(e, Validated))
    assert sheet.shape == (3, 4 + 3 * 36, 4 + 4 * 36)
    assert float(sheet.min()) >= 0
    assert float(sheet.max()) <= 1
    none = SR3Settings.of(TINY.model_dump() | {"regression_share": 0.0, "steps": 1})
    events = list(
        train_sr3(none, photographs, tmp_path / "b", holdout=photographs, schedule=Schedule())
    )
    (sheet,) = (e.sheet for e in events if isinstance(e, Validated))
    assert sheet.shape == (3, 4 + 3 * 36, 4 + 3 * 36)
