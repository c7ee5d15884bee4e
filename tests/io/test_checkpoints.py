"""Checkpoints come back to the bit, and no other file passes for one."""

import json
import os
import pickle
import resource
import stat
import struct

import pytest
import torch
from safetensors.torch import save_file

from sfumato.errors import ModelError, OutputError
from sfumato.io import load_checkpoint, load_state, save_checkpoint

CONFIG = {"kind": "unet", "channels": [64, 128], "dropout": 0.1, "note": "naïve ✓"}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def tensors():
    torch.manual_seed(0)
    return {
        "float": torch.randn(3, 4),
        "half": torch.randn(5).bfloat16(),
        "count": torch.tensor(7),
        "view": torch.randn(4, 6).T,
        "none": torch.zeros(0, 3),
    }


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "a.safetensors"
    save_checkpoint(path, tensors(), CONFIG)
    after, config = load_checkpoint(path)
    assert config == CONFIG
    assert after.keys() == tensors().keys()
    for name, before in tensors().items():
        assert after[name].dtype == before.dtype
        assert torch.equal(after[name], before)
    umask = os.umask(0o022)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert names(path.parent) == ["a.safetensors"]


def test_the_header_is_as_documented(tmp_path):
    save_checkpoint(tmp_path / "a", {"w": torch.ones(2)}, CONFIG)
    data = (tmp_path / "a").read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])["__metadata__"]
    assert header["format"] == "sfumato-1"
    assert json.loads(header["config"]) == CONFIG


def test_equal_checkpoints_are_equal_files(tmp_path):
    save_checkpoint(tmp_path / "a", tensors(), {"a": 1, "b": 2})
    for _ in range(8):  # safetensors writes its header's texts in random order
        save_checkpoint(tmp_path / "b", tensors(), {"b": 2, "a": 1})
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tied_weights_and_gradients(tmp_path):
    weight = torch.nn.Parameter(torch.randn(4, 4))
    save_checkpoint(tmp_path / "a", {"a": weight, "b": weight, "row": weight[1]}, {})
    after, _ = load_checkpoint(tmp_path / "a")
    assert torch.equal(after["a"], weight)
    assert torch.equal(after["b"], weight)
    assert torch.equal(after["row"], weight[1])
    assert not after["a"].requires_grad


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("config", [{"a": object()}, {"a": float("nan")}, {(1, 2): 3}])
def test_what_is_no_json(tmp_path, config):
    with pytest.raises(ModelError, match="no JSON"):
        save_checkpoint(tmp_path / "a", tensors(), config)
    assert names(tmp_path) == []


def test_a_failed_save_leaves_the_old_file(tmp_path):
    save_checkpoint(tmp_path / "a", {"w": torch.ones(2)}, {})
    before = (tmp_path / "a").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            save_checkpoint(tmp_path / "a", {"w": torch.ones(2000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "a").read_bytes() == before
    assert names(tmp_path) == ["a"]


def test_every_cut_is_noticed(tmp_path):
    save_checkpoint(tmp_path / "a", tensors(), CONFIG)
    data = (tmp_path / "a").read_bytes()
    for size in [1, 7, 8, 9, 50, len(data) // 2, len(data) - 20, len(data) - 1]:
        (tmp_path / "b").write_bytes(data[:size])
        with pytest.raises(ModelError, match="damaged, cut short") as caught:
            load_checkpoint(tmp_path / "b")
        assert "\n" not in str(caught.value)


class Trap:
    """A pickle that would run code."""

    def __reduce__(self):
        return (os.mkdir, ("/nowhere/trap",))


@pytest.mark.parametrize("how", ["zip", "old", *range(2, 6)])
def test_pickles_are_recognised_and_never_loaded(tmp_path, how):
    path = tmp_path / "a.pt"
    if isinstance(how, str):
        torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=how == "zip")
    else:
        path.write_bytes(pickle.dumps(Trap(), protocol=how))
    with pytest.raises(ModelError, match=r"PyTorch pickle.*save_checkpoint"):
        load_checkpoint(path)


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(ModelError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "a")
    with pytest.raises(ModelError, match="cannot be read"):
        load_checkpoint(tmp_path)
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(ModelError, match="is empty"):
        load_checkpoint(tmp_path / "a")
    (tmp_path / "a").write_text("hello, world")
    with pytest.raises(ModelError, match="no safetensors file"):
        load_checkpoint(tmp_path / "a")


@pytest.mark.parametrize("header", [None, {"format": "pt"}, {"config": "{}"}])
def test_other_programs(tmp_path, header):
    save_file({f"layer.{i}": torch.ones(1) for i in range(9)}, tmp_path / "a", header)
    with pytest.raises(ModelError, match=r"another program: layer\.0, .* and 4 more"):
        load_checkpoint(tmp_path / "a")


@pytest.mark.parametrize(("text", "message"), [("{", "no JSON"), ("[1]", "list"), (None, "JSON")])
def test_bad_configurations(tmp_path, text, message):
    header = {"format": "sfumato-1"} | ({"config": text} if text else {})
    save_file({"w": torch.ones(1)}, tmp_path / "a", header)
    with pytest.raises(ModelError, match=message):
        load_checkpoint(tmp_path / "a")


def test_load_state_copies_as_float32():
    module = torch.nn.BatchNorm1d(3)
    state = {name: torch.ones_like(t) * 2 for name, t in module.state_dict().items()}
    load_state(module, state | {"weight": torch.full((3,), 0.5, dtype=torch.float16)})
    assert module.weight.dtype == torch.float32
    assert module.weight.tolist() == [0.5] * 3
    assert int(module.num_batches_tracked) == 2


def test_load_state_tells_what_does_not_fit():
    module = torch.nn.Linear(2, 3)
    before = module.weight.clone()
    state = {f"extra.{i}": torch.ones(1) for i in range(7)} | {"weight": torch.ones(3, 1)}
    with pytest.raises(ModelError) as caught:
        load_state(module, state)
    text = str(caught.value)
    assert "does not fit the Linear: 1 missing: bias" in text
    assert "7 unexpected: extra.0, extra.1, extra.2, extra.3, extra.4 and 2 more" in text
    assert "1 of another shape: weight (3, 1) instead of (3, 2)" in text
    assert torch.equal(module.weight, before)
