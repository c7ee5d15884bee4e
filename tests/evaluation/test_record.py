import math
from pathlib import Path

import pytest

from sfumato.errors import SfumatoError
from sfumato.evaluation.record import RECORDS, Record, append_record, read_records


def test_records_come_back_and_the_last_one_counts(tmp_path: Path) -> None:
    first = Record("4x box", "ddnm", "a", "k1", {"PSNR": 20.5, "SSIM": math.nan}, 1.5, 20, "a.png")
    other = Record("4x box", "bicubic", "a", "k2", refused="no such file")
    for record in (first, other, Record("4x box", "ddnm", "a", "k3", {"PSNR": 21.0})):
        append_record(tmp_path, record)
    back = read_records(tmp_path)
    assert [(r.method, r.key) for r in back] == [("ddnm", "k3"), ("bicubic", "k2")]
    assert back[0].values == {"PSNR": 21.0}
    assert math.isnan(back[0].seconds)
    assert back[1] == Record(
        "4x box", "bicubic", "a", "k2", seconds=back[1].seconds, refused="no such file"
    )


def test_half_a_line_is_passed_over_and_written_after(tmp_path: Path) -> None:
    append_record(tmp_path, Record("t", "m", "a", "k", {"SSIM": math.nan}))
    with (tmp_path / RECORDS).open("a") as file:
        file.write('{"task": "t", "met')
    append_record(tmp_path, Record("t", "m", "b", "k"))
    back = read_records(tmp_path)
    assert [r.picture for r in back] == ["a", "b"]
    assert math.isnan(back[0].values["SSIM"])


def test_a_line_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / RECORDS).write_text('{"task": "t"}\n')
    with pytest.raises(SfumatoError, match=r"line 1, is no record"):
        read_records(tmp_path)


def test_nothing_yet(tmp_path: Path) -> None:
    assert read_records(tmp_path) == []


def test_equal_pictures_stay_infinitely_good(tmp_path):
    append_record(tmp_path, Record("t", "m", "a", "k", {"PSNR": math.inf, "z": -math.inf}))
    values = read_records(tmp_path)[0].values
    assert (values["PSNR"], values["z"]) == (math.inf, -math.inf)
