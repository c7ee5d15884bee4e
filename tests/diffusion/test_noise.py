"""Noise is a field: a function of seed, sample, level, draw, channel and absolute pixel."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion import NoiseField, noise
from sfumato.diffusion.noise import threefry

SEEDS = st.integers(0, 2**64 - 1)
# Up to the last pixels that have a number of their own, and across that border.
COORDINATES = st.integers(-(2**31) - 30, 2**31 - 400) | st.integers(2**31 - 60, 2**31)
MASK = 0xFFFFFFFF
KNOWN = [
    ((0, 0), (0, 0), (0x9D1C5EC6, 0x8BD50731)),
    ((MASK,) * 2, (MASK,) * 2, (0xFD36D048, 0x2D17272C)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xBA3E4725, 0xF27D669E)),
]


def word(value):
    return torch.tensor([value - (1 << 32) if value >> 31 else value], dtype=torch.int32)


@pytest.mark.parametrize(("key", "counter", "expected"), KNOWN)
def test_threefry_gives_the_known_answers(key, counter, expected):
    a, b = threefry(key, word(counter[0]), word(counter[1]))
    assert (int(a) & MASK, int(b) & MASK) == expected
    assert noise._fold(key, *counter) == expected


def reference(key, x0, x1):
    """Threefry-2x32-13 as the paper writes it, on plain numbers."""
    k = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x0, x1 = x0 + k[0] & MASK, x1 + k[1] & MASK
    for i in range(13):
        r = (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]
        x0 = x0 + x1 & MASK
        x1 = (x1 << r & MASK | x1 >> 32 - r) ^ x0
        if i % 4 == 3:
            s = i // 4 + 1
            x0, x1 = x0 + k[s % 3] & MASK, x1 + k[(s + 1) % 3] + s & MASK
    return x0, x1


@given(SEEDS, st.integers(0, 9), st.integers(-1, 255), st.integers(0, 5000), st.data())
@settings(deadline=None)
def test_the_field_is_what_the_scheme_says(seed, sample, level, draw, data):
    top, left = data.draw(COORDINATES), data.draw(COORDINATES)
    z = NoiseField(seed, sample, level)(draw=draw, top=top, left=left, shape=(4, 2, 3))
    for pair, y, x in itertools.product((0, 2), range(2), range(3)):
        key = seed & MASK, seed >> 32
        for numbers in ((sample, level), (draw, pair), (top + y, left + x)):
            key = reference(key, *(n & MASK for n in numbers))
        # Near 1 the logarithm shows that u is rounded to float32.
        u = float(np.float32((key[0] >> 8) + 0.5)) * 2.0**-24
        radius = math.sqrt(-2 * math.log(u))
        angle = (key[1] >> 8) * 2 * math.pi * 2.0**-24
        for channel, expected in ((pair, math.cos(angle)), (pair + 1, math.sin(angle))):
            assert float(z[channel, y, x]) == pytest.approx(radius * expected, rel=1e-5, abs=1e-5)


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


SIZES = st.integers(1, 70) | st.sampled_from([1, 63, 64, 65, 127, 511, 513])


@given(SEEDS, COORDINATES, COORDINATES, st.data())
@settings(deadline=None)
def test_each_pixel_has_its_bits_in_blocks_of_any_size(seed, top, left, data):
    shape = data.draw(st.tuples(st.integers(1, 5), SIZES, SIZES))
    keys = [noise._fold((seed & MASK, seed >> 32), 0, c) for c in range(0, shape[0], 2)]
    whole, part = torch.empty(shape), torch.empty(shape)
    noise._fill_on_cpu(whole, keys, top, left)
    n_blocks = data.draw(st.integers(1, 40))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise, "_CPU_BLOCK", len(keys) * -(-shape[1] * shape[2] // n_blocks))
        noise._fill_on_cpu(part, keys, top, left)
    assert torch.equal(part, whole)


@given(st.integers(1, 700), st.integers(0, 200), st.randoms(use_true_random=False))
def test_a_normal_does_not_depend_on_its_place_or_neighbours_in_a_block(n, shift, random):
    generator = np.random.default_rng(random.getrandbits(32))

    def made(before):
        length = before + n + -(before + n) % noise._LANES
        scratch = generator.integers(0, 2**32, (3, 1, length), dtype=np.uint32)
        scratch[:2, 0, before : before + n] = words
        radius, angle, _ = noise._polar(scratch)
        results = np.stack([radius[0], np.cos(angle)[0], np.sin(angle)[0]])
        return results[:, before : before + n]

    words = generator.integers(0, 2**32, (2, n), dtype=np.uint32)
    # Smallest and largest logarithm and angle.
    words[:, 0], words[:, -1] = 0, MASK
    assert np.isfinite(made(0)).all()
    assert np.array_equal(made(shift), made(0))


@pytest.mark.parametrize("offset", range(1, 18, 3))
def test_bits_do_not_depend_on_the_alignment_of_memory(offset):
    shape, keys = (3, 37, 41), [(1, 2), (3, 4)]
    aligned, shifted = torch.empty(shape), torch.empty(3 * 37 * 41 + offset)[offset:].view(shape)
    for out in (aligned, shifted):
        noise._fill_on_cpu(out, keys, -5, 9)
    assert torch.equal(shifted, aligned)


@pytest.mark.parametrize("block", [5, 64, 1 << 20])
@pytest.mark.parametrize("top", [-5, 2**31 - 7])
def test_every_device_gets_the_same_field(monkeypatch, block, top):
    """The path of other devices, taken here on the CPU."""
    shape = (3, 15, 23)
    a, b = torch.empty(shape), torch.empty(shape)
    keys = [(1, 2), (2**32 - 3, 2**31)]
    noise._fill_on_cpu(a, keys, top, 2**31 - 9)
    monkeypatch.setattr(noise, "_DEVICE_BLOCK", block)
    noise._fill_on_device(b, keys, top, 2**31 - 9)
    torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-6)


def test_many_threads_make_the_same_field():
    def made(i):
        return NoiseField(3)(draw=i % 4, top=-i, left=i, shape=(3, 150 + i, 257))

    alone = [made(i) for i in range(12)]
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(made, range(12)))
    finally:
        torch.set_num_threads(n_threads)
    assert all(map(torch.equal, together, alone))


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 0, 4), (3, 4, 0)])
def test_nothing_is_a_window_too(shape):
    assert NoiseField(1)(draw=0, top=0, left=0, shape=shape).shape == shape


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
