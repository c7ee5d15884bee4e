"""Estimates: of memory by what is counted, of time by pixels."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stand_in import photo, sfumato, write

from sfumato.operators import parse
from sfumato.pipeline import Settings, restore
from sfumato.pipeline.estimate import Outlook
from sfumato.pipeline.pace import Pace, pixels_of
from sfumato.pipeline.trial import LiveTensors, Trial
from sfumato.zoo import load_prior

IMAGE = 3 * 4 * 128 * 128


def shrink(x_t, sigma):
    return x_t * (0.25 / (0.25 + sigma**2))


@pytest.fixture(scope="module")
def free():
    """A prior that costs nothing: what is counted is the engine's."""
    return replace(load_prior(), denoiser=shrink)


@pytest.mark.parametrize(
    ("words", "stitch", "settings"),
    [
        ("average_pool:4", "joint", Settings(steps=2)),
        ("average_pool:4", "whole", Settings(steps=2, objective="distortion")),
        ("bicubic:4 | noise:0.05", "whole", Settings(steps=2)),
        ("gaussian_blur:2", "joint", Settings(steps=2)),
        ("identity | noise:0.1", "joint", Settings(steps=1)),
        ("average_pool:2", "whole", Settings(steps=2, samples=3)),
    ],
)
def test_so_many_images_are_alive_as_is_said(tmp_path, free, words, stitch, settings):
    settings = settings.model_copy(update={"stitch": stitch, "tile": 64, "overlap": 16})
    degradation = parse(words)
    u = torch.from_numpy(photo(128, 128)).permute(2, 0, 1) / 255
    y = degradation.operator((3, 128, 128))(u[None])[0].clamp(0, 1)
    live = LiveTensors()
    with live:
        restore(y, degradation, prior=free, settings=settings)
    source = write(tmp_path / "a.png", photo(*y.shape[1:], y.shape[0]))
    outlook = Outlook.of(source, degradation, prior=free, settings=settings)
    trial = Trial(free)
    said = outlook.estimate(tmp_path / "out.png", trial).memory_bytes - trial.program_bytes
    assert 0.5 * said < live.peak_bytes < 1.25 * said, (live.peak_bytes / IMAGE, said / IMAGE)


def test_mask_shift_takes_as_much_for_any_size(tmp_path, free):
    said = {}
    for side in (600, 1200):
        source = write(tmp_path / "a.png", photo(side, side, 1))
        outlook = Outlook.of(
            source, parse("average_pool:16"), prior=free, settings=Settings(stitch="mask-shift")
        )
        said[side] = outlook.estimate(tmp_path / "out.tif", Trial(free))
    small, large = said.values()
    assert (small.width, large.width) == (9600, 19200)
    assert large.memory_bytes < 1.15 * small.memory_bytes
    assert large.job_bytes == pytest.approx(4 * small.job_bytes)
    assert large.output_bytes == 19200 * 19200


def test_the_time_of_filtering_each_tile_counts(tmp_path, free, monkeypatch):
    monkeypatch.setattr(Trial, "filter_seconds", lambda self, height, width: height * width)
    source = write(tmp_path / "a.png", photo(160, 160))
    said = {}
    for asked in (False, True):
        settings = Settings(tile=96, overlap=32, collaborative=asked, objective="distortion")
        outlook = Outlook.of(source, parse("noise:0.1"), prior=free, settings=settings)
        estimate = outlook.estimate(tmp_path / "out.png", Trial(free))
        said[asked] = estimate.seconds
    assert estimate.tiles == 4
    assert said[True] - said[False] == pytest.approx(4 * 96 * 96, rel=0.01)


def test_a_network_takes_what_its_tensors_take(free):
    class Wide(torch.nn.Module):
        def forward(self, x_t, sigma):
            return x_t.repeat(1, 10, 1, 1)[:, :3] + sigma

    trial = Trial(replace(free, denoiser=Wide()))
    assert trial.bytes_per_pixel() > 4 * 30
    assert trial.weights_bytes == 0


def test_going_back_through_a_network_takes_more(free):
    class Back(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            time.sleep(0.02)
            return g

    class Deep(torch.nn.Module):
        evaluations = 2

        def forward(self, x_t, sigma):
            for _ in range(60):
                x_t = torch.tanh(x_t)
            return Back.apply(x_t)

    trial = Trial(replace(free, denoiser=Deep()))
    assert trial.bytes_per_pixel(1) > 10 * trial.bytes_per_pixel()
    assert trial.seconds(32, 32, passes=3) >= 3 * 0.02 / Deep.evaluations


def test_evaluations_within_a_denoiser_count_once(free):
    def slow(x_t, sigma):
        time.sleep(0.05)
        return x_t

    slow.evaluations = 2
    trial = Trial(replace(free, denoiser=slow))
    assert 0.02 < trial.seconds(8, 8) < 0.045


def test_a_tile_is_tried_out_once_for_each_size(free):
    sizes = []

    def counted(x_t, sigma):
        sizes.append(tuple(x_t.shape[2:]))
        return x_t

    trial = Trial(replace(free, denoiser=counted))
    first = trial.seconds(64, 64)
    assert trial.seconds(64, 64) == first
    trial.seconds(64, 32)
    assert set(sizes) == {(64, 64), (64, 32)}
    assert trial.seconds(5120, 512) == pytest.approx(10 * trial.seconds(512, 512))
    assert max(sizes) == (512, 512)
    trial = Trial(replace(free, denoiser=counted), once=True)
    assert trial.seconds(128, 64) == pytest.approx(trial.seconds(64, 64) * 2)


def test_processes_share_out_the_time_of_a_wave(tmp_path, free):
    source = write(tmp_path / "a.png", photo(100, 100))
    outlook = Outlook.of(
        source,
        parse("average_pool:4"),
        prior=free,
        settings=Settings(stitch="mask-shift", tile=64, overlap=0),
    )
    trial = Trial(free)
    alone, two, many = (
        outlook.estimate(tmp_path / "out.png", trial, workers=n) for n in (1, 2, 1000)
    )
    assert two.seconds == pytest.approx(alone.seconds / 2)
    assert many.seconds == pytest.approx(alone.seconds * alone.waves / alone.tiles)
    assert many.memory_bytes > two.memory_bytes > alone.memory_bytes


class World:
    """Pictures that are restored at a constant speed."""

    def __init__(self, sizes, speed=100.0):
        self.sizes, self.speed, self.now, self.reads = sizes, speed, 0.0, 0
        self.pace = Pace(len(sizes), self.read, lambda: self.now)

    def read(self, k):
        self.reads += 1
        return self.sizes[k]

    def restore(self, k, *, steps=4, before=0):
        """Yield what is left by the pace and by the truth, after each step of picture k."""
        self.pace.begin(k)
        for step in range(before, steps):
            self.now += self.sizes[k] / steps / self.speed
            self.pace.advance(step + 1, steps)
            rest = self.sizes[k] * (1 - (step + 1) / steps) + sum(self.sizes[k + 1 :])
            yield self.pace.left(), rest / self.speed
        self.pace.finish()


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=12))
def test_the_time_left_is_exact_where_all_sizes_are_known(sizes):
    world = World(sizes)
    for k in range(len(sizes)):
        for told, true in world.restore(k):
            if told is not None:
                assert told == pytest.approx(true, rel=1e-6, abs=1e-6)
    assert told is not None


def test_what_is_skipped_or_fails_is_no_work():
    world = World([100] * 10)
    list(world.restore(0))
    world.now += 1000.0
    world.pace.begin(1)
    for told, true in world.restore(7):
        assert told == pytest.approx(true)


def test_what_an_earlier_run_has_done_is_no_work():
    world = World([1000, 1000])
    for told, true in list(world.restore(0, steps=100, before=90))[1:]:
        assert told == pytest.approx(true)


def test_of_many_pictures_few_headers_are_read():
    sizes = [100 + 50 * (k % 7) for k in range(50_000)]
    world = World(sizes)
    told = [pair for k in range(3) for pair in world.restore(k)]
    assert world.reads <= 70
    for left, true in told[1:]:
        assert left == pytest.approx(true, rel=0.1)


def test_headers_that_take_their_time_are_read_a_few_at_a_time():
    world = World([1000] * 1000)

    def slow(k):
        world.now += 1.0
        world.reads += 1
        return 1000

    world.pace = Pace(1000, slow, lambda: world.now)
    world.pace.begin(0)
    for k in range(5):
        world.pace.advance(k + 1, 100)
        world.pace.left()
    assert world.reads <= 6


def test_a_picture_without_a_size_has_the_mean():
    world = World([0, 0, 100, 100])
    world.sizes[1] = 0
    told = [left for k in range(4) for left, _ in world.restore(k)]
    assert told[-1] == pytest.approx(0.0)


def test_sizes_are_read_from_headers(tmp_path):
    source = write(tmp_path / "a.png", photo(7, 9))
    whole = source.read_bytes()
    assert pixels_of(source) == 63
    (tmp_path / "bad.png").write_bytes(whole[:20])
    odd = tmp_path / os.fsdecode(b"\xe9.png")
    odd.write_bytes(whole)
    for path in (tmp_path / "bad.png", Path("none.png"), odd):
        assert pixels_of(path) == 0


def test_dry_runs_read_headers_of_all_kinds(tmp_path, prior):
    for name, bits in (("a.tif", 16), ("b.jpg", 8), ("c.webp", 8)):
        source = write(tmp_path / name, photo(8, 12, bits=bits))
        said = sfumato(
            "upscale", source, "-o", tmp_path / "out.png", "-n", prior, "--dry-run", "-s", 2
        )
        assert said.code == 0, said.err
        assert "24 x 16 pixels" in said.out
