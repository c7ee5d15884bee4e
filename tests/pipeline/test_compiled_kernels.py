import json
from dataclasses import replace

import pytest
import torch

from sfumato.diffusion.arithmetic import _kernels
from sfumato.errors import SettingsError
from sfumato.pipeline import Settings, restore
from sfumato.pipeline import kernels as kernels_module
from sfumato.pipeline.jobs import as_begun
from sfumato.pipeline.kernels import (
    Paying,
    choose_kernels,
    measure_kernels,
    recall,
    remember,
)
from sfumato.zoo import load_prior


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels.json"


@pytest.fixture(scope="module")
def prior():
    return load_prior(precision="fp32")


FAST, SLOW = Paying(1.0, 0.5, 10.0), Paying(1.0, 0.99, 0.0)


def test_auto_takes_what_was_measured_for_this_shape_and_this_model_alone(cache, prior):
    assert choose_kernels("auto", prior, 96, 10**6) == "eager"
    remember(FAST, prior, 96)
    assert choose_kernels("auto", prior, 96, 21) == "compiled"
    assert choose_kernels("auto", prior, 96, 19) == "eager", "compiling would not be earned back"
    assert choose_kernels("eager", prior, 96, 10**6) == "eager"
    assert choose_kernels("auto", prior, 64, 10**6) == "eager"
    for other in (replace(prior, digest="0"), replace(prior, precision="bf16")):
        assert choose_kernels("auto", other, 96, 10**6) == "eager"
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert choose_kernels("auto", prior, 96, 10**6) == "eager"
    finally:
        torch.set_num_threads(threads)
    assert choose_kernels("compiled", prior, 64, 1) == "compiled"


def test_a_gain_within_the_noise_is_none(cache, prior):
    remember(SLOW, prior, 96)
    assert choose_kernels("auto", prior, 96, 10**9) == "eager"
    assert recall(prior, 96) == SLOW


def test_several_measurements_are_kept(cache, prior):
    remember(FAST, prior, 96)
    remember(SLOW, prior, 64)
    assert (recall(prior, 96), recall(prior, 64)) == (FAST, SLOW)
    remember(SLOW, prior, 96)
    assert recall(prior, 96) == SLOW


@pytest.mark.parametrize("text", ["", "{", "[]", '{"KEY": 3}', '{"KEY": {"other": 1}}'])
def test_a_memory_that_is_none_is_as_if_there_were_none(cache, prior, text):
    cache.parent.mkdir()
    cache.write_text(text.replace("KEY", kernels_module._key(prior, 96)))
    assert recall(prior, 96) is None
    remember(FAST, prior, 96)
    assert json.loads(cache.read_text())
    assert recall(prior, 96) == FAST


def test_the_engine_computes_by_the_kernels_of_the_settings_and_reports_them(
    cache, prior, monkeypatch
):
    seen = set()

    def denoiser(x_t, sigma):
        seen.add(_kernels.get())
        return x_t

    watched = replace(prior, denoiser=denoiser)
    y = torch.rand(3, 24, 24)
    for stitch in ("mask-shift", "joint", "whole"):
        for asked in ("eager", "compiled", "auto"):
            seen.clear()
            settings = Settings(kernels=asked, steps=1, stitch=stitch, tile=32, overlap=8)
            result = restore(y, "average_pool:2", prior=watched, settings=settings)
            expected = "compiled" if asked == "compiled" else "eager"
            assert seen == {expected}
            assert result.report.settings["kernels"] == expected
    remember(Paying(1.0, 0.1, 0.0), prior, 32)
    seen.clear()
    settings = Settings(steps=1, stitch="mask-shift", tile=32, overlap=8)
    restore(y, "average_pool:2", prior=watched, settings=settings)
    assert seen == {"compiled"}


def test_a_job_goes_on_with_the_kernels_that_it_was_begun_with(tmp_path, monkeypatch):
    begun = {"settings": {"kernels": "compiled"}}
    monkeypatch.setattr("sfumato.pipeline.jobs.Job.plan_in", lambda folder: begun)
    assert as_begun(tmp_path, Settings()).kernels == "compiled"
    assert as_begun(tmp_path, Settings(), restart=True).kernels == "auto"
    assert as_begun(tmp_path, Settings(kernels="eager")).kernels == "eager"


def test_what_cannot_be_compiled_says_so(prior, monkeypatch):
    def broken(*args, **named):
        if _kernels.get() == "compiled":
            raise RuntimeError("no compiler\nand much more")
        return 0.1

    monkeypatch.setattr(kernels_module, "time_evaluation", broken)
    with pytest.raises(SettingsError, match="cannot be compiled on cpu: no compiler; use --ker"):
        measure_kernels(prior, 64)
