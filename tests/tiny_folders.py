"""Folders as diffusers writes them, of networks of a few weights."""

import json

import torch
from diffusers import DDIMScheduler, DDPMPipeline, DiTTransformer2DModel, UNet2DModel

LEVELS = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "attention_head_dim": 4,
    "sample_size": 16,
}


def unet(seed=0, **changes):
    """A U-Net of two levels, with random weights that are not small."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DModel(**(LEVELS | changes)).eval()


def dit(seed=0, **changes):
    """A transformer of one block for images of 16 x 16 pixels."""
    form = {
        "num_attention_heads": 2, "attention_head_dim": 4, "in_channels": 3, "out_channels": 6,
        "num_layers": 1, "sample_size": 16, "patch_size": 4, "num_embeds_ada_norm": 3,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DiTTransformer2DModel(**(form | changes)).eval()


def pipeline(path, net=None, scheduler=None, *, beside=None, safe=True):
    """Save a pipeline of a network and a scheduler, with what ``sfumato.json`` says."""
    whole = DDPMPipeline(unet=net or unet(), scheduler=scheduler or DDIMScheduler())
    whole.save_pretrained(path, safe_serialization=safe)
    return said(path, beside)


def bare(path, net, beside=None):
    """Save a network alone."""
    net.save_pretrained(path)
    return said(path, beside)


def said(path, beside):
    """Write ``sfumato.json``."""
    if beside is not None:
        (path / "sfumato.json").write_text(json.dumps(beside))
    return path


def change(file, **values):
    """Change some of the values of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
