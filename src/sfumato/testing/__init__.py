"""The laws that operators and samplers obey, for your own ones too; checkpoints to try out."""

from sfumato.testing._adm import adm_state_dict
from sfumato.testing._operators import check_operator
from sfumato.testing._samplers import check_sampler, measured_order

__all__ = ["adm_state_dict", "check_operator", "check_sampler", "measured_order"]
