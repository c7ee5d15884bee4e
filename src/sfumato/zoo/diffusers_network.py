"""Networks of diffusers, with their weights; the one place where it is imported."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from sfumato.errors import ModelError
from sfumato.io.checkpoints import check_size, load_state, load_tensors
from sfumato.io.pickles import load_pickle
from sfumato.nn.exact import Exact
from sfumato.zoo.folder import UNET, Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: Attention's weights were named otherwise until 2023.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(r"(?<=\.)(query|key|value|proj_attn)(?=\.(?:weight|bias)$)")


@final
class DiffusersNetwork(nn.Module):
    """A network of diffusers as ``net(x, level, label=None)``: three channels of its answer.

    A network that answers six channels estimates a variance too, which nothing here asks for.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """Return (batch, 3, height, width) for ``x`` of that shape and (batch,) levels."""
        answer: Tensor = self.model(x, level, class_labels=label, return_dict=False)[0]
        return answer[:, :3]


@final
class WholeTimes(nn.Module):
    """A network that looks its times up in a table: whole numbers."""

    def __init__(self, net: DiffusersNetwork) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """Return what the network returns."""
        answer: Tensor = self.net(x, level.long(), label)
        return answer


def build_network(folder: Folder, files: Sequence[Path]) -> nn.Module:
    """Return the network of a folder with the weights in ``files``, on the CPU, in float32.

    Nothing is unpickled into code. Raises ModelError where the weights are missing, damaged or
    do not fit the configuration, and where diffusers is not installed.
    """
    made = _class(folder.kind)
    known = inspect.signature(made).parameters
    config = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in folder.config.items()
        if name in known
    }
    tensors = read_weights(files)
    try:
        with torch.device("meta"):
            check_size(made(**config), tensors, folder.network)
        # Its first weights are drawn at random, from torch's own seed.
        with torch.random.fork_rng(devices=[]):
            model = made(**config)
    except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{folder.network} describes an impossible network: {reason}") from error
    load_state(model, tensors)
    last = "conv_out" if folder.kind == UNET else "proj_out_2"
    setattr(model, last, Exact(getattr(model, last)))
    net = DiffusersNetwork(model)
    return WholeTimes(net) if config.get("time_embedding_type") == "learned" else net


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """Return the tensors of a network, under the names of today.

    Of safetensors, whole or in shards, or of a ``.bin`` of which only tensors are read.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= load_tensors(file) if file.suffix == ".safetensors" else load_pickle(file)
    return {_OLD.sub(lambda old: _OLD_NAMES[old[1]], name): t for name, t in tensors.items()}


def _class(kind: str) -> Callable[..., nn.Module]:
    try:
        # By its name, so that types are checked alike with and without it.
        diffusers = importlib.import_module("diffusers")
    except ImportError as error:
        raise ModelError(
            "a network of diffusers, which is not installed",
            do='install it with: pip install "sfumato[models]"',
        ) from error
    made: Callable[..., nn.Module] = getattr(diffusers, kind)
    return made
