"""Pictures are found by the name of their set, and prepared as a recipe says."""

import pytest
import torch

from sfumato.errors import ImageError, SettingsError
from sfumato.evaluation.data_sets import find_data, load_photograph, photographs
from sfumato.evaluation.recipe import Data
from sfumato.io import Picture, write_picture


def test_a_set_is_found_by_name_in_any_case_or_is_the_folder(data, tmp_path):
    wanted = Data(name="SET0", about="three pictures")
    assert find_data(wanted, [tmp_path, data]) == data / "Set0"
    assert find_data(wanted, [data / "Set0"]) == data / "Set0"
    assert find_data(Data(name="Other"), [data / "Set0"]) == data / "Set0"
    with pytest.raises(SettingsError) as told:
        find_data(Data(name="Other", about="three pictures"), [data])
    assert str(told.value) == (
        f"Other was looked for in {data}; expected a folder Other with three pictures; "
        "give --data FOLDER, or set SFUMATO_DATA to the folder that holds it"
    )
    with pytest.raises(SettingsError, match="looked for in no folder at all"):
        find_data(wanted, [])


def test_names_are_safe_and_different(tmp_path):
    x = torch.zeros(3, 8, 8)
    for name in ("a b.png", "a-b.png", "c/a b.webp", "c/ü.png"):
        write_picture(Picture(x), tmp_path / name)
    listed = photographs(Data(name="x"), tmp_path)
    assert [p.name for p in listed] == ["a-b", "a-b-2", "c-a-b", "c"]
    assert [p.number for p in listed] == [0, 1, 2, 3]
    assert [p.name for p in photographs(Data(name="x", first=3), tmp_path, limit=2)] == [
        "a-b",
        "a-b-2",
    ]


def test_pictures_are_prepared(tmp_path, photo):
    write_picture(Picture(photo), tmp_path / "p.png")
    (one,) = photographs(Data(name="x"), tmp_path)
    assert torch.equal(load_photograph(one, Data(name="x")), photo)
    cut = load_photograph(one, Data(name="x", multiple=7))
    assert torch.equal(cut, photo[:, :42, :35])
    square = load_photograph(one, Data(name="x", side=20))
    pooled = photo[:, 4:44].unfold(1, 2, 2).unfold(2, 2, 2).mean((3, 4))
    assert (square - pooled).abs().max() < 1 / 255
    with pytest.raises(ImageError, match="too small"):
        load_photograph(one, Data(name="x", side=41))
    with pytest.raises(ImageError, match=r"p\.png of 40 x 48 pixels; expected at least 64"):
        load_photograph(one, Data(name="x", multiple=64))


def test_grey_ones_are_kept_left_out_or_made_colours(tmp_path, photo):
    write_picture(Picture(photo[:1]), tmp_path / "p.png")
    (one,) = photographs(Data(name="x"), tmp_path)
    assert torch.equal(load_photograph(one, Data(name="x")), photo[:1])
    assert torch.equal(
        load_photograph(one, Data(name="x", grey="repeat")), photo[:1].expand(3, -1, -1)
    )
    assert load_photograph(one, Data(name="x", side=20)).shape == (1, 20, 20)
    with pytest.raises(ImageError, match=r"p\.png is grey"):
        load_photograph(one, Data(name="x", grey="skip"))
