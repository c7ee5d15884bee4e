"""What needs more memory than there is, is refused before it is decoded, with what to do."""

import pytest

from sfumato.errors import ImageError
from sfumato.operators import as_degradation
from sfumato.pipeline import memory
from sfumato.pipeline.memory import available_bytes, check_memory, images_bytes


def refusal(monkeypatch, y, text, *, there=1e9, limit=10**8, **options):
    monkeypatch.setattr(memory, "available_bytes", lambda device: there)
    with pytest.raises(ImageError) as caught:
        check_memory(y, as_degradation(text), limit_pixels=limit, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_says_what_it_would_need_and_what_to_choose(monkeypatch):
    need = images_bytes((3, 8000, 8000), (3, 2000, 2000), noisy=False)
    said = refusal(monkeypatch, (3, 2000, 2000), "average_pool:4")
    assert f"8000 x 8000 pixels, restored as a whole, needs about {need / 1e9:.1f} GB" in said
    assert "at most 1.0 GB, which are free" in said
    assert "--stitch mask-shift" in said
    assert "a smaller --scale" in said


@pytest.mark.parametrize("y", [(1, 6000, 9000), (3, 6000, 9000)])
def test_what_cannot_go_by_tiles_is_not_told_to(monkeypatch, y):
    said = refusal(monkeypatch, y, "gaussian_blur:6")
    assert "--stitch" not in said
    assert "a smaller picture, or a machine with as much" in said


def test_samples_are_kept(monkeypatch):
    need = images_bytes((3, 4000, 4000), (3, 2000, 2000), noisy=False) + 4 * 4 * 3 * 4000**2
    said = refusal(monkeypatch, (3, 2000, 2000), "average_pool:2", samples=5)
    assert f"{need / 1e9:.1f} GB" in said
    assert "--samples 1" in said


def test_too_many_pixels_are_told_in_gigabytes_too(monkeypatch):
    said = refusal(monkeypatch, (3, 20_000, 20_000), "gaussian_blur:2", there=1e15)
    assert "20000 x 20000 pixels, restored as a whole, needs about 124.8 GB" in said
    assert "at most 100,000,000 pixels (1000000.0 GB are free)" in said
    assert "--limit-pixels" in said


def test_what_fits_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1e9)
    check_memory((3, 500, 500), as_degradation("average_pool:4"), limit_pixels=10**8)


def test_a_container_may_have_less_than_its_machine(monkeypatch, tmp_path):
    whole = available_bytes()
    assert whole > 0
    for name, text in (("_LIMIT", "3000000\n"), ("_USED", "1000000\n")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(memory, name, tmp_path / name)
    assert available_bytes() == 2e6
    (tmp_path / "_LIMIT").write_text("max\n")
    assert available_bytes() > 2e6
    for name in ("_LIMIT", "_SYSTEM"):
        monkeypatch.setattr(memory, name, tmp_path / "missing")
    assert available_bytes() > 2e6


def test_a_larger_picture_in_between_counts(monkeypatch):
    need = images_bytes((3, 8000, 8000), (3, 2000, 2000), noisy=False)
    said = refusal(monkeypatch, (3, 2000, 2000), "average_pool:2", supersampling=2)
    assert (
        f"a result of 4000 x 4000 pixels, restored as a whole, needs about {need / 1e9:.1f}"
        in said
    )
