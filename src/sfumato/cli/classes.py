"""The model that is asked for on the command line, and its class: by name, or by a vote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.errors import SettingsError

if TYPE_CHECKING:
    from sfumato.pipeline.vote import Elected
    from sfumato.zoo import Classifier, Prior
    from sfumato.zoo.prior import AskedPrecision


@dataclass(frozen=True)
class Asked:
    """A model, where it is evaluated and how, and which class of it is meant."""

    model: str
    device: str
    precision: AskedPrecision
    label: str | None
    classifier: Path | None
    guidance: float | None

    @property
    def votes(self) -> bool:
        """Whether a classifier chooses the class of each picture."""
        return self.classifier is not None and self.label in (None, "auto")

    def prior(self) -> Prior:
        """Load the model, of the class that is asked for; raises ModelError and SettingsError."""
        self._check()
        prior = self._model()
        if self.label is not None:
            return prior.of_class(self.label, self._scale, classifier=self._classifier())
        if prior.needs_class:
            raise SettingsError(
                f"the model {self.model} without a class",
                expected=f"--class NAME, of the {len(prior.classes)} that it knows",
                do="choose one, or give a --classifier, which does",
            )
        return prior

    def elected(self) -> Elected | None:
        """Load the model with the classifier that chooses its class, if one does."""
        from sfumato.pipeline.vote import Elected

        classifier = self._classifier() if self.votes else None
        if classifier is None:
            return None
        return Elected(self._model(), classifier, self._scale, self.device)

    def _model(self) -> Prior:
        from sfumato.zoo import load_prior

        return load_prior(self.model, device=self.device, precision=self.precision)

    def _classifier(self) -> Classifier | None:
        from sfumato.zoo import load_classifier

        if self.classifier is None:
            return None
        return load_classifier(self.classifier, device=self.device, precision=self.precision)

    @property
    def _scale(self) -> float:
        return 1.0 if self.guidance is None else self.guidance

    def _check(self) -> None:
        """Refuse options that mean nothing alone."""
        if self.label == "auto" and self.classifier is None:
            raise SettingsError("--class auto without a classifier", do="give --classifier PATH")
        if self.guidance is not None and self.label is None:
            raise SettingsError(
                f"--guidance {self.guidance:g} without a class",
                do="give --class or --classifier",
            )
