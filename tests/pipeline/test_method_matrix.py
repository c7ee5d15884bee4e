"""Every method, over tiles stitched in every way, for every task."""

import pytest
import torch

from sfumato.diffusion.precondition import EDMDenoiser
from sfumato.errors import SettingsError
from sfumato.guidance import METHODS
from sfumato.nn import UNetConfig, seeded_unet
from sfumato.operators import parse
from sfumato.pipeline import Settings, restore
from sfumato.zoo import Prior

SIDE = 64
TASKS = ["average_pool:4", "bicubic:2", "random_mask:0.5", "grayscale", "gaussian_blur:1.0"]
STITCHES = ["whole", "joint", "mask-shift", "independent"]
EXACT = [name for name, method in METHODS.items() if method.exact]
NOISY = [name for name, method in METHODS.items() if method.noisy and not method.alone]
ALONE = [name for name, method in METHODS.items() if method.alone]


def prior():
    net = seeded_unet(UNetConfig((4, 8), 1, 2, 8), 0)
    torch.nn.init.normal_(net.tail[-1].weight, std=0.1, generator=torch.Generator().manual_seed(1))
    D = EDMDenoiser(net).eval().requires_grad_(False)
    return Prior("tiny", D, "0", 64, 4, 80.0, "fp32", 1, "", None)


PRIOR = prior()


def picture(words, noise=0.0):
    rows, cols = torch.meshgrid(*[torch.linspace(0, 1, SIDE)] * 2, indexing="ij")
    u = torch.stack([0.3 + 0.4 * rows, 0.6 - 0.3 * cols, 0.4 + 0.2 * torch.sin(9 * rows * cols)])
    y = parse(words).operator((3, SIDE, SIDE))(u[None])[0]
    y = y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    return (y.clamp(0, 1) * 255).round() / 255


def restored(words, stitch, method, y, **more):
    # A blur's tiles leave to their neighbours what they do not see all of.
    tile, overlap = (48, 32) if "blur" in words or "bicubic" in words else (32, 8)
    settings = Settings(
        method=method,
        stitch=stitch,
        tile=tile,
        overlap=overlap,
        steps=3,
        levels=1,
        time_travel=(2, 2) if method == "repaint" else None,
        **more,
    )
    return restore(y, words, prior=PRIOR, settings=settings)


@pytest.mark.parametrize("stitch", STITCHES)
@pytest.mark.parametrize("words", TASKS)
@pytest.mark.parametrize("method", EXACT)
def test_exact_measurements(method, words, stitch):
    result = restored(words, stitch, method, picture(words))
    assert torch.isfinite(result.image).all()
    # Nobody sees the values of a blur that straddle the borders of independent tiles.
    seen = stitch != "independent" or words not in ("bicubic:2", "gaussian_blur:1.0")
    if method != "none" and seen:
        assert result.report.consistency_rmse_255 < 0.5


@pytest.mark.parametrize("stitch", STITCHES)
@pytest.mark.parametrize("method", NOISY)
def test_noisy_measurements(method, stitch):
    words = "average_pool:2"
    result = restored(f"{words} | noise:0.05", stitch, method, picture(words, 0.05))
    assert torch.isfinite(result.image).all()


@pytest.mark.parametrize("stitch", STITCHES)
@pytest.mark.parametrize("method", ALONE)
def test_noise_alone(method, stitch):
    result = restored("identity | noise:0.05", stitch, method, picture("identity", 0.05))
    assert torch.isfinite(result.image).all()
    with pytest.raises(SettingsError, match="expected noise alone, since it begins at the"):
        restored("average_pool:2 | noise:0.05", stitch, method, picture("average_pool:2"))


@pytest.mark.parametrize("method", ["mmps", "pigdm", "dps", "ilvr"])
@pytest.mark.parametrize("stitch", ["mask-shift", "joint"])
def test_bits_do_not_depend_on_the_batch(method, stitch):
    y = picture("average_pool:4")
    one, three = (restored("average_pool:4", stitch, method, y, batch=n).image for n in (1, 3))
    assert torch.equal(one, three)


def test_repaint_travels_in_time_unless_told_otherwise():
    y = picture("random_mask:0.5")
    settings = Settings(method="repaint", steps=12, levels=1)
    travelled = restore(y, "random_mask:0.5", prior=PRIOR, settings=settings).report
    assert travelled.settings["time_travel"] == (10, 3)
    assert travelled.evaluations_per_tile == 32
    plain = Settings(method="repaint", steps=12, levels=1, time_travel=(1, 1))
    assert (
        restore(y, "random_mask:0.5", prior=PRIOR, settings=plain).report.evaluations_per_tile
        == 12
    )


def test_methods_that_need_noise_choose_a_sampler_that_has_it():
    y = picture("gaussian_blur:1.0")
    settings = Settings(method="ilvr", steps=2)
    report = restore(y, "gaussian_blur:1.0", prior=PRIOR, settings=settings).report
    assert report.settings["sampler"] == "ddim"
    with pytest.raises(SettingsError, match="method ilvr with sampler rounds"):
        restore(
            y,
            "gaussian_blur:1.0",
            prior=PRIOR,
            settings=Settings(method="ilvr", objective="distortion"),
        )


def test_methods_by_singular_values_want_an_operator_with_some():
    y = picture("motion_blur:7:30")
    settings = Settings(method="ddrm", steps=2)
    with pytest.raises(SettingsError, match=r"method ddrm for .*; expected an operator with a ch"):
        restore(y, "motion_blur:7:30", prior=PRIOR, settings=settings)
