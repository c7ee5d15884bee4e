"""The laws that operators, samplers and methods obey, for your own ones too; checkpoints."""

from sfumato.testing._adm import adm_state_dict
from sfumato.testing._gaussian import GaussianImages, matrix, restorations
from sfumato.testing._operators import check_operator
from sfumato.testing._samplers import check_sampler, measured_order

__all__ = [
    "GaussianImages",
    "adm_state_dict",
    "check_operator",
    "check_sampler",
    "matrix",
    "measured_order",
    "restorations",
]
