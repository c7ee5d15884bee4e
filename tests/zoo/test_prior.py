"""Priors: the embedded one works, and no other file passes for one."""

import hashlib
import subprocess
import sys

import pytest
import torch

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.errors import ModelError, SettingsError
from sfumato.io import save_checkpoint
from sfumato.nn import UNetConfig, seeded_unet
from sfumato.zoo import card, list_priors, load_prior
from sfumato.zoo.names import NAMES

FORM = {"channels": [4, 8], "blocks": 1, "unshuffle": 2, "embedding": 8}
CONFIG = {"kind": "prior", **FORM, "sigma_data": 0.5, "sigma_max": 80.0, "tile": 64}


def tensors():
    return EDMDenoiser(seeded_unet(UNetConfig((4, 8), 1, 2, 8), 0)).state_dict()


def saved(tmp_path, state=None, **changes):
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, tensors() if state is None else state, CONFIG | changes)
    return path


@pytest.fixture(scope="module")
def embedded():
    return load_prior(precision="fp32")


def picture(side=96):
    """Soft waves of colour with a hard edge: something a prior of photographs must know."""
    i = torch.arange(side) / side
    waves = torch.stack([(5 * i[:, None] + k * i[None]).sin() for k in (2.0, 3.0, 4.0)])
    waves[:, :, side // 2 :] *= -0.6
    return 0.7 * waves[None]


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_the_embedded_prior_removes_noise(embedded, sigma):
    x_0 = picture()
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    error = embedded.denoiser(x_0 + sigma * eps, sigma) - x_0
    assert error.square().mean().sqrt() < 0.3 * sigma


def test_the_embedded_prior_says_what_it_is(embedded):
    assert (embedded.name, embedded.stride, embedded.tile) == ("embedded", 16, 512)
    assert embedded.digest == hashlib.sha256(embedded.source.read_bytes()).hexdigest()
    assert embedded.n_parameters == 10_338_028
    assert embedded.card == card("embedded")
    for heading in ("Trained on", "Measured", "Limits"):
        assert f"## {heading}" in embedded.card
    assert not any(p.requires_grad for p in embedded.denoiser.parameters())


def test_auto_precision_is_settled():
    assert load_prior(precision="auto").precision in ("fp32", "bf16")


def test_listing_loads_no_torch():
    script = (
        "import sys, sfumato.zoo as zoo; priors = zoo.list_priors(); "
        "assert priors[0].summary and priors[0].size_bytes > 1e6; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert [prior.name for prior in list_priors()] == list(NAMES)


def test_ones_own_prior(tmp_path):
    path = saved(tmp_path, training={"steps": 7})
    prior = load_prior(path)
    assert (prior.name, prior.tile, prior.sigma_max) == ("own", 64, 80.0)
    assert '"steps": 7' in prior.card
    path.with_suffix(".md").write_text("# Mine", encoding="utf-8")
    assert load_prior(str(path)).card == "# Mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "gan"}, "kind 'gan'"),
        ({"channels": [10**9, 8]}, "channels"),
        ({"channels": [4096] * 8, "blocks": 16, "tile": 256}, "describes a network of"),
        ({"channels": "4, 8"}, "channels"),
        ({"channels": [4, [8]]}, "channels"),
        ({"channels": [[] for _ in range(2)]}, "channels"),
        ({"channels": None}, "channels"),
        ({"blocks": "1"}, "blocks"),
        ({"blocks": 2}, "describes a network of"),
        ({"embedding": 1.5}, "embedding"),
        ({"unshuffle": True}, "unshuffle"),
        ({"sigma_data": 0.0}, "sigma_data"),
        ({"sigma_max": "80"}, "sigma_max"),
        ({"tile": 66}, "stride 4"),
        ({"tile": 10**12}, "tile"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_impossible_headers_are_refused(tmp_path, changes, message):
    with pytest.raises(ModelError, match=message):
        load_prior(saved(tmp_path, **changes))


def test_other_tensors_are_refused(tmp_path):
    state = tensors()
    state["net.stranger"] = state.pop("net.head.bias")
    with pytest.raises(ModelError, match="stranger"):
        load_prior(saved(tmp_path, state))
    with pytest.raises(ModelError, match="describes a network of"):
        load_prior(saved(tmp_path, {}))


def test_damaged_and_missing_files_are_refused(tmp_path):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="own"):
        load_prior(path)
    with pytest.raises(ModelError, match=r"expected embedded, sr3.* or the path"):
        load_prior(tmp_path / "nothing.safetensors")


@pytest.mark.usefixtures("unchecked")
def test_devices_and_precisions_that_are_not_there():
    with pytest.raises(SettingsError, match="device"):
        load_prior(device="toaster")
    with pytest.raises(SettingsError, match="device"):
        load_prior(device="cuda:99")
    with pytest.raises(SettingsError, match="precision"):
        load_prior(precision="fp8")
