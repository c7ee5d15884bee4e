"""The promise: ``A`` of the written file is the input, measured here by other formulas."""

import numpy as np
import pytest
from stand_in import grey, photo, pool, read, report_of, rmse, sfumato, unit, write

QUICK = ("--steps", 2, "-t", 32)
STITCHES = ("mask-shift", "joint", "independent", "whole")
#: Rounding to 8 bits makes 0.29; the promise leaves room for what is not quite settled.
PROMISE = 0.5


def check(path, measured, expected, weight=1.0):
    """The written file keeps the promise, and its report tells the same."""
    found = rmse(measured, expected, weight)
    assert found <= PROMISE
    assert report_of(path)["consistency_rmse_255"] == pytest.approx(found, abs=1e-3)


@pytest.mark.parametrize("stitch", STITCHES)
@pytest.mark.parametrize(
    ("scale", "size", "channels"),
    [(2, (23, 37), 3), (3, (17, 13), 1), (4, (11, 13), 3), (7, (5, 7), 3), (2, (1, 50), 1)],
)
def test_pooling(tmp_path, prior, stitch, scale, size, channels):
    source = write(tmp_path / "small.png", photo(*size, channels))
    out = tmp_path / "large.png"
    done = sfumato(
        "upscale", source, "-o", out, "-n", prior, "-s", scale, "--kernel", "box",
        "--stitch", stitch, *QUICK,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert read(out).shape == (size[0] * scale, size[1] * scale, channels)
    check(out, pool(unit(read(out)), scale), unit(read(source)))
    settings = report_of(out)["settings"]
    assert (settings["stitch"], settings["tile"]) == (stitch, 32)


@pytest.mark.parametrize(
    ("size", "scale"),
    [((1, 1), 2), ((1, 1), 7), ((1, 50), 3), ((53, 1), 2), ((2, 3), 7), ((31, 61), 2)]
    + [((7, 9), scale) for scale in (1, 5, 6, 9, 10, 12, 14)],
)
def test_any_size(tmp_path, prior, size, scale):
    source = write(tmp_path / "small.png", photo(*size))
    out = tmp_path / "large.tif"
    done = sfumato(
        "upscale", source, "-o", out, "-n", prior, "-s", scale, "--kernel", "box", *QUICK
    )
    assert done.code == 0, done.err
    check(out, pool(unit(read(out)), scale), unit(read(source)))


@pytest.mark.parametrize("extreme", [0, 255])
def test_black_and_white_are_met(tmp_path, prior, extreme):
    values = photo(12, 12)
    values[:6] = extreme
    source, out = write(tmp_path / "small.png", values), tmp_path / "large.png"
    done = sfumato("upscale", source, "-o", out, "-n", prior, "-s", 2, "--kernel", "box", *QUICK)
    assert done.code == 0, done.err
    assert (read(out)[:12] == extreme).all()
    check(out, pool(unit(read(out)), 2), unit(values))


@pytest.mark.parametrize("stitch", STITCHES)
@pytest.mark.parametrize("channels", [1, 3])
def test_masks(tmp_path, prior, mask, stitch, channels):
    source = write(tmp_path / "scratched.png", photo(37, 53, channels))
    out = tmp_path / "whole.png"
    done = sfumato(
        "inpaint", source, "-m", mask.path, "-o", out, "-n", prior, "--stitch", stitch, *QUICK
    )
    assert done.code == 0, done.err
    known = mask.known[..., 0].astype(bool)
    assert (read(out)[known] == read(source)[known]).all()
    assert report_of(out)["consistency_rmse_255"] == 0


def test_what_a_mask_hides_does_not_count(tmp_path, prior, mask):
    values = photo(37, 53)
    other = np.where(mask.known.astype(bool), values, 255 - values)
    outs = []
    for k, u in enumerate((values, other)):
        source, out = write(tmp_path / f"in{k}.png", u), tmp_path / f"out{k}.png"
        assert (
            sfumato("inpaint", source, "-m", mask.path, "-o", out, "-n", prior, *QUICK).code == 0
        )
        outs.append(read(out))
    assert (outs[0] == outs[1]).all()


@pytest.mark.parametrize("stitch", STITCHES)
@pytest.mark.parametrize("channels", [1, 3])
def test_grey(tmp_path, prior, stitch, channels):
    source = write(tmp_path / "grey.png", photo(19, 45, channels))
    out = tmp_path / "colour.png"
    done = sfumato("colorize", source, "-o", out, "-n", prior, "--stitch", stitch, *QUICK)
    assert done.code == 0, done.err
    y = unit(read(source))
    check(out, grey(unit(read(out))), grey(y) if channels == 3 else y)


def test_grey_of_black_and_white(tmp_path, prior):
    values = photo(16, 16, 1)
    values[:8], values[8:] = 0, 255
    source, out = write(tmp_path / "grey.png", values), tmp_path / "colour.png"
    assert sfumato("colorize", source, "-o", out, "-n", prior, *QUICK).code == 0
    assert (read(out) == values).all()


def test_grey_with_strokes_of_colour(tmp_path, prior):
    strokes = np.zeros((24, 40, 4), np.uint8)
    strokes[3:9, 4:20] = [200, 60, 40, 255]
    hints = write(tmp_path / "strokes.png", strokes)
    source = write(tmp_path / "grey.png", np.full((24, 40, 1), 120, np.uint8))
    out = tmp_path / "colour.png"
    done = sfumato("colorize", source, "--hints", hints, "-o", out, "-n", prior, *QUICK)
    assert done.code == 0, done.err
    found = read(out)
    assert rmse(grey(unit(found)), unit(read(source))) <= PROMISE
    stroke = found[5, 10].astype(int)
    assert stroke[0] > stroke[1] + 60, "the stroke is red"
    assert stroke[0] > stroke[2] + 60
    assert report_of(out)["consistency_rmse_255"] <= PROMISE


@pytest.mark.parametrize("stitch", STITCHES)
@pytest.mark.parametrize("channels", [1, 3])
def test_old_photograph_with_scratches_marked_on_the_scan(tmp_path, prior, mask, stitch, channels):
    source = write(tmp_path / "scan.png", photo(37, 53, channels))
    out = tmp_path / "new.png"
    words = f"grayscale | average_pool:2 | mask:{mask.path}"
    done = sfumato(
        "restore", source, "-d", words, "-o", out, "-n", prior, "--stitch", stitch, *QUICK
    )
    assert done.code == 0, done.err
    y = unit(read(source))
    measured = pool(grey(unit(read(out))), 2)
    check(out, measured, grey(y) if channels == 3 else y, mask.known)


@pytest.mark.parametrize("stitch", STITCHES)
def test_old_photograph_scratched_before_it_was_made_small(tmp_path, prior, stitch):
    kept = np.random.default_rng(1).random((36, 44, 1)) < 0.7
    kept[:6, :6] = False
    mask = write(tmp_path / "mask.png", np.uint8(255 * ~kept))
    share = pool(kept.astype(float), 2)
    y = np.rint(share * photo(18, 22, 1)).astype(np.uint8)
    source, out = write(tmp_path / "scan.png", y), tmp_path / "new.png"
    words = f"mask:{mask} | grayscale | average_pool:2"
    done = sfumato(
        "restore", source, "-d", words, "-o", out, "-n", prior, "--stitch", stitch, *QUICK
    )
    assert done.code == 0, done.err
    measured = pool(grey(unit(read(out)) * kept), 2)
    check(out, measured, unit(y), share > 0)


def test_pooled_grey(tmp_path, prior):
    source = write(tmp_path / "small.png", photo(13, 29))
    out = tmp_path / "large.png"
    words = "grayscale | average_pool:2"
    assert sfumato("restore", source, "-d", words, "-o", out, "-n", prior, *QUICK).code == 0
    check(out, pool(grey(unit(read(out))), 2), grey(unit(read(source))))


def cubic(n, s):
    """Return the matrix of antialiased bicubic resampling of n·s pixels to n (Keys, a = -0.5)."""
    t = np.abs(np.arange(n * s)[None] + 0.5 - (np.arange(n)[:, None] + 0.5) * s) / s
    w = np.where(t < 1, (1.5 * t - 2.5) * t**2 + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2) * (t < 2)
    return w / w.sum(1, keepdims=True)


@pytest.mark.parametrize("stitch", ["joint", "whole", "auto"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic(tmp_path, prior, stitch, scale):
    real = write(tmp_path / "real.png", photo(48, 36, seed=2))
    small, out = tmp_path / "small.png", tmp_path / "large.png"
    assert sfumato("degrade", real, "-o", small, "-d", f"bicubic:{scale}").code == 0
    down = [cubic(n // scale, scale) for n in (48, 36)]
    resample = lambda u: np.einsum("ij,jkc,lk->ilc", down[0], u, down[1])  # noqa: E731
    y = np.clip(np.rint(255 * resample(unit(read(real)))), 0, 255)
    assert np.abs(read(small) - y).max() <= 1
    done = sfumato(
        "upscale", small, "-s", scale, "-o", out, "-n", prior, "--stitch", stitch, *QUICK
    )
    assert done.code == 0, done.err
    check(out, resample(unit(read(out))), unit(read(small)))


@pytest.mark.parametrize("levels", [2, 3])
def test_hierarchy(tmp_path, prior, levels):
    source = write(tmp_path / "small.png", photo(13, 21))
    out = tmp_path / "large.png"
    done = sfumato(
        "upscale", source, "-o", out, "-n", prior, "-s", 4, "--kernel", "box",
        "--levels", levels, *QUICK,
    )  # fmt: skip
    assert done.code == 0, done.err
    check(out, pool(unit(read(out)), 4), unit(read(source)))
    assert [level["ratio"] for level in report_of(out)["levels"]] == [4, 2, 1][-levels:]


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm-solver++", "rounds"])
def test_every_sampler(tmp_path, prior, sampler):
    travel = "1:1" if sampler == "rounds" else "1:2"
    source = write(tmp_path / "small.png", photo(13, 21))
    out = tmp_path / "large.png"
    done = sfumato(
        "upscale", source, "-o", out, "-n", prior, "-s", 2, "--kernel", "box",
        "--sampler", sampler, "--time-travel", travel, *QUICK,
    )  # fmt: skip
    assert done.code == 0, done.err
    check(out, pool(unit(read(out)), 2), unit(read(source)))
    assert report_of(out)["settings"]["sampler"] == sampler


@pytest.mark.parametrize("order", ["raster", "reverse", "centre", "known-first"])
def test_every_order(tmp_path, prior, mask, order):
    source = write(tmp_path / "scan.png", photo(37, 53, 1))
    out = tmp_path / "new.png"
    words = f"grayscale | average_pool:2 | mask:{mask.path}"
    done = sfumato(
        "restore", source, "-d", words, "-o", out, "-n", prior, "--order", order,
        "--stitch", "mask-shift", *QUICK,
    )  # fmt: skip
    assert done.code == 0, done.err
    check(out, pool(grey(unit(read(out))), 2), unit(read(source)), mask.known)


BLURS = ["gaussian:2.0", "uniform:9", "motion:15:30", "anisotropic:3:1:20", "KERNEL"]


@pytest.mark.parametrize("blur", BLURS)
def test_blur(tmp_path, prior, blur):
    if blur == "KERNEL":
        blur = write(tmp_path / "kernel.png", photo(5, 7, 1))
    sharp, blurred = write(tmp_path / "sharp.png", photo(23, 33)), tmp_path / "blurred.png"
    from sfumato.operators import blur_word

    assert sfumato("degrade", sharp, "-o", blurred, "-d", blur_word(str(blur))).code == 0
    out = tmp_path / "again.png"
    done = sfumato("deblur", blurred, "--blur", blur, "-o", out, "-n", prior, *QUICK)
    assert done.code == 0, done.err
    assert done.err == ""
    assert report_of(out)["consistency_rmse_255"] < PROMISE
    again = tmp_path / "blurred-again.png"
    assert sfumato("degrade", out, "-o", again, "-d", blur_word(str(blur))).code == 0
    assert rmse(unit(read(again)), unit(read(blurred))) < 0.7, "both were rounded"


@pytest.mark.parametrize("blur", ["gaussian:1.2", "anisotropic:1.5:1:20"])
def test_a_small_blur_by_tiles_where_it_is_asked_for(tmp_path, prior, blur):
    """It streams: of a picture in memory no .zarr could be made."""
    sharp, blurred, out = (tmp_path / n for n in ("sharp.png", "blurred.tif", "again.zarr"))
    from sfumato.operators import blur_word

    word = blur_word(blur)
    write(sharp, photo(90, 101))
    assert sfumato("degrade", sharp, "-o", blurred, "-d", word).code == 0
    words = ["--blur", blur, "-n", prior, "--steps", 1, "-t", 64, "--overlap", 32]
    done = sfumato("deblur", blurred, "-o", out, "--stitch", "mask-shift", *words)
    assert done.code == 0, done.err
    report = report_of(out)
    assert report["consistency_rmse_255"] < PROMISE
    assert report["tiles"] > 1
    assert report["settings"]["stitch"] == "mask-shift"
    done = sfumato("deblur", blurred, "-o", tmp_path / "auto.png", *words)
    assert report_of(tmp_path / "auto.png")["settings"]["stitch"] == "joint"
    large = ["--blur", "gaussian:6", "--stitch", "mask-shift", "-n", prior, "-t", 64]
    done = sfumato("deblur", blurred, "-o", tmp_path / "large.png", *large)
    assert done.code == 2
    assert "or a small blur by mask-shift; use --stitch joint" in done.err


def test_uniform_blur_by_its_own_formula(tmp_path, prior):
    """Inside, where no boundary is involved: the mean of 3 x 3 pixels."""
    sharp, blurred, out = (tmp_path / f"{n}.png" for n in ("sharp", "blurred", "again"))
    write(sharp, photo(20, 20))
    assert sfumato("degrade", sharp, "-o", blurred, "-d", "uniform_blur:3").code == 0
    assert (
        sfumato("deblur", blurred, "--blur", "uniform:3", "-o", out, "-n", prior, *QUICK).code == 0
    )
    u = unit(read(out))
    mean = sum(u[i : i + 18, j : j + 18] for i in range(3) for j in range(3)) / 9
    assert rmse(mean, unit(read(blurred))[1:-1, 1:-1]) < PROMISE


@pytest.mark.parametrize(
    "words", ["walsh_hadamard:0.25", "block_sensing:0.3", "grayscale | walsh_hadamard:0.25:8"]
)
def test_compressed_sensing(tmp_path, prior, words):
    sharp = write(tmp_path / "sharp.png", photo(37, 53))
    y, out, again = tmp_path / "y.npy", tmp_path / "x.png", tmp_path / "again.npy"
    assert sfumato("degrade", sharp, "-o", y, "-d", words).code == 0
    done = sfumato("restore", y, "-o", out, "-d", words, "-n", prior, "--steps", 2, "-t", 64)
    assert done.code == 0, done.err
    assert sfumato("degrade", out, "-o", again, "-d", words).code == 0
    a, b = np.load(again), np.load(y)
    assert a.shape == (1 if "grayscale" in words else 3, 37, 53)
    check(out, a, b, b != 0)
