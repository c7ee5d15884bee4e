"""The laws that operators, samplers and methods obey, for your own ones too."""

from sfumato.testing._gaussian import GaussianImages, matrix, restorations
from sfumato.testing._operators import check_operator
from sfumato.testing._samplers import check_sampler, measured_order

__all__ = [
    "GaussianImages",
    "check_operator",
    "check_sampler",
    "matrix",
    "measured_order",
    "restorations",
]
