import copy
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from sfumato.diffusion.arithmetic import (
    PRECISIONS,
    best_precision,
    check_precision,
    compute,
    is_native,
    supports,
    use_kernels,
)
from sfumato.errors import ModelError, SettingsError

CPU = torch.device("cpu")


class Net(nn.Module):
    """A convolution that notes which types it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.seen: list[torch.dtype] = []

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        self.seen.append(y.dtype)
        return y * level


@pytest.mark.parametrize(
    ("precision", "dtype", "digits"),
    [("fp32", torch.float32, 0), ("bf16", torch.bfloat16, 2e-2), ("fp16", torch.float16, 3e-3)],
)
def test_the_network_alone_is_computed_in_it(precision, dtype, digits):
    net, x = Net(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = net(x, torch.ones(()))
        answer = compute(net, precision, x, torch.ones(()))
    assert net.seen[-1] is dtype
    assert answer.dtype is torch.float32
    off = float((answer - exact).abs().max())
    assert off <= digits
    assert (off > 0) == (precision != "fp32")


def test_an_overflow_of_fp16_is_told():
    net, x = Net(), torch.full((1, 3, 8, 8), 6e4)
    with torch.no_grad():
        net.conv.weight.fill_(1.0)
        assert bool(compute(net, "bf16", x, torch.ones(())).isfinite().all())
        with pytest.raises(ModelError, match="overflows in fp16; use --precision bf16"):
            compute(net, "fp16", x, torch.ones(()))


@pytest.mark.usefixtures("unchecked")
def test_what_there_is_not_is_refused():
    with pytest.raises(SettingsError, match="precision 'fp64'; expected fp32, bf16, fp16"):
        check_precision(CPU, "fp64")
    with pytest.raises(SettingsError, match="fp16 on meta; use fp32 there"):
        check_precision(torch.device("meta"), "fp16")


def test_the_best_is_native_and_never_fp16(monkeypatch):
    assert best_precision(CPU) in ("fp32", "bf16")
    assert is_native(CPU, best_precision(CPU))
    assert all(supports(CPU, p) for p in PRECISIONS)
    monkeypatch.setattr("sfumato.diffusion.arithmetic.is_native", lambda device, p: p != "bf16")
    assert best_precision(CPU) == "fp32"


class Counted(Net):
    """Counts how often it is compiled."""

    compiled = 0

    def compile(self, *args: object, **named: object) -> None:
        assert named == {"dynamic": False}
        self.compiled += 1
        self._compiled_call_impl = lambda *inputs: 2 * self.forward(*inputs)


def test_kernels_are_those_of_the_context():
    net, x, one = Counted(), torch.rand(1, 3, 8, 8), torch.ones(())
    with torch.no_grad():
        plain = compute(net, "fp32", x, one)
        assert net.compiled == 0
        with use_kernels("compiled"):
            assert torch.equal(compute(net, "fp32", x, one), 2 * plain)
            compute(net, "fp32", x, one)
            with use_kernels("eager"):
                assert torch.equal(compute(net, "fp32", x, one), plain)
        assert net.compiled == 1
        assert torch.equal(compute(net, "fp32", x, one), plain)


def test_a_copy_is_compiled_anew():
    net = Counted()
    with use_kernels("compiled"), torch.no_grad():
        compute(net, "fp32", torch.rand(1, 3, 8, 8), torch.ones(()))
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            other.compiled = 0
            compute(other, "fp32", torch.rand(1, 3, 8, 8), torch.ones(()))
            assert other.compiled == 1


@pytest.mark.slow
def test_compiled_kernels_compute_the_same_and_the_same_bits_each_time(tmp_path):
    program = """
        import sys, torch
        from sfumato.diffusion.arithmetic import use_kernels
        from sfumato.diffusion.precondition import EDMDenoiser
        from sfumato.nn import UNetConfig, seeded_unet
        net = seeded_unet(UNetConfig(channels=(8, 16), blocks=1, embedding=16), 0)
        g = torch.Generator().manual_seed(0)
        for p in net.parameters():
            p.data.copy_(0.1 * torch.randn(p.shape, generator=g))
        D, x = EDMDenoiser(net), torch.randn(1, 3, 32, 48, generator=g)
        with torch.no_grad():
            eager = D(x, 0.5)
            with use_kernels("compiled"):
                compiled = D(x, 0.5)
        assert (compiled - eager).abs().max() < 1e-4
        torch.save(compiled, sys.argv[1])
    """
    files = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for file in files:
        words = [sys.executable, "-c", textwrap.dedent(program), str(file)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    assert torch.equal(*(torch.load(file, weights_only=True) for file in files))
