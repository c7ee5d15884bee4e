"""Photographs from folders, datasets and shards: the same laws for all of them."""

import io
import tarfile

import numpy as np
import pytest
import pyvips
import torch
from made_up_photographs import draw, write

from sfumato.errors import SettingsError
from sfumato.training import PriorSettings, load_holdout, load_photographs, open_source
from sfumato.training._draws import Draws
from sfumato.training.pictures import area_weights, prepared
from sfumato.training.shards import find_shards, index_shard
from sfumato.training.source import entries_of, kind_of

CPU = torch.device("cpu")
SETTINGS = PriorSettings(crop_cycle=(8,), batch_pixels=5 * 64, halvings=0, seed=3)


def png(array):
    return bytes(pyvips.Image.new_from_array(array).pngsave_buffer())


def flat(k, side=10):
    """A picture of one colour that names it."""
    return np.full((side, side, 3), [k, 0, 200], np.uint8)


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_shard(path, pictures, labels=None):
    """Write a tar file of (name, PNG bytes)."""
    with tarfile.open(path, "w") as tar:
        for k, (name, content) in enumerate(pictures):
            add(tar, f"{name}.png", content)
            if labels is not None:
                add(tar, f"{name}.cls", str(labels[k]).encode())
            add(tar, f"{name}.json", b"{}")
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Four shards of 12, 7, 9 and 4 pictures; picture k has the colour k and the class k % 3."""
    folder, first = tmp_path_factory.mktemp("shards"), 0
    for n, size in enumerate([12, 7, 9, 4]):
        ks = range(first, first + size)
        write_shard(
            folder / f"s-{n:02d}.tar",
            [(f"{k:04d}", png(flat(k))) for k in ks],
            [k % 3 for k in ks],
        )
        first += size
    return folder


def shown(crops):
    """The colours of crops of ``flat`` pictures."""
    return ((crops[:, 0, 0, 0] + 1) * 127.5).round().long()


# Shards


def test_examples_of_shards_are_a_function_of_the_step(shards):
    """In any order, and by a source opened anew, as after a kill; all of one shard in a step."""
    source, settings = open_source(shards, SETTINGS, CPU), SETTINGS
    forward = [source.crops(Draws(3, k, 0, 5), 8) for k in range(30)]
    for k in (29, 4, 17, 3):
        again = open_source(shards, settings, CPU)
        assert torch.equal(again.crops(Draws(3, k, 0, 5), 8), forward[k])
        parts = [source.crops(Draws(3, k, first, n), 8) for first, n in ((0, 2), (2, 3))]
        assert torch.equal(torch.cat(parts), forward[k])
    bounds = torch.tensor([12, 19, 28])
    assert all(len(torch.bucketize(shown(c), bounds, right=True).unique()) == 1 for c in forward)


def test_an_epoch_shows_every_shard_in_proportion_to_its_size(shards):
    """Ten epochs of 32 pictures, 5 of them a step and so 64 steps, five times over."""
    source = open_source(shards, SETTINGS, CPU)
    turns = [source.turns(k)[0] for k in range(32 * 10)]
    assert [turns.count(k) / 10 / 32 for k in range(4)] == pytest.approx(
        [12 / 32, 7 / 32, 9 / 32, 4 / 32], abs=0.03
    )
    orders = {tuple(source.order(epoch)) for epoch in range(20)}
    assert len(orders) > 8
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    other = open_source(shards, SETTINGS.model_copy(update={"seed": 4}), CPU)
    assert [other.order(e) for e in range(9)] != [source.order(e) for e in range(9)]


def test_each_epoch_goes_through_the_shards_in_its_order(shards):
    one = SETTINGS.model_copy(update={"batch_pixels": 64})  # a picture a step, 32 an epoch
    source = open_source(shards, one, CPU)
    sizes = [12, 7, 9, 4]
    for epoch in range(6):
        turns = [source.turns(32 * epoch + k)[0] for k in range(32)]
        assert turns == [shard for shard in source.order(epoch) for _ in range(sizes[shard])]


def test_every_picture_of_shards_is_shown(shards):
    source = open_source(shards, SETTINGS, CPU)
    seen = torch.cat([shown(source.crops(Draws(3, k, 0, 5), 8)) for k in range(100)])
    assert seen.unique().tolist() == list(range(32))


def test_labels_belong_to_the_pictures_of_shards(shards):
    source = open_source(shards, SETTINGS, CPU)
    assert source.classes == ("0", "1", "2")
    for k in range(20):
        draws = Draws(3, k, 0, 5)
        picture = source.picture_of(draws)
        assert torch.equal(picture, shown(source.crops(draws, 8)))
        assert torch.equal(source.labels[picture], picture % 3)


def test_unusable_pictures_of_shards_are_left_out_and_told(tmp_path):
    good = [(f"{k}", png(flat(k))) for k in range(3)]
    small, grey = ("s", png(flat(7, side=5))), ("g", png(flat(0)[..., :1]))
    write_shard(tmp_path / "a.tar", [small, *good], [9, 0, 1, 2])
    write_shard(tmp_path / "b.tar", [grey, ("c", b"no picture")], [9, 9])
    source = open_source(tmp_path, SETTINGS, CPU)
    assert (source.n_photographs, source.skipped) == (6, ())
    for k in range(12):
        draws = Draws(3, k, 0, 5)
        seen, picture = shown(source.crops(draws, 8)), source.picture_of(draws)
        assert torch.equal(picture, seen + 1), "the first of the shard is left out"
        assert torch.equal(source.labels[picture], seen)
    reasons = {s.path.name: s.reason for s in source.skipped}
    assert set(reasons) == {"s.png", "g.png", "c.png"}
    assert "too small, 5 x 5" in reasons["s.png"]
    (tmp_path / "a.tar").unlink()
    with pytest.raises(SettingsError, match=r"no photograph of 2 .*grey.*at least 8 pixels"):
        open_source(tmp_path, SETTINGS, CPU).crops(Draws(3, 0, 0, 5), 8)


def test_the_digest_of_shards_names_their_pictures(shards, tmp_path):
    digest = open_source(shards, SETTINGS, CPU).digest
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert open_source(tmp_path, SETTINGS, CPU).digest == digest
    write_shard(tmp_path / "s-03.tar", [("0028", png(flat(77)))], [1])
    assert open_source(tmp_path, SETTINGS, CPU).digest != digest


def test_shards_that_cannot_be_read_are_named(tmp_path):
    write_shard(tmp_path / "a.tar", [("a", png(flat(1)))])
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    (tmp_path / "no.tar").write_bytes(b"\x1f\x8b" + whole)
    for name in ("cut.tar", "no.tar", "nowhere-{0..3}.tar"):
        with pytest.raises(SettingsError, match=r"the shard .*cannot be read.*not compressed"):
            open_source(tmp_path / name, SETTINGS, CPU)
    source = open_source(tmp_path / "a.tar", SETTINGS, CPU)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(SettingsError, match=r"the shard .*a.tar cannot be read"):
        source.crops(Draws(3, 0, 0, 5), 8)
    with tarfile.open(tmp_path / "empty.tar", "w") as tar:
        add(tar, "a.txt", b"")
    with pytest.raises(SettingsError, match=r"no picture in 1 shards, empty.tar; expected"):
        open_source(tmp_path / "empty.tar", SETTINGS, CPU)


def test_names_with_braces():
    assert [p.name for p in find_shards("x/{a,b}-{08..11}.tar")] == [
        f"{a}-{k}.tar" for a in "ab" for k in ("08", "09", "10", "11")
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_shards_are_those_of_webdataset(tmp_path):
    """What its writer writes and its reader reads: the same names, bytes and classes."""
    wds = pytest.importorskip("webdataset", reason="the library webdataset is not installed")
    with wds.TarWriter(str(tmp_path / "a.tar")) as writer:
        for k in range(5):
            content = png(flat(k))
            writer.write({"__key__": f"d{k}/p{k}", "png": content, "cls": k % 2, "t.txt": ""})
    theirs = list(wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    ours = list(index_shard(tmp_path / "a.tar").entries())
    assert [e.content for e in ours] == [t["png"] for t in theirs]
    assert [e.label for e in ours] == [t["cls"].decode() for t in theirs]


# Folders


def test_subfolders_are_classes(tmp_path):
    for k, name in enumerate(["dog", "cat", "dog", "eel"]):
        (tmp_path / name / "x").mkdir(parents=True, exist_ok=True)
        write(tmp_path / name / "x" / f"{k}.png", flat(k))
    write(tmp_path / "cat" / "small.png", flat(9, side=4))
    held = load_photographs(tmp_path, min_side=8, halvings=0)
    assert held.classes == ("cat", "dog", "eel")
    assert held.labels.tolist() == [0, 1, 1, 2]
    draws = Draws(0, 0, 0, 50)
    of_colour = torch.tensor([1, 0, 1, 2])
    got = held.labels[held.picture_of(draws)]
    assert torch.equal(got, of_colour[shown(held.crops(draws, 8))])
    write(tmp_path / "stray.png", flat(5))
    assert load_photographs(tmp_path, min_side=8).labels is None


def test_copies_show_the_photograph_they_are_of(tmp_path):
    for k in range(3):
        write(tmp_path / f"{k}.png", flat(k, side=40))
    held = load_photographs(tmp_path, min_side=8, halvings=2)
    assert len(held.start) == 9
    draws = Draws(0, 0, 0, 60)
    assert torch.equal(held.picture_of(draws), shown(held.crops(draws, 8)))


# The paper's preparation


def test_area_weights_are_means():
    for n, m in ((12, 4), (9, 7), (100, 33), (5, 5)):
        w = area_weights(n, m).astype(np.float64)
        assert w.sum(1) == pytest.approx(1, abs=1e-6)
        assert w.sum(0) == pytest.approx(m / n, abs=1e-6)
        values = np.random.default_rng(0).random(n)
        fine = np.repeat(values, m).reshape(m, n).mean(1)  # n m equal parts, n to an interval
        assert w @ values == pytest.approx(fine, abs=1e-6)


def test_prepared_is_the_mean_of_boxes_of_the_square_in_the_middle():
    picture = draw(48, 61, 0)
    boxes = picture[:, 6:54].reshape(12, 4, 12, 4, 3).mean((1, 3))
    assert np.abs(prepared(picture, 12) - boxes).max() <= 0.5 + 1e-3
    assert np.array_equal(prepared(picture, 48), picture[:, 6:54])


def test_prepared_photographs_are_whole_and_half_of_them_mirrored(tmp_path):
    for k in range(2):
        write(tmp_path / f"{k}.png", draw(40, 52, k))
    write(tmp_path / "small.png", draw(31, 60, 2))
    settings = PriorSettings.of({"prepare": 32, "batch_pixels": 1024})
    assert settings.crop_cycle == (32,)
    source = open_source(tmp_path, settings, CPU)
    assert [s.reason for s in source.skipped] == ["too small, 60 x 31 pixels"]
    crops = source.crops(Draws(0, 0, 0, 40), 32)
    wholes = [
        torch.from_numpy(prepared(draw(40, 52, k), 32)).permute(2, 0, 1) / 127.5 - 1
        for k in range(2)
    ]
    allowed = torch.stack([w.flip(2) if f else w for w in wholes for f in (0, 1)])
    each = (crops[:, None] - allowed).abs().amax((2, 3, 4)) < 1e-6
    assert each.any(1).all()
    assert (each.sum(0) > 3).all()


@pytest.mark.parametrize(("orientations", "count"), [("all", 8), ("flip", 2), ("none", 1)])
def test_orientations(tmp_path, orientations, count):
    rows, cols = np.mgrid[:20, :20]
    write(tmp_path / "a.png", np.stack([rows, cols, 0 * rows], axis=-1).astype(np.uint8))
    held = load_photographs(tmp_path, min_side=8, halvings=0, orientations=orientations)
    stored = ((held.crops(Draws(0, 0, 0, 200), 8) + 1) * 127.5).round().long()
    steps = {
        tuple(int(p[i] - p[0, 0]) for p in crop[:2] for i in ((0, 1), (1, 0))) for crop in stored
    }
    assert len(steps) == count
    if count < 8:
        assert {s[1] for s in steps} == {1}, "rows stay rows, from top to bottom"


def test_crops_larger_than_the_prepared_are_refused():
    with pytest.raises(SettingsError, match=r"prepare = 64: .*crops of 128 pixels.* to 64"):
        PriorSettings.of({"prepare": 64, "crop_cycle": (128, 64)})


def test_held_out_photographs_are_prepared_too(photographs):
    assert {tuple(p.shape) for p in load_holdout(photographs, prepare=24)} == {(3, 24, 24)}


# What is what


def test_kinds_of_data(tmp_path):
    for name, files in {
        "photos": ["a.jpg", "b.png"],
        "mixed": ["a.jpg", "backup.tar"],
        "shards": ["a.tar", "b.tar", "sizes.json", ".hidden"],
        "rows": ["a.parquet", "README.md"],
        "saved": ["dataset_info.json", "data.arrow", "state.json"],
        "classes": ["dog/a.jpg", "a.tar"],
    }.items():
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).touch()
    kinds = {path.name: kind_of(path) for path in tmp_path.iterdir()}
    assert kinds == {
        "photos": "folder",
        "mixed": "folder",
        "shards": "shards",
        "rows": "dataset",
        "saved": "dataset",
        "classes": "folder",
    }
    assert kind_of("hf:name") == kind_of("x.parquet") == kind_of("y.arrow") == "dataset"


# Datasets


@pytest.fixture
def rows(monkeypatch, tmp_path):
    """A dataset of pictures with classes, one of which cannot be read, and the library."""
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {
            "name": datasets.Value("string"),
            "picture": datasets.Image(),
            "kind": datasets.ClassLabel(names=["eel", "dog", "cat"]),
        }
    )
    pictures = [{"bytes": png(flat(k)), "path": None} for k in range(5)]
    pictures.append({"bytes": b"no picture", "path": None})
    columns = {"name": list("abcdef"), "picture": pictures, "kind": [0, 1, 1, 0, 1, 0]}
    return datasets, datasets.Dataset.from_dict(columns, features=features)


def test_datasets_in_all_their_forms(rows, tmp_path):
    datasets, dataset = rows
    dataset.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"test": dataset.select([0]), "train": dataset}).save_to_disk(
        str(tmp_path / "splits")
    )
    (tmp_path / "rows").mkdir()
    dataset.to_parquet(str(tmp_path / "rows" / "train.parquet"))
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    names = ("saved", "splits", "rows", "rows/train.parquet", arrow, f"hf:{tmp_path}/rows:train")
    for name in map(str, names):
        data = name if name.startswith("hf:") else tmp_path / name
        held = load_photographs(data, min_side=8, halvings=0)
        assert held.n_photographs == 5, name
        assert held.classes == ("eel", "dog", "cat")
        assert held.labels.tolist() == [0, 1, 1, 0, 1]
        assert shown(held.crops(Draws(0, 0, 0, 50), 8)).unique().tolist() == [0, 1, 2, 3, 4]
        (left_out,) = held.skipped
        assert left_out.path.name == "5"
        assert "unreadable" in left_out.reason


def test_datasets_that_will_not_do_are_told_apart(rows, tmp_path):
    _, dataset = rows
    dataset.remove_columns("picture").to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(SettingsError, match=r"the columns name, kind; expected one of pictures"):
        load_photographs(tmp_path / "a.parquet")
    for data in (f"hf:{tmp_path}/nowhere", tmp_path / "b.parquet"):
        with pytest.raises(SettingsError, match="cannot be opened"):
            load_photographs(data)


def test_without_the_library_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr("sfumato.training.hub.installed", lambda name: False)
    with pytest.raises(SettingsError, match=r'pip install "sfumato\[train\]"'):
        entries_of("hf:some/name")
