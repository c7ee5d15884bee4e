"""Published and embedded models as denoisers. Importing this loads no torch."""

from sfumato.zoo.classifier import load_classifier
from sfumato.zoo.model import Classifier, Prior, SuperResolution
from sfumato.zoo.names import EMBEDDED, SR3
from sfumato.zoo.prior import (
    PriorSummary,
    card,
    is_embedded,
    list_priors,
    load_prior,
    native_side,
    task_of_model,
)

__all__ = [
    "EMBEDDED",
    "SR3",
    "Classifier",
    "Prior",
    "PriorSummary",
    "SuperResolution",
    "card",
    "is_embedded",
    "list_priors",
    "load_classifier",
    "load_prior",
    "native_side",
    "task_of_model",
]
