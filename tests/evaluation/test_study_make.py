"""A study's folder holds all that the page needs, and nothing that gives the answer away."""

import json
import re

import pytest
import torch

from made_up_study import METHODS, write_pictures
from sfumato.errors import ImageError, OutputError, SettingsError
from sfumato.evaluation.study import StudySettings, load_words, make_study
from sfumato.io import Picture, read_picture, write_picture


def made(tmp_path, settings=None, *, inputs=True, name="study", **more):
    return make_study(
        tmp_path / "results",
        tmp_path / "references",
        tmp_path / name,
        settings or StudySettings(),
        inputs=tmp_path / "inputs" if inputs else None,
        **more,
    )


def listed(folder):
    text = (folder / "list.js").read_text()
    return json.loads(re.fullmatch(r'"use strict";\n\nwindow.STUDY = (.*);\n', text, re.S)[1])


def test_the_list_names_files_that_are_there_and_hold_the_pictures(tmp_path):
    write_pictures(tmp_path)
    done = made(tmp_path, StudySettings(tasks=(1, 2), images=3))
    study = listed(tmp_path / "study")
    assert study["id"] == done.id
    assert study["tasks"] == [2, 1]
    assert study["methods"] == sorted(METHODS)
    for one in study["pictures"]:
        for role, address in [("references", one["reference"]), ("inputs", one["input"])]:
            ours = read_picture(tmp_path / "study" / address).pixels
            theirs = read_picture(tmp_path / role / f"{one['name']}.png").pixels
            assert torch.equal(ours, theirs)
        for method, address in one["results"].items():
            ours = read_picture(tmp_path / "study" / address).pixels
            theirs = read_picture(tmp_path / "results" / method / f"{one['name']}.png").pixels
            assert torch.equal(ours, theirs)
    scripts = re.findall(r'(?:src|href)="([^:"]+)"', (tmp_path / "study/index.html").read_text())
    assert len(scripts) == 9
    assert all((tmp_path / "study" / script).is_file() for script in scripts)
    assert (tmp_path / "study/vendor/LICENSE-jspsych.txt").is_file()


def test_names_of_files_tell_nothing(tmp_path):
    write_pictures(tmp_path)
    made(tmp_path)
    names = [path.name for path in (tmp_path / "study/pictures").iterdir()]
    assert len(names) == 6 * 4 + 2
    assert all(re.fullmatch(r"[0-9a-f]{20}\.png", name) for name in names)


def test_a_study_is_a_function_of_its_seed_and_pictures(tmp_path):
    write_pictures(tmp_path)
    first, again = made(tmp_path, name="a"), made(tmp_path, name="b")
    assert first == again
    assert (tmp_path / "a/list.js").read_bytes() == (tmp_path / "b/list.js").read_bytes()
    assert made(tmp_path, StudySettings(seed=1), name="c").id != first.id
    write_picture(Picture(torch.rand(3, 48, 40)), tmp_path / "results/ddnm/img_000.png")
    assert made(tmp_path, name="d").id != first.id


def test_large_pictures_are_cut_to_one_part_of_all(tmp_path):
    write_pictures(tmp_path, 2, size=(96, 120))
    made(tmp_path, StudySettings(side=50, zoom=2))
    study = listed(tmp_path / "study")
    first = study["pictures"][0]
    assert study["sizes"][first["name"]] == [96, 96]
    x = read_picture(tmp_path / "study" / first["reference"]).pixels
    y = read_picture(tmp_path / "study" / first["input"]).pixels
    assert torch.equal(x[:, ::4, ::4], y)
    whole = read_picture(tmp_path / "references" / f"{first['name']}.png").pixels
    assert torch.equal(x, whole[:, 24:72, 36:84])


def test_grey_results_are_shown_like_the_others(tmp_path):
    write_pictures(tmp_path, 2)
    write_picture(Picture(torch.rand(1, 48, 40)), tmp_path / "results/ddnm/img_000.png")
    made(tmp_path)
    address = listed(tmp_path / "study")["pictures"][0]["results"]["ddnm"]
    assert read_picture(tmp_path / "study" / address).pixels.shape == (3, 48, 40)


def test_one_folder_of_results_is_one_method(tmp_path):
    write_pictures(tmp_path)
    settings = StudySettings(images=4)
    done = make_study(tmp_path / "results/ddnm", tmp_path / "references", tmp_path / "s", settings)
    assert (done.methods, done.pictures, done.images) == (("ddnm",), 6, 4)


def test_what_does_not_belong_together_is_named(tmp_path):
    write_pictures(tmp_path)
    write_picture(Picture(torch.rand(3, 20, 40)), tmp_path / "results/ddnm/img_001.png")
    with pytest.raises(ImageError, match=r"img_001.png of 40 x 20 pixels; expected 40 x 48"):
        made(tmp_path)
    assert not (tmp_path / "study").exists()
    (tmp_path / "results/ddnm/img_001.png").unlink()
    with pytest.raises(ImageError, match=r"ddnm has no picture img_001, which other methods have"):
        made(tmp_path)
    (tmp_path / "results/bicubic/img_001.png").unlink()
    assert made(tmp_path).pictures == 5
    (tmp_path / "inputs/img_002.png").unlink()
    with pytest.raises(ImageError, match=r"img_002 has no input"):
        made(tmp_path, name="other")
    (tmp_path / "references/img_000.png").unlink()
    with pytest.raises(ImageError, match=r"img_000 has no photograph in .*references"):
        made(tmp_path, name="other")
    leftovers = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert leftovers == []


def test_settings_that_cannot_be(tmp_path):
    write_pictures(tmp_path)
    with pytest.raises(SettingsError, match=r"task 1 without --inputs"):
        made(tmp_path, StudySettings(tasks=(1,)), inputs=False)
    with pytest.raises(SettingsError, match=r"4 images for each of 2 tasks out of 6; .*at most 3"):
        made(tmp_path, StudySettings(tasks=(1, 2), images=4))
    with pytest.raises(SettingsError, match=r"images 0; expected 1"):
        StudySettings(images=0)
    with pytest.raises(SettingsError, match=r"0 seconds; expected 0.1 to 600"):
        StudySettings(seconds=0)
    (tmp_path / "study").mkdir()
    (tmp_path / "study/mine.txt").touch()
    with pytest.raises(OutputError, match=r"is there already; choose a new folder"):
        made(tmp_path)
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["mine.txt"]


def test_every_language_has_every_word():
    english, german = load_words("en"), load_words("de")
    assert english.keys() == german.keys()
    for name, words in english.items():
        assert type(words) is type(german[name])
        assert sorted(re.findall(r"{\w+}", str(words))) == sorted(
            re.findall(r"{\w+}", str(german[name]))
        )


def test_own_words_and_own_consent(tmp_path):
    own = load_words("en") | {"start": "Allons"}
    path = tmp_path / "fr.json"
    path.write_text(json.dumps(own))
    (tmp_path / "consent.txt").write_text("We ask\nyou.\n\nYou agree.\n")
    words = load_words(str(path), tmp_path / "consent.txt")
    assert words["start"] == "Allons"
    assert words["consent"] == ["We ask you.", "You agree."]
    path.write_text(json.dumps({"start": "x"}))
    with pytest.raises(SettingsError, match=r"fr.json lacks agree, bad_subject"):
        load_words(str(path))
    path.write_text(json.dumps(own | {"how": "x"}))
    with pytest.raises(SettingsError, match=r"how in .*; expected a list of texts"):
        load_words(str(path))
    with pytest.raises(SettingsError, match=r"--language xx; expected one of de, en, or a JSON"):
        load_words("xx")


def test_words_cannot_end_the_script(tmp_path):
    write_pictures(tmp_path)
    made(tmp_path, StudySettings(title="</script><b>"))
    assert "</script" not in (tmp_path / "study/list.js").read_text()
    assert listed(tmp_path / "study")["title"] == "</script><b>"
