"""Published and embedded models as denoisers. Importing this loads no torch."""

from sfumato.zoo.prior import EMBEDDED, Prior, PriorSummary, card, list_priors, load_prior

__all__ = ["EMBEDDED", "Prior", "PriorSummary", "card", "list_priors", "load_prior"]
