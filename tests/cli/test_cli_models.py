"""Published models at the command line: they restore, and say what they are."""

import pytest
import torch
from stand_in import photo, pool, read, report_of, rmse, sfumato, unit, write

from sfumato.nn import DRUNet, DRUNetConfig, FFDNet, FFDNetConfig
from sfumato.zoo.names import NAMES

QUICK = ("--steps", 2)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write(tmp_path_factory.mktemp("small") / "small.png", photo(13, 10))


def folder(path, name):
    """One of the models that people have, of a few weights."""
    pytest.importorskip("diffusers", reason="diffusers is not installed (sfumato[models])")
    from diffusers import DDPMScheduler, EDMEulerScheduler

    from tiny_folders import bare, dit, pipeline, unet

    if name == "dit":
        return bare(path, dit(), {"licence": "MIT"})
    scheduler = EDMEulerScheduler() if name == "edm" else DDPMScheduler()
    return pipeline(path, unet(), scheduler)


def weights(path, name):
    """The weights of a Gaussian denoiser, as published but small."""
    net = DRUNet(DRUNetConfig((4, 4, 4, 4), 1)) if name == "drunet" else FFDNet(FFDNetConfig(8, 3))
    path.mkdir()
    torch.save(net.state_dict(), path / f"{name}_color.pth")
    return path / f"{name}_color.pth"


def made(tmp_path, name):
    gaussian = name in ("drunet", "ffdnet")
    return (weights if gaussian else folder)(tmp_path / name, name)


@pytest.mark.parametrize("name", ["ddpm", "edm", "dit", "drunet", "ffdnet"])
def test_they_make_pictures_larger_and_keep_to_the_small_one(tmp_path, small, name):
    model, out = made(tmp_path, name), tmp_path / "large.png"
    done = sfumato("upscale", small, "-o", out, "-s", 2, "--kernel", "box", "-n", model, *QUICK)
    assert done.code == 0, done.err
    assert rmse(pool(unit(read(out)), 2), unit(read(small))) < 0.3
    report = report_of(out)
    assert report["model"] == str(model)
    assert (report["tiles"] > 1) == (name not in ("drunet", "ffdnet"))


@pytest.mark.parametrize(
    "name", ["ffdnet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddpm", "dit"))]
)
def test_several_processes_are_sent_the_network_and_give_the_same_bits(tmp_path, small, name):
    model, one, two = made(tmp_path, name), tmp_path / "one.png", tmp_path / "two.png"
    common = ("-s", 2, "--kernel", "box", "-n", model, *QUICK, "--stitch", "mask-shift")
    done = sfumato("upscale", small, "-o", one, *common)
    assert done.code == 0, done.err
    done = sfumato("upscale", small, "-o", two, *common, "--workers", 2)
    assert done.code == 0, done.err
    assert one.read_bytes() == two.read_bytes()


def test_other_tiles_than_a_network_knows_are_refused(tmp_path, small):
    model, out = made(tmp_path, "dit"), tmp_path / "large.png"
    done = sfumato("upscale", small, "-o", out, "-s", 2, "-n", model, "--tile", 32)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "which sees 16 x 16 pixels only; expected 16; leave out --tile" in done.err
    assert not out.exists()


def test_a_dry_run_of_a_fixed_size(tmp_path, small):
    model, out = made(tmp_path, "dit"), tmp_path / "x.png"
    done = sfumato("upscale", small, "-o", out, "-s", 2, "-n", model, "--dry-run")
    assert done.code == 0, done.err
    assert "tile 16" in done.out


def test_more_noise_than_a_denoiser_knows_is_refused(tmp_path, small):
    model, out = made(tmp_path, "drunet"), tmp_path / "clean.png"
    done = sfumato("denoise", small, "-o", out, "--noise", 0.3, "-n", model)
    assert done.code == 2
    assert "noise of 76.5/255" in done.err
    assert "noise of up to 50/255" in done.err
    done = sfumato("denoise", small, "-o", out, "--noise", 0.1, "-n", model)
    assert done.code == 0, done.err


def test_what_a_model_says_of_itself(tmp_path):
    said = sfumato("models", "info", made(tmp_path, "dit"))
    assert said.code == 0, said.err
    for words in (
        "kind     diffusers DiTTransformer2DModel",
        "licence  MIT",
        "tile 16",
        "sizes    16 x 16, larger by tiles",
        "noise    up to sigma 157.4 on [-1, 1]",
        "classes  0, 1, 2",
    ):
        assert words in said.out
    said = sfumato("models", "info", made(tmp_path, "drunet"))
    assert "noise    up to sigma 0.3922 on [-1, 1], 50/255" in said.out


def test_a_model_is_downloaded_and_listed(tmp_path, monkeypatch):
    pytest.importorskip("diffusers", reason="diffusers is not installed (sfumato[models])")
    import huggingface_hub

    cache = tmp_path / "cache"
    repository = cache / "models--some--cats"

    def snapshot_download(repo, *, revision, cache_dir, allow_patterns):
        assert (repo, revision, str(cache_dir)) == ("some/cats", None, str(cache))
        path = repository / "snapshots" / "abc"
        if not path.is_dir():
            folder(path, "ddpm")
            (repository / "refs").mkdir()
            (repository / "refs" / "main").write_text("abc")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    done = sfumato("models", "download", "some/cats", "--cache", cache)
    assert done.code == 0, done.err
    assert str(repository / "snapshots" / "abc") in done.out
    listed = sfumato("models", "list", "--cache", cache).out.splitlines()
    assert [line.split()[0] for line in listed] == [*NAMES, "hf:some/cats"]
    assert "10.3 M parameters  tile 512  sizes: any  Apache-2.0" in listed[0]


def test_without_a_network_a_download_fails_in_one_line(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = sfumato("models", "download", "some/cats", "--cache", tmp_path)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "the hub cannot be reached" in done.err


def test_the_mean_of_models(tmp_path):
    from sfumato.zoo import load_prior

    source, out = load_prior().source, tmp_path / "mean.safetensors"
    done = sfumato("models", "mean", source, source, "-o", out, "--weight", 1, "--weight", 2)
    assert done.code == 0, done.err
    x = torch.zeros(1, 3, 16, 16)
    assert torch.equal(load_prior(out).denoiser(x, 0.1), load_prior().denoiser(x, 0.1))
    wrong = sfumato("models", "mean", source, load_prior("sr3").source, "-o", out)
    assert (wrong.code, "expected models of one form" in wrong.err) == (1, True)
    named = sfumato("models", "mean", source, source, "-o", tmp_path / "mean.pt")
    assert named.code == 2


def test_denoising_takes_the_prior_for_both_objectives(tmp_path, small):
    models = []
    for options in ((), ("--objective", "perception")):
        out = tmp_path / "out.png"
        done = sfumato("denoise", small, "-o", out, "--noise", 0.1, *options)
        assert done.code == 0, done.err
        models.append(report_of(out)["model"])
    assert models == ["embedded", "embedded"]
