"""What a file or folder is: seen from what it holds, and said where it is nothing known."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from sfumato.errors import ModelError
from sfumato.testing import adm_state_dict
from sfumato.zoo import adm, load_prior, native, native_side
from sfumato.zoo.formats import format_of, formats
from sfumato.zoo.source import Source


def test_each_file_has_one_form(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(adm_state_dict(width=32, mult=(1,), attention=()), path)
    embedded = Source(load_prior().source, "embedded")
    for source, form in ((Source(path, "a"), adm), (embedded, native)):
        assert format_of(source) is form
        assert [f for f in formats() if f.matches(source)] == [form]
    assert native_side(path) == 8
    assert native_side("embedded") == 512


def test_tensors_of_others_are_named(tmp_path):
    tensors = {"conv.weight": torch.zeros(2, 2), "conv.bias": torch.zeros(2)}
    torch.save(tensors, tmp_path / "a.pt")
    save_file(tensors, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        with pytest.raises(ModelError, match=r"another program: conv\..*expected a checkpoint of"):
            load_prior(tmp_path / name)


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "text.pt").write_text("some text")
    (tmp_path / "folder").mkdir()
    for name, told in (
        ("empty", "is empty"),
        ("text.pt", "damaged, cut short or no safetensors"),
        ("folder", "holds no model"),
    ):
        with pytest.raises(ModelError, match=told):
            load_prior(tmp_path / name)
    with pytest.raises(ModelError, match="a folder, or hf:OWNER/REPO"):
        load_prior(tmp_path / "nothing")


def test_the_digest_of_a_folder_is_that_of_its_files(tmp_path):
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "a").write_bytes(b"1")
    (folder / "unet" / "b").write_bytes(b"2")
    first = Source(folder, "m").digest
    assert Source(folder, "m").digest == first
    (folder / "unet" / "b").rename(folder / "b")
    second = Source(folder, "m").digest
    (folder / "b").write_bytes(b"3")
    assert len({first, second, Source(folder, "m").digest}) == 3
    assert Source(folder / "a", "a").digest == hashlib.sha256(b"1").hexdigest()
