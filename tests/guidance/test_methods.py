"""Methods by name."""

import pytest
import torch

from sfumato.diffusion import Step
from sfumato.errors import SettingsError
from sfumato.guidance import DDRM, METHODS, DDNMPlus, Measurement, parse_method
from sfumato.operators import AveragePool

SHAPE = (3, 8, 8)


@pytest.mark.parametrize("name", METHODS)
def test_text_forms_read_back(name):
    chosen = parse_method(name)
    assert parse_method(str(chosen)) == chosen
    assert chosen.passes >= 0


def test_options_are_read():
    chosen = parse_method("mmps:iterations=3")
    assert (chosen.options, chosen.passes) == ({"iterations": 3.0}, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dsp", r"method dsp; expected one of ddnm, .*; did you mean dps\?"),
        ("dps:zeto=1", "option zeto of method dps; expected zeta, context"),
        ("ddnm:zeta=1", "option zeta of method ddnm; expected no option"),
        ("dps:zeta=x", "dps:zeta=x; expected a number from 0 to"),
        ("ddrm:eta_b=nan", "ddrm:eta_b=nan; expected a number from 0 to 1"),
        ("mmps:iterations=1.5", "mmps:iterations=1.5; expected a whole number from 1 to 100"),
    ],
)
def test_errors_say_what_to_do(text, said):
    with pytest.raises(SettingsError, match=said):
        parse_method(text)


def test_pairs_that_do_not_go_together_are_refused():
    with pytest.raises(
        SettingsError, match=r"method ilvr with measurement noise; expected one of"
    ):
        parse_method("ilvr").check("ddim", noisy=True, stated=True)
    parse_method("ilvr").check("ddim", noisy=True, stated=False)
    with pytest.raises(SettingsError, match="method proximal without measurement noise"):
        parse_method("proximal").check("ddim", noisy=False, stated=False)
    with pytest.raises(SettingsError, match=r"method ddrm with sampler dpm-solver\+\+; expected"):
        parse_method("ddrm").check("dpm-solver++", noisy=False, stated=False)


def test_ddnm_plus_is_ddrm_that_trusts_the_measurement():
    y = torch.rand(1, 3, 4, 4)
    m = Measurement(AveragePool(SHAPE, 2), y, 0.2)
    x, step = torch.rand(1, *SHAPE), Step(1, 1.0, 0.5, 0.85)
    assert torch.equal(DDNMPlus(m).correct(x, step), DDRM(m).correct(x, step))
    halved = DDRM(m, eta_b=0.5).correct(x, step)
    assert torch.allclose(m.A(halved), (m.A(x) + y) / 2, atol=1e-6)


def test_exact_methods_end_on_the_measurement():
    m = Measurement(AveragePool(SHAPE, 2), torch.rand(1, 3, 4, 4))
    last = Step(9, 0.1, 0.0, 0.85)
    for name in ("ddnm", "ddrm", "ilvr", "repaint", "diffpir"):
        x = parse_method(name).guidance(m).correct(torch.rand(1, *SHAPE), last)
        assert torch.allclose(m.A(x), m.y, atol=1e-5), name
