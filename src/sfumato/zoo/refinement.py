"""Checkpoints of the best-known public implementation of SR3, read without running their code.

``convert`` turns their ``I{iteration}_E{epoch}_gen.pth`` and JSON into tensors and a configuration
of ours, ``their_denoiser`` a network into a denoiser. With ``their_sigmas`` the DDPM sampler walks
exactly as theirs does.

Reference: github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.diffusion import alpha_bar_of, sigma_of
from sfumato.diffusion.arithmetic import Precision
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.precondition import evaluate
from sfumato.errors import ModelError, SettingsError, ShapeError
from sfumato.io.checkpoints import load_state
from sfumato.io.pickles import load_pickle, some
from sfumato.nn.memory import given_memory
from sfumato.nn.refinement import RefinementConfig, RefinementUNet
from sfumato.zoo.model import Prior, SuperResolution
from sfumato.zoo.refinement_options import (
    BetaSchedule,
    RefinementOptions,
    parse_options,
    read_options,
)

__all__ = [
    "BetaSchedule",
    "Refinement",
    "RefinementOptions",
    "build_network",
    "convert",
    "load_refinement",
    "parse_options",
    "read_options",
    "their_denoiser",
    "their_sigmas",
]

_PREFIX = "denoise_fn."
_GAMMAS = "alphas_cumprod"
#: Their schedule, as twelve buffers of length T. Here it is computed anew, in float64.
_BUFFERS = (
    "betas",
    _GAMMAS,
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)


def convert(pth: str | Path, json: str | Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Read a checkpoint of theirs: the network's float32 tensors, and a configuration for JSON.

    Both are what ``save_checkpoint`` takes; ``parse_options`` and ``build_network`` make a network
    of them. The tensors are named as in ``RefinementUNet``. Of the schedule the configuration says
    how it is made, so that ``gammas()`` has all digits.

    Args:
        pth: their *…_gen.pth*. Nothing in it is run.
        json: the options it was trained by.

    Raises:
        ModelError: a file is missing, damaged or of another kind; the checkpoint would run code;
            tensors are missing, left over or of other shapes than the options say; its schedule is
            another one; weights are infinite or no numbers.
    """
    options = read_options(_text(Path(json)))
    state = load_pickle(pth, expected="the ..._gen.pth as their training writes it")
    _check_names(state, options, Path(pth))
    _check_schedule(state[_GAMMAS], options, Path(pth))
    tensors = {
        name.removeprefix(_PREFIX): tensor.detach().float().contiguous()
        for name, tensor in state.items()
        if name.startswith(_PREFIX)
    }
    broken = [_PREFIX + name for name, t in tensors.items() if not t.isfinite().all()]
    if broken:
        raise ModelError(
            f"{pth} holds weights that are no numbers: {some(broken)}",
            do="take an earlier checkpoint of the training, or fetch it again",
        )
    return tensors, options.model_dump(mode="json")


def looks_like_sr3(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether these are names of their tensors, some perhaps missing."""
    return any(name.startswith(_PREFIX) for name in shapes)


def build_network(options: RefinementOptions, tensors: Mapping[str, Tensor]) -> RefinementUNet:
    """Return the network with these weights, to be evaluated: without dropout and gradients.

    Raises ModelError where the tensors are not those of such a network.
    """
    described, held = _shapes(options.network), {n: tuple(t.shape) for n, t in tensors.items()}
    if described != held:
        # Said before anything is allocated: options may describe what no memory holds.
        raise ModelError(f"the tensors do not fit: {_difference(described, held)}")
    with torch.device("meta"):
        network = RefinementUNet(options.network)
    network = given_memory(network)
    load_state(network, tensors)
    return network.eval().requires_grad_(False)


def load_refinement(
    tensors: Mapping[str, Tensor],
    header: Mapping[str, object],
    path: Path,
    *,
    name: str,
    device: torch.device,
    digest: str,
    card: str,
    precision: Precision = "fp32",
) -> Prior:
    """Return a converted checkpoint as a model that restorations can use.

    In "fp32" it gives the same numbers as the program that trained it.

    Raises ModelError where it is no super-resolution model.
    """
    options = parse_options(header, path)
    network = build_network(options, tensors).to(device)
    if options.scale is None or not network.config.condition_channels:
        raise ModelError(
            f"{path} does not say how many times larger it makes pictures",
            do="convert it again with --scale",
        )
    return Prior(
        name=name,
        denoiser=Refinement(network, precision),
        digest=digest,
        tile=max(options.image_size, network.config.stride),
        stride=network.config.stride,
        sigma_max=their_sigmas(options)[0],
        precision=precision,
        n_parameters=sum(p.numel() for p in network.parameters()),
        card=card or f"# {name}\n\nConverted from another program's checkpoint, without a card.\n",
        source=path,
        super_resolution=SuperResolution(
            scale=options.scale,
            kernel="bicubic",
            regression=None,
            sigmas=tuple(their_sigmas(options)[:-1]),
            sampler="ddpm",
            eta=None,
            relative=False,
        ),
    )


@final
class Refinement:
    """Their network as a denoiser that wants a condition; see ``their_denoiser``."""

    def __init__(self, network: RefinementUNet, precision: Precision = "fp32") -> None:
        self.network = network
        self.precision: Precision = precision

    def given(self, condition: Images) -> Denoiser:
        """Return the denoiser of images with these conditions."""
        return their_denoiser(self.network, condition, precision=self.precision)

    def __call__(self, x_t: Images, sigma: float) -> Images:
        """Estimate ``x_0`` without a condition: for generators only."""
        return their_denoiser(self.network, precision=self.precision)(x_t, sigma)


def their_sigmas(options: RefinementOptions) -> list[float]:
    """Return the decreasing ``σ_t = √((1 − γ_t) / γ_t)`` of their inference, followed by 0.

    Theirs starts from ``y_T`` of standard normal noise, which here is ``x_T = y_T / √γ_T``.

    Raises SettingsError where the schedule ends in infinite noise, as ``jsd`` does.
    """
    gammas = options.inference.gammas()
    if not gammas[-1] > 0:
        raise SettingsError(
            f"the schedule {options.inference.kind!r} ends with no picture at all (γ = 0)",
            do="sample with another schedule",
        )
    return [*sigma_of(gammas.flip(0)).tolist(), 0.0]


def their_denoiser(
    network: RefinementUNet, condition: Images | None = None, *, precision: Precision = "fp32"
) -> Denoiser:
    """Return ``D(x_t, sigma)``, their estimate of ``x_0`` given a ``condition``.

    ``condition`` is the low-resolution image enlarged to the size of ``x_t`` (theirs does so
    bicubically), in [-1, 1]: one for the whole batch or one for each image; None for a generator.

    Raises ShapeError where it does not fit the network.

    >>> config = RefinementConfig(width=4, multipliers=(1, 2), blocks=1, groups=2)
    >>> D = their_denoiser(RefinementUNet(config).eval(), torch.zeros(1, 3, 5, 7))
    >>> D(torch.zeros(2, 3, 5, 7), 0.5).shape
    torch.Size([2, 3, 5, 7])
    """
    return _RefinementDenoiser(network, condition, precision)


@final
class _RefinementDenoiser:
    """``x̂_0 = clamp(x_t − σ F([condition, √γ x_t], √γ), −1, 1)``, with ``γ = 1 / (1 + σ²)``.

    That is their ``(y_t − √(1 − γ) F) / √γ``, clamped, for ``y_t = √γ x_t``. Sides are mirrored up
    to a multiple of the network's stride and cut again.
    """

    def __init__(
        self, network: RefinementUNet, condition: Images | None, precision: Precision
    ) -> None:
        self.network = network
        self.precision: Precision = precision
        self.condition = condition
        channels = 0 if condition is None else condition.shape[1]
        if channels != network.config.condition_channels:
            raise ShapeError(
                f"a condition of {channels} channels",
                expected=f"{network.config.condition_channels}",
            )

    def __call__(self, x_t: Images, sigma: float | Tensor) -> Images:
        """Estimate ``x_0``; ``sigma`` is one number or (batch,)."""
        # In float64, because the noise level of a small σ is 1 but for the last digits.
        s = torch.as_tensor(sigma, dtype=torch.float64, device="cpu").reshape(-1, 1, 1, 1)
        a = alpha_bar_of(s).sqrt().to(x_t.device, torch.float32)
        x, s = x_t.float(), s.to(x_t.device, torch.float32)
        level = a.flatten().expand(len(x_t))
        eps = evaluate(
            self.network,
            self._joined(a * x),
            level,
            stride=self.network.config.stride,
            precision=self.precision,
        )
        return (x - s * eps).clamp(-1, 1).to(x_t.dtype)

    def _joined(self, y_t: Tensor) -> Tensor:
        """Put the condition before the noisy image."""
        if self.condition is None:
            return y_t
        condition = self.condition.to(y_t)
        if condition.shape[2:] != y_t.shape[2:] or len(condition) not in (1, len(y_t)):
            raise ShapeError(
                f"a condition of shape {tuple(condition.shape)} for images {tuple(y_t.shape)}",
                expected="the same size, and one or as many images",
            )
        return torch.cat([condition.expand(len(y_t), -1, -1, -1), y_t], dim=1)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ModelError(f"there are no options {path}", do="check the name") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read as text: {error}") from error


def _check_names(state: Mapping[str, Tensor], options: RefinementOptions, path: Path) -> None:
    """Refuse tensors that are missing, left over or of other shapes, by name."""
    network = {_PREFIX + n: shape for n, shape in _shapes(options.network).items()}
    length = state[_GAMMAS].shape if _GAMMAS in state else (options.train.n_steps,)
    described = network | {name: tuple(length) for name in _BUFFERS}
    difference = _difference(described, {name: tuple(t.shape) for name, t in state.items()})
    if difference:
        raise ModelError(
            f"{path} does not fit its options: {difference}",
            do="take the .json that it was trained by",
        )


def _check_schedule(gammas: Tensor, options: RefinementOptions, path: Path) -> None:
    """Refuse a checkpoint that holds neither schedule of the options."""
    for schedule in (options.train, options.inference):
        expected = schedule.gammas()
        # Theirs were rounded to float32.
        if expected.shape == gammas.shape and torch.allclose(
            gammas.double(), expected, rtol=1e-4, atol=1e-6
        ):
            return
    raise ModelError(
        f"{path} was trained with another schedule of noise than its options say: "
        f"{gammas.numel()} steps to γ = {float(gammas.flatten()[-1]):.3g}",
        expected=f"{options.train.n_steps} steps to γ = {float(options.train.gammas()[-1]):.3g}",
        do="take the .json that it was trained by",
    )


def _shapes(config: RefinementConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {n: tuple(t.shape) for n, t in RefinementUNet(config).state_dict().items()}


def _difference(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> str:
    """Name what is missing, unexpected and of another shape, or nothing."""
    reshaped = [
        f"{n} {found[n]} instead of {expected[n]}"
        for n in expected
        if n in found and found[n] != expected[n]
    ]
    faults = {
        "missing": [n for n in expected if n not in found],
        "unexpected": [n for n in found if n not in expected],
        "of another shape": reshaped,
    }
    return "; ".join(f"{len(ns)} {what}: {some(ns)}" for what, ns in faults.items() if ns)
