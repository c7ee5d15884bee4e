"""Random checkpoints in the layout of the best-known public implementation of SR3."""

import json

import numpy as np
import torch

from sfumato.nn.refinement import RefinementConfig, RefinementUNet

TINY = RefinementConfig(
    width=8, multipliers=(1, 2), blocks=1, attention=(8,), groups=4, dropout=0.2, image_size=16
)
LINEAR = {"schedule": "linear", "n_timestep": 20, "linear_start": 1e-4, "linear_end": 0.4}


def random_network(config=TINY, seed=0):
    """A network whose weights are a function of the seed, and none of them 0."""
    network = RefinementUNet(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            scale = p[0].numel() ** -0.5 if p.ndim > 1 else 0.2
            gain = 1.0 if p.ndim == 1 and name.endswith("weight") else 0.0
            p.copy_(gain + scale * torch.randn(p.shape, generator=generator))
    return network.eval()


def options_text(config=TINY, train=LINEAR, val=LINEAR, **unet):
    """Their JSON, commented as theirs is, with more in it than anybody reads."""
    options = {
        "name": "tiny // not a comment",
        "phase": "train",
        "path": {"log": "http://example.org/log", "resume_state": None},
        "model": {
            "which_model_G": "sr3",
            "finetune_norm": False,
            "unet": {
                "in_channel": config.channels_in,
                "out_channel": config.channels_out,
                "inner_channel": config.width,
                "norm_groups": config.groups,
                "channel_multiplier": list(config.multipliers),
                "attn_res": list(config.attention),
                "res_blocks": config.blocks,
                "dropout": config.dropout,
            }
            | unet,
            "beta_schedule": {"train": train, "val": val},
            "diffusion": {
                "image_size": config.image_size,
                "channels": 3,
                "conditional": config.channels_in > config.channels_out,
            },
        },
        "train": {"n_iter": 1000000, "val_freq": 1e4},
    }
    lines = json.dumps(options, indent=4).splitlines()
    return "\n".join(["// made by a test", *(line + ' // a "remark' for line in lines)])


def buffers(train=LINEAR):
    """Their twelve tensors of a linear schedule, in float32."""
    beta = np.linspace(train["linear_start"], train["linear_end"], train["n_timestep"])
    gamma = np.cumprod(1 - beta)
    before = np.append(1.0, gamma[:-1])
    variance = beta * (1 - before) / (1 - gamma)
    arrays = {
        "betas": beta,
        "alphas_cumprod": gamma,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": gamma**0.5,
        "sqrt_one_minus_alphas_cumprod": (1 - gamma) ** 0.5,
        "log_one_minus_alphas_cumprod": np.log(1 - gamma),
        "sqrt_recip_alphas_cumprod": gamma**-0.5,
        "sqrt_recipm1_alphas_cumprod": (1 / gamma - 1) ** 0.5,
        "posterior_variance": variance,
        "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
        "posterior_mean_coef1": beta * before**0.5 / (1 - gamma),
        "posterior_mean_coef2": (1 - before) * (1 - beta) ** 0.5 / (1 - gamma),
    }
    return {name: torch.tensor(array, dtype=torch.float32) for name, array in arrays.items()}


def state_of(network, train=LINEAR):
    """Their state dict: the schedule, and the network behind a prefix."""
    weights = {f"denoise_fn.{name}": t for name, t in network.state_dict().items()}
    return buffers(train) | weights


def write_checkpoint(folder, config=TINY, *, seed=0, train=LINEAR, val=LINEAR):
    """Write a random checkpoint and its options; return the paths (.pth, .json)."""
    pth, options = folder / "I10_E1_gen.pth", folder / "tiny.json"
    torch.save(state_of(random_network(config, seed), train), pth)
    options.write_text(options_text(config, train, val), encoding="utf-8")
    return pth, options
