"""All methods and models of sfumato as those who are compared."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from typing import Any, final

from typing_extensions import override

from sfumato._version import __version__
from sfumato.diffusion import parse_schedule
from sfumato.errors import SettingsError
from sfumato.evaluation.posed import Answer, Contender, Posed
from sfumato.linalg import NotConvergedWarning
from sfumato.pipeline import Settings, make_settings, restore
from sfumato.pipeline.presets import presets_digest
from sfumato.zoo import Prior, load_prior

#: Of settings that no method of a benchmark has: its seeds are those of the pictures.
_NOT_ASKED = ("method", "seed", "samples", "batch")


@final
class Models:
    """Models on one device, each loaded when it is first asked for, and kept.

    ``roles`` says which model stands for a name of a recipe.
    """

    def __init__(self, device: str = "cpu", roles: Mapping[str, str] | None = None) -> None:
        self.device = device
        self.roles = dict(roles or {})
        self._loaded: dict[str, Prior] = {}

    def load(self, name: str) -> Prior:
        """Return a model by its role, its name or its path; ModelError where there is none."""
        place = self.roles.get(name, name)
        if place not in self._loaded:
            self._loaded[place] = load_prior(place, device=self.device)
        return self._loaded[place]


@final
class Restoring(Contender):
    """``sfumato.restore`` by a method ("default" is the task's own), a model and settings.

    Raises SettingsError for settings that do not exist, with the likely spelling, and for
    impossible ones.

    >>> Restoring("x", "ddnm", Models(), settings={"step": 3})
    Traceback (most recent call last):
    sfumato.errors.SettingsError: method x: step is no setting; did you mean steps?
    """

    def __init__(
        self,
        name: str,
        method: str,
        models: Models,
        caption: str = "",
        *,
        model: str = "embedded",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.caption = name, caption or name
        self._models, self._model = models, model
        self._settings = checked_settings(name, method, settings or {})

    @override
    def identity(self, picture: str) -> Mapping[str, object]:
        prior = self._models.load(self._model)
        chosen = self._settings.model_dump(mode="json", exclude={"seed", "batch"})
        told: dict[str, object] = {"settings": chosen, "model": prior.digest}
        told |= {"precision": prior.precision, "collaborative": prior.collaborative}
        # What the settings leave open the program decides.
        return told | {"presets": presets_digest(), "program": __version__}

    @override
    def answer(self, posed: Posed) -> Answer:
        settings = self._settings.model_copy(update={"seed": posed.seed})
        y = posed.y.to(self._models.device)
        prior = self._models.load(self._model)
        with warnings.catch_warnings():
            # An inner solver that stops early is no news: what became of it is measured.
            warnings.simplefilter("ignore", NotConvergedWarning)
            result = restore(y, posed.degradation, prior=prior, settings=settings)
        report = result.report
        tile, overlap, stitch = (report.settings[key] for key in ("tile", "overlap", "stitch"))
        overlap = 0 if stitch == "independent" else overlap
        # Where the tiles of a larger picture met is not to be told from its means' size.
        told = report.tiles > 1 and "supersampling" not in report.settings
        tiles = (int(str(tile)), int(str(overlap))) if told else None
        return Answer(result.image.cpu(), report.evaluations_per_tile, tiles)


def checked_settings(name: str, method: str, values: Mapping[str, Any]) -> Settings:
    """Check the settings of a method of a benchmark.

    ``schedule`` may be a text, as ``--schedule`` has it. Raises SettingsError.
    """
    known = [field for field in Settings.model_fields if field not in _NOT_ASKED]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            do = f"did you mean {near[0]}?" if near else f"those are {', '.join(known)}"
            raise SettingsError(f"method {name}: {key} is no setting", do=do)
    chosen = dict(values)
    if isinstance(chosen.get("schedule"), str):
        chosen["schedule"] = parse_schedule(chosen["schedule"])
    return make_settings(method=None if method == "default" else method, **chosen)
