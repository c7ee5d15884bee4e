"""The published networks of guided-diffusion once more, as formulas of their tensors by name."""

import math

import torch
from torch.nn import functional


class Reference:
    """A U-Net or a classifier; ``heads`` of an attention by its channels, legacy order or new."""

    def __init__(self, state, *, mult, blocks, attention, heads, new_order=False):
        self.state = state
        self.mult, self.blocks, self.attention = mult, blocks, attention
        self.heads, self.new_order = heads, new_order

    def conv(self, name, x, stride=1):
        w = self.state[f"{name}.weight"]
        return functional.conv2d(x, w, self.state[f"{name}.bias"], stride, w.shape[-1] // 2)

    def linear(self, name, x):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, name, x):
        groups = x.reshape(len(x), 32, -1)
        mean = groups.mean(dim=2, keepdim=True)
        variance = (groups - mean).square().mean(dim=2, keepdim=True)
        normal = ((groups - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
        shape = (-1, *[1] * (x.ndim - 2))
        return normal * self.state[f"{name}.weight"].view(shape) + self.state[f"{name}.bias"].view(
            shape
        )

    def silu(self, x):
        return x / (1 + torch.exp(-x))

    def time(self, t):
        half = self.state["time_embed.0.weight"].shape[1] // 2
        frequencies = torch.tensor([10000 ** (-k / half) for k in range(half)]).to(t)
        phases = t[:, None] * frequencies
        e = self.linear("time_embed.0", torch.cat([phases.cos(), phases.sin()], dim=1))
        return self.linear("time_embed.2", self.silu(e))

    def residual(self, name, x, e, resize=lambda x: x):
        h = resize(self.silu(self.norm(f"{name}.in_layers.0", x)))
        x = resize(x)
        h = self.conv(f"{name}.in_layers.2", h)
        told = self.linear(f"{name}.emb_layers.1", self.silu(e))[:, :, None, None]
        if told.shape[1] == 2 * h.shape[1]:
            scale, shift = told[:, : h.shape[1]], told[:, h.shape[1] :]
            h = self.norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        else:
            h = self.norm(f"{name}.out_layers.0", h + told)
        h = self.conv(f"{name}.out_layers.3", self.silu(h))
        skip = f"{name}.skip_connection"
        return h + (self.conv(skip, x) if f"{skip}.weight" in self.state else x)

    def attend(self, qkv, heads, new_order):
        b, c, n = qkv.shape[0], qkv.shape[1] // 3, qkv.shape[2]
        d = c // heads
        if new_order:
            q, k, v = qkv.reshape(b, 3, heads, d, n).unbind(1)
        else:
            q, k, v = qkv.reshape(b, heads, 3, d, n).unbind(2)
        weights = torch.einsum("bhdi,bhdj->bhij", q, k) / math.sqrt(d)
        weights = weights.exp() / weights.exp().sum(-1, keepdim=True)
        return torch.einsum("bhij,bhdj->bhdi", weights, v).reshape(b, c, n)

    def pointwise(self, name, x):
        return functional.conv1d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def attention_block(self, name, x):
        flat = x.flatten(2)
        qkv = self.pointwise(f"{name}.qkv", self.norm(f"{name}.norm", flat))
        h = self.attend(qkv, self.heads(x.shape[1]), self.new_order)
        return (flat + self.pointwise(f"{name}.proj_out", h)).reshape(x.shape)

    def down(self, name, x, e):
        if f"{name}.op.weight" in self.state:
            return self.conv(f"{name}.op", x, stride=2)
        return self.residual(name, x, e, lambda x: functional.avg_pool2d(x, 2))

    def up(self, name, x, e):
        def twice(x):
            return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

        if f"{name}.conv.weight" in self.state:
            return self.conv(f"{name}.conv", twice(x))
        return self.residual(name, x, e, twice)

    def encode(self, x, t, label=None):
        e = self.time(t)
        if label is not None:
            e = e + self.state["label_emb.weight"][label]
        skips = [self.conv("input_blocks.0.0", x)]
        i = 1
        for level in range(len(self.mult)):
            for _ in range(self.blocks):
                h = self.residual(f"input_blocks.{i}.0", skips[-1], e)
                if 2**level in self.attention:
                    h = self.attention_block(f"input_blocks.{i}.1", h)
                skips.append(h)
                i += 1
            if level + 1 < len(self.mult):
                skips.append(self.down(f"input_blocks.{i}.0", skips[-1], e))
                i += 1
        h = self.residual("middle_block.0", skips[-1], e)
        h = self.attention_block("middle_block.1", h)
        return self.residual("middle_block.2", h, e), skips, e

    def unet(self, x, t, label=None):
        h, skips, e = self.encode(x, t, label)
        i = 0
        for level in reversed(range(len(self.mult))):
            attends = 2**level in self.attention
            for k in range(self.blocks + 1):
                h = torch.cat([h, skips.pop()], dim=1)
                h = self.residual(f"output_blocks.{i}.0", h, e)
                if attends:
                    h = self.attention_block(f"output_blocks.{i}.1", h)
                if level and k == self.blocks:
                    h = self.up(f"output_blocks.{i}.{1 + attends}", h, e)
                i += 1
        return self.conv("out.2", self.silu(self.norm("out.0", h)))

    def classify(self, x, t):
        h = self.silu(self.norm("out.0", self.encode(x, t)[0])).flatten(2)
        h = torch.cat([h.mean(2, keepdim=True), h], dim=2)
        h = self.pointwise("out.2.qkv_proj", h + self.state["out.2.positional_embedding"])
        h = self.attend(h, self.heads(h.shape[1] // 3), new_order=True)
        return self.pointwise("out.2.c_proj", h)[:, :, 0]
