"""A folder as diffusers saves pipelines and networks: what it holds, read from its JSON files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

from sfumato.errors import ModelError
from sfumato.zoo.folder_config import Beside, Scheduler, parse, read_config, read_json

if TYPE_CHECKING:
    from sfumato.diffusion.denoiser import Prediction
    from sfumato.diffusion.parameterisation import Parameterisation

UNET, TRANSFORMER = "UNet2DModel", "DiTTransformer2DModel"
#: Where a pipeline keeps its network; in old ones, and where there is no pipeline, in the folder.
_PLACES = ("unet", "transformer", ".")
_PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x_0"}


@final
@dataclass(frozen=True)
class Classes:
    """The labels of a network: how many it embeds, the names, and the one that stands for none."""

    n_labels: int = 0
    names: tuple[str, ...] = ()
    no_class: int | None = None


@final
@dataclass(frozen=True)
class Folder:
    """What the files of a folder say of the network in it.

    ``network`` is the folder with the weights, ``config`` the form of the network, ``scheduler``
    how it was trained and ``beside`` what ``sfumato.json`` adds to it.
    """

    path: Path
    network: Path
    config: Mapping[str, object]
    scheduler: Scheduler
    beside: Beside
    labels: Mapping[str, object]

    @property
    def kind(self) -> str:
        """The class of the network: ``UNET`` or ``TRANSFORMER``."""
        return str(self.config.get("_class_name"))

    @property
    def stride(self) -> int:
        """What sides must be multiples of; of a network of a fixed size the side itself."""
        if self.fixed_size:
            return self.side
        blocks = self.config.get("down_block_types")
        return 1 << (len(blocks) - 1) if isinstance(blocks, list) and blocks else 8

    @property
    def fixed_size(self) -> bool:
        """Whether the network knows images of one size only; transformers do."""
        said = self.beside.fixed_size
        return self.kind == TRANSFORMER if said is None else said

    @property
    def side(self) -> int:
        """The side of the images that the network was trained on, in pixels."""
        said = self.config.get("sample_size")
        sides = [n for n in (said if isinstance(said, list) else [said]) if isinstance(n, int)]
        side = self.beside.tile or min(sides, default=256)
        if self.fixed_size and (not sides or set(sides) != {side}):
            raise ModelError(
                f"{self.network} says fixed_size, and sample_size {said!r}",
                expected="one number of pixels" + (f", {side}" if self.beside.tile else ""),
            )
        return side

    @property
    def tile(self) -> int:
        """The side of a tile: that of the images of the training, in whole strides."""
        return -(-self.side // self.stride) * self.stride

    @property
    def edm(self) -> bool:
        """Whether the network is one behind EDM's preconditioning."""
        said = self.beside.preconditioning
        return self.scheduler.is_edm if said is None else said == "edm"

    @property
    def prediction(self) -> Literal["epsilon", "v_prediction", "sample"]:
        """What the network predicts, in diffusers' words."""
        if not self.scheduler.predict_epsilon and self.beside.prediction_type is None:
            return "sample"
        return self.beside.prediction_type or self.scheduler.prediction_type

    @property
    def clip(self) -> float | None:
        """The bound on estimates."""
        said = self.beside.clip
        if said is None:
            return None if self.edm else self.scheduler.clip
        return self.scheduler.clip_sample_range if said else None

    @property
    def sigma_max(self) -> float:
        """The largest noise that the network is asked with."""
        known = self.parameterisation().sigma_max
        return min(known, self.beside.sigma_max or known)

    def parameterisation(self) -> Parameterisation:
        """Return what the network sees and answers; raises ModelError."""
        from sfumato.diffusion.parameterisation import EDM, VariancePreserving

        said = self.prediction
        if self.edm:
            if said == "sample":
                raise ModelError(
                    f"{self.path} says that a network of EDM predicts samples",
                    expected="epsilon, for F of EDM's equation 7, or v_prediction, for -F",
                )
            s, beside = self.scheduler, self.beside
            return EDM(
                beside.sigma_data or s.sigma_data,
                beside.sigma_max or s.sigma_max,
                negated=said == "v_prediction",
            )
        in_table = self.config.get("time_embedding_type") == "learned"
        alpha_bar = self.scheduler.alpha_bar(self.path)
        return VariancePreserving(alpha_bar, _PREDICTIONS[said], whole_times=in_table)

    @property
    def classes(self) -> Classes:
        """The labels that the network embeds; raises ModelError where they do not fit its names.

        Where there is one label more than names, the last one stands for no class. Without names
        every label is a class, but for the ``no_class`` of ``sfumato.json``; in a DiT the last.
        """
        n = self._n_labels()
        no_class = self.beside.no_class
        if no_class is None and self.kind == TRANSFORMER:
            no_class = n - 1
        names = self.beside.classes
        if names is None:
            names = _names(self.labels, n - (no_class is not None))
        if no_class is None and len(names) == n - 1:
            no_class = n - 1
        known = n - (no_class is not None)
        if (no_class is not None and no_class != n - 1) or len(names) not in (0, known):
            said = "" if no_class is None else f", and label {no_class} for no class"
            raise ModelError(
                f"{self.path} embeds {n} labels and names {len(names)} classes{said}",
                expected=f"as many names, or one less and label {n - 1} for no class",
                do='give "classes" in sfumato.json, and "no_class" if there is such a label',
            )
        return Classes(n, names, no_class)

    def _n_labels(self) -> int:
        if self.kind == TRANSFORMER:
            n = self.config.get("num_embeds_ada_norm", 1000)
            return n + 1 if isinstance(n, int) else 0
        n = self.config.get("num_class_embeds")
        if (how := self.config.get("class_embed_type")) is not None:
            raise ModelError(
                f"{self.network} embeds classes by {how!r}", expected="a table of num_class_embeds"
            )
        return n if isinstance(n, int) else 0

    @property
    def licence(self) -> str:
        """The licence, as ``sfumato.json`` or the head of the card says it."""
        return self.beside.licence or licence_of(self.path / "README.md")


def find(path: Path) -> Path | None:
    """Return the folder of the network in a folder of diffusers; None where there is none such."""
    for place in _PLACES:
        config = path / place / "config.json"
        if config.is_file() and read_json(config).get("_class_name") in (UNET, TRANSFORMER):
            return path / place if place != "." else path
    return None


def read_folder(path: Path) -> Folder:
    """Read what the files of a folder say; raises ModelError where there is no such network."""
    index = path / "model_index.json"
    pipeline = read_json(index) if index.is_file() else {}
    network = find(path)
    _check_pipeline(path, pipeline, network)
    if network is None:
        raise ModelError(
            f"{path} holds no network", expected=f"a config.json of a {UNET} or {TRANSFORMER}"
        )
    if network == path and not pipeline and (path.parent / "model_index.json").is_file():
        raise ModelError(
            f"{path} is part of a pipeline, and does not say how it was trained",
            do=f"give the folder {path.parent}",
        )
    config = read_json(network / "config.json")
    _check_network(network, config)
    beside = _first(path / "sfumato.json", network / "sfumato.json")
    folder = Folder(
        path,
        network,
        config,
        _scheduler(path),
        read_config(beside, Beside) if beside else Beside(),
        _labels(pipeline, config),
    )
    _check_times(folder)
    return folder


def licence_of(card: Path) -> str:
    """Return the licence in the head of a card of the hub, or nothing."""
    if not card.is_file():
        return ""
    head = re.match(
        r"---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL
    )
    said = re.search(r"^licen[sc]e:\s*(\S.*?)\s*$", head[1], re.MULTILINE) if head else None
    return said[1].strip("\"'") if said else ""


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _scheduler(path: Path) -> Scheduler:
    """Return what the scheduler says; without one that of DDPM, as diffusers has it."""
    found = _first(path / "scheduler/scheduler_config.json", path / "scheduler_config.json")
    if found is None:
        return parse({}, path, Scheduler)
    scheduler = read_config(found, Scheduler)
    if not scheduler.is_known:
        raise ModelError(
            f"{found} names the scheduler {scheduler.name}",
            expected="one of a variance-preserving schedule (DDPM, DDIM, PNDM, ...) or of EDM",
        )
    return scheduler


def _check_pipeline(path: Path, pipeline: Mapping[str, object], network: Path | None) -> None:
    """Refuse pipelines whose network does not see the pixels, or is told more than noise."""
    parts = {
        name: part
        for name, part in pipeline.items()
        if isinstance(part, list) and part and part[0] is not None
    }
    more = sorted(name for name in parts if name not in ("unet", "transformer", "scheduler"))
    if more or (pipeline and network is None):
        what = f" with {', '.join(more)}" if more else ""
        raise ModelError(
            f"{path} is a {pipeline.get('_class_name', 'pipeline')}{what}",
            expected="a pipeline that makes images of pixels, without text: a network "
            f"({UNET}, {TRANSFORMER}) and a scheduler",
        )


def _check_network(network: Path, config: Mapping[str, object]) -> None:
    channels_in, channels_out = config.get("in_channels", 3), config.get("out_channels")
    if config.get("_class_name") == TRANSFORMER:
        channels_in = config.get("in_channels", 4)
    channels_out = channels_in if channels_out is None else channels_out
    if channels_in != 3 or channels_out not in (3, 6):
        raise ModelError(
            f"{network} is a network of {channels_in} channels in and {channels_out} out",
            expected="3 (or 6 out, with a variance): RGB images, not latent or grey ones",
        )


def _check_times(folder: Folder) -> None:
    if folder.config.get("time_embedding_type") == "fourier":
        raise ModelError(
            f"{folder.network} embeds the logarithm of what it is told (time_embedding_type "
            "fourier), as score networks of variance-exploding schedules do",
            expected="positional or learned",
        )


def _labels(pipeline: Mapping[str, object], config: Mapping[str, object]) -> dict[str, object]:
    for said in (pipeline, config):
        labels = said.get("id2label")
        if isinstance(labels, dict):
            return labels
    return {}


def _names(labels: Mapping[str, object], n: int) -> tuple[str, ...]:
    """Return the names of classes in order, of several for one the first; numbers without any."""
    if labels and all(key.isdecimal() for key in labels):
        return tuple(str(labels[key]).split(",")[0] for key in sorted(labels, key=int))
    return tuple(str(i) for i in range(n))
