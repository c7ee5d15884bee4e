"""What the commands do besides restoring: reports, samples, seeds, projection, models, signals."""

import hashlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from stand_in import grey, photo, pool, read, report_of, rmse, sfumato, unit, write

from sfumato import __version__
from sfumato.zoo.names import NAMES

BOX = ("--kernel", "box", "-s", 2)
QUICK = ("--steps", 2, "-t", 32)


@pytest.fixture
def small(tmp_path):
    return write(tmp_path / "small.png", photo(17, 25))


def test_the_report_says_what_was_done(tmp_path, small, prior):
    out = tmp_path / "out.png"
    done = sfumato("upscale", small, "-o", out, "-n", prior, *BOX, *QUICK, "--seed", 7)
    assert done.code == 0, done.err
    report = report_of(out)
    assert report["task"] == "upscale"
    assert report["degradation"] == "average_pool:2"
    assert (report["width"], report["height"]) == (50, 34)
    assert report["input_digest"] == hashlib.sha256(small.read_bytes()).hexdigest()
    assert report["model_digest"] == hashlib.sha256(prior.read_bytes()).hexdigest()
    assert report["model"] == str(prior)
    assert report["version"] == __version__
    assert report["tiles"] > 1
    assert report["evaluations_per_tile"] == 2
    assert report["network_evaluations"] == 2 * report["tiles"]
    assert report["seconds"] > 0
    assert report["seam_score"] > 0
    low, high = report["seam_band"]
    assert low < high
    settings = report["settings"]
    assert (settings["seed"], settings["steps"], settings["tile"]) == (7, 2, 32)
    assert None not in settings.values()
    line = done.out.strip()
    assert line.count("\n") == 0
    assert f"consistency {report['consistency_rmse_255']:.3f}/255" in line
    assert f"{report['tiles']} tiles" in line


def test_the_report_goes_where_it_is_asked_for(tmp_path, small, prior):
    there = tmp_path / "new" / "proof.json"
    done = sfumato(
        "upscale", small, "-o", tmp_path / "out.png", "-n", prior, *BOX, *QUICK, "--report", there
    )
    assert done.code == 0, done.err
    assert there.exists()
    assert not (tmp_path / "out.png.json").exists()


def test_the_noise_of_the_input_is_told_beside_the_consistency(tmp_path, small, prior):
    out = tmp_path / "out.png"
    done = sfumato("denoise", small, "--noise", 0.1, "-o", out, "-n", prior, *QUICK)
    assert done.code == 0, done.err
    assert any("25.5/255" in note for note in report_of(out)["notes"])
    assert "25.5/255" in done.out


@pytest.mark.parametrize(
    ("asked", "told"), [([], True), (["--no-collaborative"], False), (["--collaborative"], True)]
)
def test_collaborative_filtering_can_be_left_out(tmp_path, small, prior, asked, told):
    out = tmp_path / "out.png"
    words = ("denoise", small, "--noise", 0.1, "-o", out, "-n", prior, "--objective", "distortion")
    done = sfumato(*words, *asked)
    assert done.code == 0, done.err
    assert report_of(out)["settings"]["collaborative"] is told


def test_a_seed_decides_all(tmp_path, small, prior):
    def restored(name, *options):
        out = tmp_path / f"{name}.png"
        words = ("upscale", small, "-o", out, "-n", prior, *BOX, *QUICK, *options)
        assert sfumato(*words).code == 0
        return read(out)

    first = restored("a", "--seed", 1)
    assert (restored("b", "--seed", 1) == first).all()
    assert (restored("c", "--seed", 1, "--batch", 1) == first).all()
    assert (restored("d", "--seed", 2) != first).any()


def test_several_samples(tmp_path, small, prior):
    out = tmp_path / "out.png"
    done = sfumato("upscale", small, "-o", out, "-n", prior, *BOX, *QUICK, "--samples", 3)
    assert done.code == 0, done.err
    others = ["out.sample-2.png", "out.sample-3.png", "out.mean.png", "out.std.png"]
    written = {p.name for p in tmp_path.iterdir()}
    assert written == {"small.png", "out.png", "out.png.json", *others}
    samples = [read(out), *(read(tmp_path / name) for name in others[:2])]
    assert (samples[0] != samples[1]).any()
    assert (samples[1] != samples[2]).any()
    for u in [*samples, read(tmp_path / others[2])]:
        assert rmse(pool(unit(u), 2), unit(read(small))) < 0.5
    stack = np.stack([unit(u) for u in samples])
    assert np.abs(unit(read(tmp_path / others[2])) - stack.mean(0)).max() < 1 / 255
    spread = stack.std(0, ddof=1)
    assert np.abs(unit(read(tmp_path / others[3])) - spread / spread.max()).max() < 1 / 255
    assert any(f"{spread.max():.4f}" in note for note in report_of(out)["notes"])


def test_the_first_of_several_samples_is_the_one_of_one(tmp_path, small, prior):
    words = ("-n", prior, *BOX, *QUICK)
    sfumato("upscale", small, "-o", tmp_path / "one.png", *words)
    sfumato("upscale", small, "-o", tmp_path / "two.png", *words, "--samples", 2)
    assert (read(tmp_path / "one.png") == read(tmp_path / "two.png")).all()


def test_samples_that_are_all_the_same_are_told(tmp_path, small, prior):
    out = tmp_path / "out.png"
    done = sfumato(
        "upscale", small, "-o", out, "-n", prior, *BOX, *QUICK, "--samples", 2,
        "--sampler", "rounds",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "All samples are the same" in done.out


@pytest.mark.parametrize("refine", [(), ("--refine", 0.1, "--steps", 2)], ids=["", "refine"])
@pytest.mark.parametrize("channels", [1, 3])
def test_projection(tmp_path, prior, refine, channels):
    y = write(tmp_path / "y.png", photo(17, 25, channels))
    theirs = write(tmp_path / "theirs.png", photo(34, 50, channels, seed=5))
    out = tmp_path / "out.png"
    model = ("-n", prior) if refine else ()
    done = sfumato(
        "project", theirs, "--measurement", y, "-d", "average_pool:2", "-o", out, *refine, *model
    )
    assert done.code == 0, done.err
    found = read(out)
    assert found.shape == (34, 50, channels)
    agreement = rmse(pool(unit(found), 2), unit(read(y)))
    assert agreement < 0.5
    report = report_of(out)
    assert report["consistency_rmse_255"] == pytest.approx(agreement, abs=1e-3)
    before = rmse(pool(unit(read(theirs)), 2), unit(read(y)))
    assert f"consistency before: {before:.3f}/255" in report["notes"]
    assert bool(report["network_evaluations"]) == bool(refine)
    if not refine:
        moved = rmse(unit(found), unit(read(theirs)))
        assert moved <= before + 0.5, "nothing but the range-space part moved"


def test_projection_leaves_alone_what_agrees(tmp_path):
    theirs = write(tmp_path / "theirs.png", photo(34, 50))
    y = tmp_path / "y.png"
    sfumato("degrade", theirs, "-o", y, "-d", "average_pool:2")
    out = tmp_path / "out.png"
    done = sfumato("project", theirs, "--measurement", y, "-d", "average_pool:2", "-o", out)
    assert done.code == 0, done.err
    assert np.abs(read(out).astype(int) - read(theirs)).max() <= 1


def test_measurements(tmp_path):
    source = write(tmp_path / "x.png", photo(17, 25))
    y, exact = tmp_path / "y.png", tmp_path / "y.npy"
    said = sfumato("degrade", source, "-o", y, "-d", "grayscale | average_pool:4")
    assert said.code == 0, said.err
    assert "cropped to 24 x 16" in said.out
    u = pool(grey(unit(read(source)[:16, :24])), 4)
    assert np.abs(unit(read(y)) - u).max() <= 0.502 / 255
    assert sfumato("degrade", source, "-o", exact, "-d", "grayscale | average_pool:4").code == 0
    assert np.abs(np.load(exact)[0] - u[..., 0]).max() < 1e-6


def test_noise_of_measurements(tmp_path):
    source = write(tmp_path / "x.png", np.full((64, 64, 3), 128, np.uint8))
    values = []
    for seed in (0, 0, 1):
        out = tmp_path / "y.npy"
        assert sfumato("degrade", source, "-o", out, "-d", "noise:0.1", "--seed", seed).code == 0
        values.append(np.load(out))
    assert (values[0] == values[1]).all()
    assert (values[0] != values[2]).any()
    assert (values[0] - 128 / 255).std() == pytest.approx(0.1, rel=0.03)
    done = sfumato("degrade", source, "-o", tmp_path / "y.png", "-d", "noise:0.5")
    assert "were clipped" in done.out


def test_a_measurement_of_numbers_is_restored_from_them(tmp_path, prior):
    source, y, out = (tmp_path / n for n in ("x.png", "y.npy", "out.png"))
    write(source, photo(16, 24))
    sfumato("degrade", source, "-o", y, "-d", "average_pool:2")
    done = sfumato("restore", y, "-o", out, "-d", "average_pool:2", "-n", prior, *QUICK)
    assert done.code == 0, done.err
    assert rmse(pool(unit(read(out)), 2), np.load(y).transpose(1, 2, 0)) < 0.3


def test_models(prior, tmp_path):
    listed = sfumato("models", "list", "--cache", tmp_path)
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == list(NAMES)
    known = sfumato("models", "info", prior)
    assert known.code == 0
    assert hashlib.sha256(prior.read_bytes()).hexdigest() in known.out
    unknown = sfumato("models", "info", "nowhere")
    assert (unknown.code, unknown.err.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    "command",
    ["", "upscale", "inpaint", "colorize", "denoise", "deblur", "restore", "degrade", "project",
     "models", "models list", "models info", "models download", "models convert", "generate",
     "train", "train sr3", "train generator", "sr3", "sr3 search-schedule", "bench", "bench sr3"],
)  # fmt: skip
def test_help(command):
    done = sfumato(*command.split(), "--help")
    assert done.code == 0
    assert "Usage" in done.out


def test_version():
    assert sfumato("--version").out == f"sfumato {__version__}\n"


def test_help_loads_no_torch():
    script = (
        "import sys; sys.argv = ['sfumato', 'upscale', '--help']\n"
        "from sfumato.cli import main\n"
        "try: main()\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules and 'pyvips' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


#: Says when the network is asked for the first time, and lets it take its time.
SLOW = """
import time
from sfumato.diffusion.precondition import EDMDenoiser
def slow(self, x_t, sigma):
    print("asked", flush=True)
    time.sleep(60)
EDMDenoiser.forward = slow
from sfumato.cli import main
main()
"""


def test_interrupted_from_outside(tmp_path, small, prior):
    out = tmp_path / "out.png"
    words = ["upscale", small, "-o", out, "-n", prior, *BOX]
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout.readline() == "asked\n"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    said = "interrupted; where there is OUTPUT.job, the same command goes on from there"
    assert err == f"sfumato: {said}\n"
    assert [p.name for p in tmp_path.iterdir()] == ["small.png"]


def test_exit_codes_reach_the_shell(tmp_path):
    words = ["degrade", "none.png", "-o", "y.png", "-d", "nonsense"]
    run = subprocess.run(
        [sys.executable, "-m", "sfumato", *words], check=False, capture_output=True, cwd=tmp_path
    )
    assert run.returncode == 2
    assert b"Traceback" not in run.stderr
