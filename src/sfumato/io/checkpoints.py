"""Checkpoints: tensors and their configuration in one safetensors file, which runs no code.

Reference: the safetensors format, https://github.com/huggingface/safetensors#format
"""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sfumato.errors import ModelError, OutputError
from sfumato.io._atomic import atomic_path

#: Kind and version of the file, in its header.
FORMAT = "sfumato-1"
_SHOWN = 5


def save_checkpoint(
    path: str | Path, tensors: Mapping[str, Tensor], config: Mapping[str, object]
) -> None:
    """Write tensors, with their configuration as JSON in the header, whole or not at all.

    Args:
        path: the file, by custom *.safetensors*.
        tensors: as of ``module.state_dict()``; stored in their own dtypes.
        config: whatever JSON can say.

    Raises:
        ModelError: a configuration that JSON cannot say.
        OutputError: no room, no permission.

    Example:
        >>> layer = torch.nn.Linear(64, 3)
        >>> save_checkpoint("layer.safetensors", layer.state_dict(), {"channels": 64})
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        # NaN is refused, because other readers of JSON do.
        text = json.dumps(dict(config), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"a configuration that is no JSON: {error}",
            expected="numbers, texts, lists and dictionaries",
        ) from error
    with atomic_path(path) as temporary:
        try:
            save_file(_separate(tensors), temporary, metadata={"format": FORMAT, "config": text})
            _sort_metadata(temporary)
        except SafetensorError as error:
            raise OutputError(
                f"{path} cannot be written: {error}", do="check for free space"
            ) from error


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Read the tensors, on the CPU in their stored dtypes, and the configuration.

    Nothing is ever unpickled.

    Raises:
        ModelError: no such file; a pickle; damaged, cut short; of another program.

    Example:
        >>> tensors, config = load_checkpoint("prior.safetensors")
        >>> config
        {'channels': 64}
    """
    with _opened(path) as (file, config):
        return {name: file.get_tensor(name) for name in file.keys()}, config  # noqa: SIM118


def load_header(path: str | Path) -> dict[str, object]:
    """Read the configuration alone. Raises ModelError as ``load_checkpoint``."""
    with _opened(path) as (_, config):
        return config


def load_metadata(path: str | Path) -> dict[str, str]:
    """Read the texts in the header of any program's safetensors file; ModelError as above."""
    with _any(path) as file:
        return dict(file.metadata() or {})


def load_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of the tensors in any safetensors file; ModelError as above."""
    with _any(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in list(file.keys())}


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of any safetensors file; ModelError as above."""
    with _any(path) as file:
        return {name: file.get_tensor(name) for name in list(file.keys())}


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, dict[str, object]]]:
    path = Path(path)
    with _any(path) as file:
        header = file.metadata() or {}
        if header.get("format") != FORMAT:
            raise ModelError(
                f"{path} holds tensors of another program: {_some(list(file.keys()))}",
                expected=f"a checkpoint of the format {FORMAT}",
                do="convert it first",
            )
        yield file, _parse_config(path, header.get("config", ""))


@contextmanager
def _any(path: str | Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    _check_magic(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is damaged, cut short or no safetensors file: {error}", do="fetch it again"
        ) from error


def check_size(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that cannot fill ``module``, which may be on the meta device.

    A header may describe a network that no memory holds: nothing is allocated for it before.
    """
    described = sum(t.numel() for t in module.state_dict().values())
    held = sum(t.numel() for t in tensors.values())
    if described != held:
        raise ModelError(
            f"{path} describes a network of {described} numbers and holds {held}",
            do="the file is damaged or was written by another program: fetch it again",
        )


def load_state(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a module, each into the one of its name and shape; floats as float32.

    Raises:
        ModelError: tensors are missing, left over, or of other shapes; then nothing is copied.

    Example:
        >>> from sfumato.nn import UNet, UNetConfig
        >>> unet = UNet(UNetConfig(channels=(4,), blocks=1, embedding=8))
        >>> load_state(unet, load_checkpoint("prior.safetensors")[0])
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors]
    unexpected = [name for name in tensors if name not in own]
    reshaped = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    told = [f"{len(names)} {what}: {_some(names)}" for what, names in faults.items() if names]
    if told:
        raise ModelError(
            f"the checkpoint does not fit the {type(module).__name__}: {'; '.join(told)}",
            do="use the configuration that it was saved with",
        )
    floats = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    module.load_state_dict(floats, strict=True)


def _check_magic(path: Path) -> None:
    """Refuse what is certainly no safetensors file, with a better reason than its reader has."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except FileNotFoundError as error:
        raise ModelError(f"there is no checkpoint {path}", do="check the name") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise ModelError(f"{path} is empty (0 bytes)", expected="a checkpoint")
    # A zip archive, a bare pickle (protocol 2 to 5), the old tar: all that torch.save ever wrote.
    if head.startswith(b"PK") or (head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5"):
        raise ModelError(
            f"{path} is a PyTorch pickle, which could run any code when it is read",
            expected="safetensors",
            do="convert it with sfumato.io.save_checkpoint(new_path, "
            "torch.load(path, weights_only=True), config)",
        )


def _parse_config(path: Path, text: str) -> dict[str, object]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ModelError(f"the configuration in {path} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(
            f"the configuration in {path} is a {type(config).__name__}", expected="a dictionary"
        )
    return config


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors in memory of their own, as safetensors demands (tied weights share)."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        stored = tensor.detach().cpu().contiguous()
        address = stored.untyped_storage().data_ptr()
        separate[name] = stored.clone() if address in seen else stored
        seen.add(address)
    return separate


def _sort_metadata(path: Path) -> None:
    """Put the header's texts in order, in place: safetensors writes them in any."""
    with path.open("r+b") as file:
        (n_header,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(n_header))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= n_header:
            file.seek(8)
            file.write(text.ljust(n_header))


def _some(names: Iterable[str]) -> str:
    """Name a few, and how many there are besides."""
    listed = list(names)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
