"""Noise is a field: a function of seed, sample, level, draw, channel and absolute pixel."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion import NoiseField, noise
from sfumato.diffusion.noise import threefry

SEEDS = st.integers(0, 2**64 - 1)
COORDINATES = st.integers(-(2**31), 2**31 - 400)


def word(value):
    return torch.tensor([value - (1 << 32) if value >> 31 else value], dtype=torch.int32)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_known_answers(key, counter, expected):
    a, b = threefry(key, word(counter[0]), word(counter[1]))
    assert (int(a) & 0xFFFFFFFF, int(b) & 0xFFFFFFFF) == expected


@given(SEEDS, COORDINATES, COORDINATES, st.data())
@settings(deadline=None, max_examples=60)
def test_a_window_has_the_bits_of_the_whole(seed, top, left, data):
    field = NoiseField(
        seed, sample=data.draw(st.integers(0, 9)), level=data.draw(st.integers(0, 4))
    )
    draw, c = data.draw(st.integers(0, 5000)), data.draw(st.integers(1, 4))
    h, w = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    y, x = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    n, m = data.draw(st.integers(1, h - y)), data.draw(st.integers(1, w - x))
    whole = field(draw=draw, top=top, left=left, shape=(c, h, w))
    part = field(draw=draw, top=top + y, left=left + x, shape=(c, n, m))
    assert torch.equal(part, whole[:, y : y + n, x : x + m])


@pytest.mark.parametrize("pixels", [1, 7, 64, 1 << 20])
def test_bits_do_not_depend_on_the_height_of_a_strip(monkeypatch, pixels):
    def made():
        return NoiseField(3)(draw=1, top=-5, left=9, shape=(3, 37, 41))

    expected = made()
    monkeypatch.setattr(noise, "_STRIP_PIXELS", pixels)
    assert torch.equal(made(), expected)


def test_more_channels_leave_the_first_ones_as_they_are():
    field = NoiseField(8)
    few, many = (field(draw=0, top=0, left=0, shape=(c, 16, 16)) for c in (1, 4))
    assert torch.equal(few, many[:1])


@pytest.mark.parametrize("seed", [0, 1, 2**63 + 5])
def test_moments_are_those_of_a_standard_normal(seed):
    z = NoiseField(seed)(draw=2, top=-300, left=2**30, shape=(3, 600, 600)).double()
    n = z.numel()
    # Mean, variance, skewness and kurtosis within 4.5 standard errors.
    assert abs(float(z.mean())) < 4.5 / n**0.5
    assert abs(float((z**2).mean()) - 1) < 4.5 * (2 / n) ** 0.5
    assert abs(float((z**3).mean())) < 4.5 * (15 / n) ** 0.5
    assert abs(float((z**4).mean()) - 3) < 4.5 * (96 / n) ** 0.5
    tail = float((z.abs() > 3).double().mean())
    assert abs(tail - 0.0026998) < 4.5 * (0.0027 / n) ** 0.5
    cdf = torch.special.ndtr(z.flatten().sort().values)
    steps = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    assert float((cdf - steps).abs().max()) * n**0.5 < 2.2  # Kolmogorov, p about 1e-4


def correlation(a, b):
    return float((a.double() * b.double()).mean()) * a.numel() ** 0.5


def planes(**changed):
    at = {"seed": 11, "sample": 0, "level": 0, "draw": 0, "top": 0, "left": 0} | changed
    field = NoiseField(at["seed"], at["sample"], at["level"])
    return field(draw=at["draw"], top=at["top"], left=at["left"], shape=(3, 120, 120))


VARIANTS = [
    {},
    *({"seed": s} for s in (12, 11 + 2**32, 11 + 2**63, 2**64 - 11)),
    *({"sample": s} for s in (1, 2, 11)),
    *({"level": v} for v in (1, 2, 11, -1)),
    *({"draw": d} for d in (1, 2, 11, 1000)),
    {"sample": 1, "level": 1},
    {"sample": 1, "draw": 1},
    {"level": 1, "draw": 1},
    {"top": 1},
    {"left": 1},
    {"top": 120},
    {"left": -120},
    {"top": 2**16},
    {"left": 2**24},
]


def test_different_draws_levels_samples_seeds_channels_and_places_are_independent():
    fields = [c for variant in VARIANTS for c in planes(**variant)]
    # Rows and columns change places when seen transposed: x and y must not be mixed up.
    fields.append(fields[0].T)
    for a, b in itertools.combinations(fields, 2):
        assert abs(correlation(a, b)) < 5
        assert abs(correlation(a**2 - 1, b**2 - 1)) / 2 < 6


def test_neighbouring_pixels_are_independent():
    z = planes()
    for dy, dx in ((0, 1), (1, 0), (1, 1), (2, 0), (0, 2), (0, 64)):
        a, b = z[:, dy:, dx:], z[:, : 120 - dy, : 120 - dx]
        assert abs(correlation(a, b)) < 5
