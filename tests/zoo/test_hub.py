"""Models of the hub by name, with a stand-in for it: what it is asked for, and what is said."""

import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

from sfumato.errors import ModelError
from sfumato.zoo import load_prior
from sfumato.zoo.hub import HubName, at_hand, fetch
from sfumato.zoo.listing import list_models
from sfumato.zoo.names import NAMES

pytest.importorskip("diffusers", reason="diffusers is not installed (sfumato[models])")

import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError

from tiny_folders import dit, pipeline, unet

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories as folders; ``snapshot_download`` copies what is asked for into the cache."""

    def __init__(self, root):
        self.root, self.cache = root / "hub", root / "cache"
        self.asked = []
        self.online = True

    def snapshot_download(self, repo, *, revision=None, cache_dir=None, allow_patterns=None):
        place = Path(cache_dir) / f"models--{repo.replace('/', '--')}"
        snapshot = place / "snapshots" / REVISION
        if not self.online:
            raise LocalEntryNotFoundError("Cannot find an appropriate cached snapshot")
        self.asked.append((repo, revision, tuple(allow_patterns)))
        if not (self.root / repo).is_dir():
            raise type("RepositoryNotFoundError", (OSError,), {})("401 Client Error.")
        for file in (self.root / repo).rglob("*"):
            name = file.relative_to(self.root / repo)
            if file.is_file() and any(fnmatch(str(name), p) for p in allow_patterns):
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, snapshot / name)
        (place / "refs").mkdir(parents=True, exist_ok=True)
        (place / "refs" / (revision or "main")).write_text(REVISION)
        return str(snapshot)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    stand_in = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", stand_in.snapshot_download)
    return stand_in


def repository(hub, name="some/cats", **options):
    return pipeline(hub.root / name, **options)


def files(path):
    return {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}


def test_a_model_is_fetched_once_and_then_needs_no_hub(hub):
    repository(hub)
    first = at_hand("hf:some/cats", hub.cache)
    assert hub.asked
    hub.online = False
    assert at_hand("hf:some/cats", hub.cache) == first
    assert load_prior(first).denoiser(torch.zeros(1, 3, 16, 16), 0.5).shape == (1, 3, 16, 16)


def test_names_load_from_the_hubs_own_cache(hub, monkeypatch):
    repository(hub)
    fetch(HubName("some/cats"), hub.cache)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub.cache))
    prior = load_prior("hf:some/cats")
    assert prior.name == "hf:some/cats"
    assert prior.card.startswith("# hf:some/cats")


def test_only_what_a_model_is_made_of_is_fetched(hub):
    path = repository(hub)
    (path / "README.md").write_text("# Cats")
    stray = "vae/diffusion_pytorch_model.safetensors"
    for name in ("unet/diffusion_pytorch_model.bin", "run.py", stray):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"no")
    held = files(fetch(HubName("some/cats"), hub.cache))
    assert held == {
        "README.md", "model_index.json", "scheduler/scheduler_config.json", "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }  # fmt: skip


def test_pickles_are_fetched_where_there_is_nothing_else(hub):
    repository(hub, safe=False)
    path = fetch(HubName("some/cats"), hub.cache)
    assert "unet/diffusion_pytorch_model.bin" in files(path)
    assert load_prior(path, precision="fp32").n_parameters > 0


def test_what_lies_half_in_the_cache_is_fetched(hub):
    repository(hub)
    path = fetch(HubName("some/cats"), hub.cache)
    (path / "unet/diffusion_pytorch_model.safetensors").unlink()
    hub.asked.clear()
    assert at_hand("hf:some/cats", hub.cache) == path
    assert hub.asked


def test_shards_are_whole_when_all_are_there(hub):
    path = repository(hub)
    (path / "unet/diffusion_pytorch_model.safetensors").unlink()
    unet().save_pretrained(path / "unet", max_shard_size="20KB")
    folder = fetch(HubName("some/cats"), hub.cache)
    shards = sorted((folder / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    assert load_prior(folder).n_parameters > 0
    shards[0].unlink()
    hub.asked.clear()
    at_hand("hf:some/cats", hub.cache)
    assert hub.asked


def test_one_file_and_a_revision(hub):
    path = hub.root / "some/denoisers"
    path.mkdir(parents=True)
    (path / "drunet_color.pth").write_bytes(b"weights")
    (path / "other.pth").write_bytes(b"weights")
    found = at_hand("hf:some/denoisers/drunet_color.pth@v1", hub.cache)
    assert found.name == "drunet_color.pth"
    assert found.read_bytes() == b"weights"
    assert hub.asked == [("some/denoisers", "v1", ("drunet_color.pth", "drunet_color.md"))]
    assert at_hand("hf:some/denoisers/drunet_color.pth@v1", hub.cache) == found
    assert at_hand(f"hf:some/denoisers/drunet_color.pth@{REVISION}", hub.cache) == found
    assert len(hub.asked) == 1
    assert not found.with_name("other.pth").exists()


def test_the_digest_is_of_what_was_read(hub):
    repository(hub)
    path = fetch(HubName("some/cats"), hub.cache)
    before = load_prior(path).digest
    (path / "README.md").write_text("# Cats")
    assert load_prior(path).digest == before


def test_without_a_network_there_is_one_clear_line(hub):
    hub.online = False
    with pytest.raises(ModelError) as caught:
        at_hand("hf:some/cats", hub.cache)
    assert str(caught.value) == (
        "hf:some/cats is not in the cache, and the hub cannot be reached; connect this machine, "
        "or fetch it elsewhere with: sfumato models download some/cats --cache FOLDER, and give "
        "the folder that this names"
    )


def test_what_the_hub_does_not_hold(hub):
    with pytest.raises(ModelError, match="there is no hf:no/body on the hub"):
        at_hand("hf:no/body", hub.cache)
    (hub.root / "some/words").mkdir(parents=True)
    (hub.root / "some/words/config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds no network"):
        at_hand("hf:some/words", hub.cache)
    repository(hub)
    (hub.root / "some/cats/unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights of its network"):
        at_hand("hf:some/cats", hub.cache)
    with pytest.raises(ModelError, match=r"holds no weights\.pth; expected a file of it"):
        at_hand("hf:some/words/weights.pth", hub.cache)


@pytest.mark.parametrize(
    "name", ["hf:", "hf:cats", "hf:some/../cats", "hf:some/cats@", "hf:a b/c"]
)
def test_names_that_are_none(name):
    with pytest.raises(ModelError, match="expected hf:OWNER/REPO"):
        HubName.parse(name)


def test_the_list_shows_what_is_in_the_cache(hub):
    path = repository(hub, net=unet(), beside={"summary": "Cats."})
    (path / "README.md").write_text("---\nlicense: mit\n---\n")
    repository(hub, "some/dit", net=dit(), safe=False)
    for name in ("some/cats", "some/dit"):
        fetch(HubName(name), hub.cache)
    # What other programs have put there.
    repository(hub, "some/latent", net=unet(in_channels=4, out_channels=4))
    hub.snapshot_download("some/latent", cache_dir=hub.cache, allow_patterns=["*"])
    *own, cats, transformer = list_models(hub.cache)
    assert [model.name for model in own] == list(NAMES)
    assert {model.licence for model in own} == {"Apache-2.0"}
    own = own[0]
    assert round(own.n_parameters / 1e6, 1) == 10.3
    assert (cats.name, cats.licence, cats.summary) == ("hf:some/cats", "mit", "Cats.")
    assert (cats.tile, cats.sizes) == (16, "any")
    assert cats.n_parameters == sum(p.numel() for p in unet().parameters())
    assert cats.size_bytes > 4 * cats.n_parameters
    assert transformer.name == "hf:some/dit"
    assert transformer.n_parameters is None
    assert transformer.sizes == "16 x 16, larger by tiles"


def test_latent_models_are_refused_before_their_weights_are_fetched(hub):
    repository(hub, net=unet(in_channels=4, out_channels=4))
    with pytest.raises(ModelError, match="not latent or grey ones"):
        fetch(HubName("some/cats"), hub.cache)
    assert [*hub.cache.rglob("*.safetensors")] == []


def test_the_hubs_own_client_without_a_network_is_told_of_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="hub cannot be reached"):
        fetch(HubName("some/cats"), tmp_path)


def test_the_list_needs_neither_torch_nor_diffusers(hub):
    repository(hub)
    fetch(HubName("some/cats"), hub.cache)
    script = (
        "import sys; from pathlib import Path; from sfumato.zoo.listing import list_models; "
        f"assert len(list_models(Path({str(hub.cache)!r}))) == {len(NAMES) + 1}; "
        "assert not {'torch', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
