"""Models of the Hugging Face hub by name: ``hf:OWNER/REPO``, from its cache or fetched into it.

Only what a model is made of is fetched: JSON, cards and safetensors; pickles where there is
nothing else, of which tensors alone are ever read.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from sfumato.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "hf:"
_FORM = f"{PREFIX}OWNER/REPO, with /FILE for one file of it and @REVISION for a revision"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>[\w./-]+))?")
_WEIGHTS = "diffusion_pytorch_model"
_DATA = ("*.json", "*.md")
_SAFE = (".safetensors", "-*-of-*.safetensors")
_PICKLED = (".bin",)


@final
@dataclass(frozen=True)
class HubName:
    """A model on the hub: a repository, perhaps one file of it, perhaps a revision."""

    repo: str
    file: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        """Return the name by which it is asked for."""
        at = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{self.repo}{f'/{self.file}' if self.file else ''}{at}"

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Read ``[hf:]OWNER/REPO[/FILE][@REVISION]``; ModelError where it is none.

        >>> HubName.parse("hf:google/ddpm-celebahq-256")
        HubName(repo='google/ddpm-celebahq-256', file=None, revision=None)
        """
        found = _NAME.fullmatch(text.removeprefix(PREFIX))
        if found is None or ".." in text:
            raise ModelError(f"the name {text!r} of a model on the hub", expected=_FORM)
        return cls(found["repo"], found["file"], found["revision"])

    def within(self, snapshot: Path) -> Path:
        """Return what is meant in a copy of the repository."""
        return snapshot / self.file if self.file else snapshot


def at_hand(text: str, cache: Path | None = None) -> Path:
    """Return the file or folder of a model on the hub: from the cache, else fetched into it.

    ``cache`` is the folder of the cache, by custom that of the hub's own programs. Raises
    ModelError where the name is none, or the model neither there nor to be had.
    """
    name = HubName.parse(text)
    return find(name, cache) or fetch(name, cache)


def find(name: HubName, cache: Path | None = None) -> Path | None:
    """Return a model that is in the cache as a whole; None where it is not.

    The hub's client is not asked: it calls a repository incomplete of which only a part, all that
    a model is made of, was fetched.
    """
    cache = cache or _usual_cache()
    folder = cache / f"models--{name.repo.replace('/', '--')}" if cache else None
    if folder is None or not folder.is_dir():
        return None
    snapshot = _snapshot_of(folder, name.revision or "main")
    path = name.within(snapshot) if snapshot else None
    return path if path and _is_whole(name, path) else None


def _snapshot_of(folder: Path, revision: str) -> Path | None:
    """Return the folder of a revision, a name or a digest, in a repository's folder."""
    ref = folder / "refs" / revision
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def _usual_cache() -> Path | None:
    """Return the folder that the hub's own programs keep models in."""
    try:
        constants = importlib.import_module("huggingface_hub.constants")
    except ImportError:
        return None
    return Path(constants.HF_HUB_CACHE)


def fetch(name: HubName, cache: Path | None = None) -> Path:
    """Fetch the newest of a model into the cache, and return where it lies; raises ModelError."""
    if name.file:
        files: list[tuple[str, ...]] = [(name.file, str(Path(name.file).with_suffix(".md")))]
    else:
        files = _weights(_snapshot(name, _DATA, cache))
    for patterns in files:
        path = name.within(_snapshot(name, patterns, cache))
        if _is_whole(name, path):
            return path
    raise ModelError(
        f"{name.repo} on the hub holds no {name.file or 'weights of its network'}",
        expected="a file of it" if name.file else f"{_WEIGHTS}.safetensors or .bin",
        do="name the file that you mean: " + _FORM,
    )


def _weights(folder: Path) -> list[tuple[str, ...]]:
    """Return what to fetch of a repository of which all but the weights is here, in turn.

    Raises ModelError where it is of no use, as a latent model: before gigabytes are fetched.
    """
    from sfumato.zoo.folder import read_folder

    place = read_folder(folder).network.relative_to(folder).as_posix()
    network = "" if place == "." else f"{place}/"
    return [tuple(f"{network}{_WEIGHTS}{kind}" for kind in kinds) for kinds in (_SAFE, _PICKLED)]


def _snapshot(name: HubName, patterns: tuple[str, ...], cache: Path | None) -> Path:
    hub = _hub()
    try:
        folder = hub.snapshot_download(
            name.repo, revision=name.revision, cache_dir=cache, allow_patterns=list(patterns)
        )
    except _failures() as error:
        raise _not_to_be_had(name, error) from error
    return Path(folder)


def _not_to_be_had(name: HubName, error: Exception) -> ModelError:
    """Tell what kept a model from being fetched, by the name of the hub's own error."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return ModelError(
            f"{name} is on the hub for those only who agreed to its terms",
            do="agree to them there, and log in with: hf auth login",
        )
    if "RepositoryNotFoundError" in kinds or "RevisionNotFoundError" in kinds:
        return ModelError(f"there is no {name} on the hub", do="check the name")
    if "HFValidationError" in kinds:
        return ModelError(f"the name {str(name)!r} of a model on the hub", expected=_FORM)
    return ModelError(
        f"{name} is not in the cache, and the hub cannot be reached",
        do="connect this machine, or fetch it elsewhere with: sfumato models download "
        f"{name.repo} --cache FOLDER, and give the folder that this names",
    )


def _is_whole(name: HubName, path: Path) -> bool:
    """Whether the file is there; of a folder, a network and its weights."""
    if name.file:
        return path.is_file()
    return any(
        (path / place / "config.json").is_file() and _has_weights(path / place)
        for place in ("unet", "transformer", "")
    )


def _has_weights(network: Path) -> bool:
    index = network / f"{_WEIGHTS}.safetensors.index.json"
    if index.is_file():
        shards = [*network.glob(f"{_WEIGHTS}-*-of-*.safetensors")]
        return bool(shards) and len(shards) == int(shards[0].stem.rpartition("-")[2])
    return any((network / f"{_WEIGHTS}.{kind}").is_file() for kind in ("safetensors", "bin"))


def cached(cache: Path | None = None) -> Iterator[tuple[HubName, Path]]:
    """List the networks of diffusers that are in the cache as a whole, with their folders."""
    cache = cache or _usual_cache()
    if cache is None:
        return
    for folder in sorted(cache.glob("models--*--*")):
        name = HubName("/".join(folder.name.split("--", 2)[1:]))
        if path := find(name, cache):
            yield name, path


def _hub() -> Any:  # noqa: ANN401
    try:
        # By its name, so that types are checked alike with and without it.
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ModelError(
            "a model of the hub without huggingface_hub, which is not installed",
            do='install it with: pip install "sfumato[models]"',
        ) from error
    # Whoever calls says what is done; bars are the command line's.
    importlib.import_module("huggingface_hub.utils").disable_progress_bars()
    return hub


def _failures() -> tuple[type[Exception], ...]:
    """Return what the hub's client raises, of its own and where a connection breaks."""
    own: tuple[type[Exception], ...] = (OSError, ValueError)
    try:
        return (*own, importlib.import_module("httpx").HTTPError)
    except ImportError:
        return own  # older clients have requests, whose errors are OSErrors
