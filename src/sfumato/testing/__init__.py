"""The laws that operators and samplers obey, for your own ones too."""

from sfumato.testing._operators import check_operator
from sfumato.testing._samplers import check_sampler, measured_order

__all__ = ["check_operator", "check_sampler", "measured_order"]
